use super::*;
use std::net::UdpSocket;

fn connected(local: &str, peer: &str) -> (UdpSocket, UdpSocket) {
    let server = UdpSocket::bind(peer).unwrap();
    let client = UdpSocket::bind(local).unwrap();
    let port = server.local_addr().unwrap().port();
    client.connect((peer.parse::<std::net::SocketAddr>().unwrap().ip(), port)).unwrap();
    (client, server)
}

/// On loopback, and with this kernel: sockets of both families and an IPv6 socket with an IPv4 peer.
#[test]
fn connected_sockets_are_listed_with_their_peers_and_unconnected_ones_are_not() {
    let pairs = [connected("127.0.0.1:0", "127.0.0.1:0"), connected("[::1]:0", "[::1]:0")];
    let listed: Vec<_> =
        SockDiag::open().unwrap().connected_udp().unwrap().iter().map(ConnectedSocket::peer).collect();
    for (client, server) in &pairs {
        let peer = client.peer_addr().unwrap();
        let count = |address: std::net::SocketAddr| {
            let wanted = (Address::from(address.ip()), Port::new(address.port()));
            listed.iter().filter(|peer| **peer == wanted).count()
        };
        assert_eq!(
            (count(peer), count(server.local_addr().unwrap()), count(client.local_addr().unwrap())),
            (1, 1, 0)
        );
    }
}

#[test]
fn an_ipv6_sockets_ipv4_peer_is_the_ipv4_address() {
    let mut id = [0; ID];
    id[2..4].copy_from_slice(&8080_u16.to_be_bytes());
    id[20..36].copy_from_slice(&"::ffff:10.10.0.6".parse::<Ipv6Addr>().unwrap().octets());
    id[40..44].copy_from_slice(&7_u32.to_ne_bytes());
    id[44..48].copy_from_slice(&1_u32.to_ne_bytes());
    let socket = ConnectedSocket { id, ..ConnectedSocket::any(libc::AF_INET6, libc::IPPROTO_UDP) };
    let ip: IpAddr = "10.10.0.6".parse().unwrap();
    assert_eq!((socket.peer(), socket.cookie()), ((Address::from(ip), Port::new(8080)), 7 | 1 << 32));
}

#[test]
fn what_a_kernel_lacks_is_named_by_its_option() {
    for (errno, what, said) in [
        (libc::EOPNOTSUPP, CLOSING, "CONFIG_INET_DIAG_DESTROY"),
        (libc::EOPNOTSUPP, CLOSING_TCP, "CONFIG_INET_DIAG_DESTROY"),
        (libc::ENOENT, LISTING, "CONFIG_INET_UDP_DIAG"),
        (libc::ENOENT, LISTING_TCP, "CONFIG_INET_TCP_DIAG"),
        (libc::EPERM, CLOSING, "close UDP sockets"),
    ] {
        let error = verdict(&(-errno).to_ne_bytes(), what).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(verdict(&0_i32.to_ne_bytes(), CLOSING).is_ok());
}

#[test]
fn answers_that_are_cut_short_are_errors_and_no_panic() {
    assert!(split(&[0; 15]).is_none());
    let mut lies = 64_u32.to_ne_bytes().to_vec();
    lies.resize(32, 0);
    assert!(split(&lies).is_none());
    assert_eq!(ConnectedSocket::parse(&[0; 51], 6), None);
    assert_eq!(stored(&[0; MESSAGE + 3]), None);
    assert!(matches!(verdict(&[0; 3], CLOSING), Err(SockDiagError::Malformed)));
}

#[test]
fn what_is_kept_with_a_socket_is_found_among_other_attributes() {
    let value = attribute(MAP_VALUE, &[7; 48]);
    let storage =
        attribute(STORAGE, &[attribute(2, &1_u32.to_ne_bytes()), attribute(1, &[]), value].concat());
    let nested = attribute(STORAGES | 0x8000, &storage);
    let message = [vec![0; MESSAGE], attribute(8, &[0]), nested].concat();
    assert_eq!(stored(&message), Some(vec![7; 48]));
    assert_eq!(stored(&message[..MESSAGE + 8]), None);
    // One that says it is longer than what is there, and one of no length at all.
    for length in [200_u16, 0] {
        let mut lies = message.clone();
        lies[MESSAGE + 8..MESSAGE + 10].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(stored(&lies), None);
    }
}
