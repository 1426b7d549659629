//! What the chart and the kustomize base make, as helm and kubectl render them.

use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::cluster::Parts;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
};

fn deploy(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name).display().to_string()
}

fn helm(arguments: &[&str]) -> Result<Output> {
    let helm = Parts::find()?.program("helm")?;
    Command::new(helm).args(arguments).output().context("helm")
}

fn template(sets: &[&str]) -> Result<Output> {
    let chart = deploy("chart");
    let mut arguments = vec!["template", "mcs-proxy", &chart, "--namespace", "mcs-proxy"];
    for set in sets {
        arguments.extend(["--set-json", set]);
    }
    helm(&arguments)
}

type Objects = BTreeMap<(String, String), Value>;

/// By kind and name.
fn objects(yaml: &[u8]) -> Result<Objects> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(std::str::from_utf8(yaml)?)?;
    let named = |object: &Value, field: &Value| -> Result<String> {
        Ok(field.as_str().with_context(|| object.to_string())?.to_owned())
    };
    objects
        .into_iter()
        .filter(|object| !object.is_null())
        .map(|object| {
            let name = (named(&object, &object["kind"])?, named(&object, &object["metadata"]["name"])?);
            Ok((name, object))
        })
        .collect()
}

fn rendered(sets: &[&str]) -> Result<Objects> {
    let output = template(sets)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    objects(&output.stdout)
}

fn daemon_set(objects: &Objects) -> &Value {
    &objects[&("DaemonSet".to_owned(), "mcs-proxy".to_owned())]["spec"]["template"]["spec"]
}

const NAME: &str = r#"clusterName="member1""#;

#[test]
fn the_chart_passes_helms_lint() {
    let output = helm(&["lint", "--strict", &deploy("chart"), "--set", "clusterName=member1"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_wrong_value_is_refused_when_rendered_with_the_fields_name() {
    for (wrong, field) in [
        (r#"clusterName="""#, "clusterName"),
        (r#"clusterName="Member_1""#, "clusterName"),
        (r#"clusterName=null"#, "clusterName"),
        (r#"clustername="member1""#, "clustername"),
        (r#"image.digest="abc""#, "/image/digest"),
        (r#"image.pullPolicy="Sometimes""#, "/image/pullPolicy"),
        (r#"apiServer.host="https://10.0.0.1""#, "/apiServer/host"),
        (r#"apiServer.port=70000"#, "/apiServer/port"),
        (r#"settings.mode="off""#, "/settings/mode"),
        (r#"settings.member2={"state": "gone"}"#, "/settings/member2/state"),
        (r#"settings.member2={"cidr": []}"#, "cidr"),
        (r#"socketPath.scope="some""#, "/socketPath/scope"),
        (r#"socketPath.cgroup="sys""#, "/socketPath/cgroup"),
        (r#"metrics.bindAddress="localhost""#, "/metrics/bindAddress"),
        (r#"metrics.podMonitor.enabled=true"#, "metrics.bindAddress"),
        (r#"extraArgs=["max-flows=1"]"#, "/extraArgs/0"),
        (r#"nodeSelector={"canary": true}"#, "/nodeSelector/canary"),
    ] {
        let output = template(&[NAME, wrong]).unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{wrong} was taken");
        assert!(words.contains(field), "{wrong}: {words}");
    }
}

#[test]
fn the_chart_and_the_kustomize_base_make_the_same() {
    let mut chart = rendered(&[NAME]).unwrap();
    // Who applies the base runs `mcs-proxy uninstall` by hand.
    let job = chart.remove(&("Job".to_owned(), "mcs-proxy-uninstall".to_owned())).unwrap();
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
    let kubectl = Parts::find().unwrap().program("kubectl").unwrap();
    let output = Command::new(kubectl).args(["kustomize", &deploy("examples/kustomize")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut base = objects(&output.stdout).unwrap();

    // Helm makes the namespace itself, and cannot say this of it.
    let namespace = base.remove(&("Namespace".to_owned(), "mcs-proxy".to_owned())).unwrap();
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    let plain = |objects: Objects| -> Objects {
        objects.into_iter().map(|(name, object)| (name, without_labels(object))).collect()
    };
    let (chart, base) = (plain(chart), plain(base));
    assert_eq!(chart.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (name, object) in &chart {
        assert_eq!(object, &base[name], "{name:?}");
    }
}

/// Helm labels everything, and selects by one label more.
fn without_labels(mut object: Value) -> Value {
    for pointer in ["/metadata", "/spec/selector", "/spec/template/metadata"] {
        if let Some(Value::Object(place)) = object.pointer_mut(pointer) {
            place.remove("labels");
            place.remove("matchLabels");
        }
    }
    object
}

#[test]
fn the_pod_has_three_capabilities_and_nothing_else_that_is_special() {
    let objects = rendered(&[NAME]).unwrap();
    let pod = daemon_set(&objects);
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "runAsGroup": 0,
            "capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]},
        })
    );
    assert_eq!(pod["securityContext"], json!({"seccompProfile": {"type": "RuntimeDefault"}}));
    assert_eq!(pod["hostNetwork"], true);
    for absent in ["hostPID", "hostIPC", "initContainers"] {
        assert!(pod[absent].is_null(), "{absent}");
    }
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    let mounts: Vec<_> =
        container["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["mountPath"]).collect();
    assert_eq!(mounts, ["/sys/fs/bpf", "/run/mcs-proxy", "/host/cgroup"]);
}

#[test]
fn values_reach_the_pod() {
    let objects = rendered(&[
        NAME,
        r#"image={"repository": "registry.example/mcs-proxy", "tag": "1.2.3", "pullSecrets": [{"name": "key"}]}"#,
        r#"apiServer={"host": "10.0.0.1", "port": 443}"#,
        r#"socketPath.scope="off""#,
        r#"extraArgs=["--max-flows=7", "--redirect"]"#,
        r#"nodeSelector={"canary": "yes"}"#,
        r#"allServices=true"#,
        r#"metrics={"bindAddress": "[::]:9000", "podMonitor": {"enabled": true, "labels": {"team": "net"}}}"#,
        r#"settings={"mode": "drain", "member2": {"state": "drop", "cidrs": ["10.9.0.0/16"]}}"#,
    ])
    .unwrap();
    let pod = daemon_set(&objects);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example/mcs-proxy:1.2.3");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "key"}]));
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux", "canary": "yes"}));
    let arguments = ["run", "--cluster-name=member1", "--settings=mcs-proxy/mcs-proxy", "--socket-path=off"];
    let more = ["--metrics-bind-address=[::]:9000", "--all-services", "--max-flows=7", "--redirect"];
    assert_eq!(container["args"], json!([&arguments[..], &more].concat()));
    let environment = container["env"].as_array().unwrap();
    assert!(environment.contains(&json!({"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"})));
    assert!(environment.contains(&json!({"name": "KUBERNETES_SERVICE_PORT", "value": "443"})));
    // What is off is not mounted either.
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert_eq!(volumes, ["bpffs", "run"]);

    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let asked = &container[probe]["httpGet"];
        assert_eq!((&asked["host"], &asked["port"]), (&json!("127.0.0.1"), &json!(9000)), "{probe}");
    }
    let monitor = &objects[&("PodMonitor".to_owned(), "mcs-proxy".to_owned())];
    assert_eq!(monitor["metadata"]["labels"]["team"], "net");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["replacement"], "$1:9000");

    let settings = &objects[&("ConfigMap".to_owned(), "mcs-proxy".to_owned())]["data"];
    assert_eq!(settings["mode"], "drain");
    let member2: Value = serde_saphyr::from_str(settings["member2"].as_str().unwrap()).unwrap();
    assert_eq!(member2, json!({"state": "drop", "cidrs": ["10.9.0.0/16"]}));
}

#[test]
fn the_job_that_leaves_runs_on_a_node_that_is_there_with_no_rights_on_it() {
    let values = [NAME, r#"uninstall={"drainSeconds": 30, "force": true}"#, r#"apiServer.host="10.0.0.1""#];
    let objects = rendered(&values).unwrap();
    let job = &objects[&("Job".to_owned(), "mcs-proxy-uninstall".to_owned())];
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 30 + 60 + 120);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "mcs-proxy-uninstall");
    // Without NoExecute: with that taint the cluster tells of a node that is gone.
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists", "effect": "NoSchedule"}]));
    assert!(pod["hostNetwork"].is_null() && pod["volumes"].is_null(), "{pod}");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    let arguments = container["args"].as_array().unwrap();
    for argument in ["--drain=30s", "--patience=60s", "--force", "--settings=mcs-proxy/mcs-proxy"] {
        assert!(arguments.contains(&json!(argument)), "{argument}: {arguments:?}");
    }
    assert!(
        container["env"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"}))
    );
    let objects = rendered(&[NAME, "uninstall.enabled=false"]).unwrap();
    assert!(objects.keys().all(|(_, name)| name != "mcs-proxy-uninstall"));
}

#[test]
fn a_digest_is_stronger_than_a_tag() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let objects = rendered(&[NAME, &format!(r#"image.digest="{digest}""#), r#"image.tag="latest""#]).unwrap();
    assert_eq!(daemon_set(&objects)["containers"][0]["image"], format!("localhost/mcs-proxy@{digest}"));
}
