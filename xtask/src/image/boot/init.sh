#!/bin/busybox sh
# The first process of the guest: a node with a client's pod and two to call, in network namespaces; what mcs-proxy does on
# it; and the last line, which says that all was well.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run

say() { echo "== after $(cut -d. -f1 /proc/uptime) s: $*"; }
fail() { echo "FAILED: $*"; cat /run/log; dmesg | tail -n 20; poweroff -f; }
# in_pod NAME COMMAND...
in_pod() { pod=$1; shift; nsenter -t "$(cat "/run/$pod.pid")" -n "$@"; }

# pod NAME ADDRESS: as CNI's ptp wires it
pod() {
  unshare -n sleep 1000000 &
  echo $! > "/run/$1.pid"
  until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/1/ns/net)" ]; do usleep 10000; done
  ip link add name "v$1" type veth
  eth=$(ip link show "v$1" | sed -n "s/.*v$1@\([a-z0-9]*\):.*/\1/p")
  ip link set "$eth" netns "$!"
  ip addr add 169.254.1.1/32 dev "v$1"
  ip link set "v$1" up
  in_pod "$1" ip link set lo up
  in_pod "$1" ip addr add "$2/32" dev "$eth"
  in_pod "$1" ip link set "$eth" up
  in_pod "$1" ip route add 169.254.1.1 dev "$eth"
  in_pod "$1" ip route add default via 169.254.1.1 dev "$eth"
  ip route add "$2/32" dev "v$1"
}

# get ADDRESS PORT [PATH]: the last line of the answer
cat > /bin/get <<'X'
#!/bin/sh
printf 'GET %s HTTP/1.0\r\n\r\n' "${3:-/}" | timeout 10 nc "$1" "$2" | tail -n 1
X
chmod 755 /bin/get
VIP=10.13.181.116

# shares WHO [COMMAND...]: ten calls, half of them to either endpoint
shares() {
  who=$1; shift
  : > /run/answers
  for call in 1 2 3 4 5 6 7 8 9 10; do "$@" get $VIP 80 >> /run/answers; done
  for endpoint in local remote; do
    count=$(grep -c "^$endpoint$" /run/answers)
    [ "$count" = 5 ] || fail "$who: $count of 10 calls came to the $endpoint endpoint"
  done
  say "$who: 10 calls, 5 to either endpoint"
}

daemon() {
  mcs-proxy run --cluster-name member2 --node-name member2-node-1 --source directory=/manifests >> /run/log 2>&1 &
  daemon=$!
  until get 127.0.0.1 10266 /readyz | grep -q '"status":"ok"'; do
    kill -0 $daemon || fail "the daemon has ended"
    sleep 0.2
  done
}

say "$(uname -srm)"
for module in /modules/*; do
  case $module in
    *.xz) xzcat "$module" > /run/module; module=/run/module;;
  esac
  insmod "$module" || fail "insmod"
done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
pod client 10.12.0.9
pod local 10.12.0.6
pod remote 10.10.0.6
for endpoint in local remote; do
  mkdir -p "/run/$endpoint"
  echo "$endpoint" > "/run/$endpoint/index.html"
  in_pod "$endpoint" httpd -p 8080 -h "/run/$endpoint"
done
[ "$(in_pod client get 10.10.0.6 8080)" = remote ] || fail "pods do not reach each other"

mcs-proxy check
daemon
say "the daemon is ready"
shares "a pod" in_pod client
shares "the node"
mcs-proxy services || fail "services"
mcs-proxy connections || fail "connections"
mcs-proxy status
kill -9 $daemon
wait $daemon
shares "a pod, without a daemon" in_pod client
daemon
shares "a pod, after another start" in_pod client
grep -q -i ' \(warn\|error\) ' /run/log && cat /run/log
kill $daemon
wait $daemon
mcs-proxy cleanup || fail "cleanup"
[ -z "$(ls -A /sys/fs/bpf)" ] || fail "left: $(find /sys/fs/bpf)"
[ -z "$(in_pod client get $VIP 80)" ] || fail "served after cleanup"
say "all is well"
poweroff -f
