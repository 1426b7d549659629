use crate::{
    model::OptIn,
    source::{
        Object,
        decode::{Manifest, manifests},
    },
};

fn objects(text: &str) -> Vec<Object> {
    let object = |manifest| match manifest {
        Manifest::Object(object) => object,
        Manifest::Unreadable { .. } | Manifest::Nameless { .. } => panic!("{manifest:?}"),
    };
    manifests(serde_saphyr::from_str(text).unwrap(), "member2").into_iter().map(object).collect()
}

#[test]
fn karmadas_slices_are_read_with_their_cluster_and_their_null_lists() {
    let multi_cluster_service = [
        include_str!("../../fixtures/karmada/member2-endpointslices.yaml"),
        include_str!("../../fixtures/karmada/member3-endpointslices.yaml"),
        include_str!("../../fixtures/karmada/legacy-member2-endpointslices.yaml"),
    ];
    let read: Vec<String> = multi_cluster_service
        .iter()
        .flat_map(|text| objects(text))
        .map(|object| {
            let Object::EndpointSlice(slice) = object else { panic!("{object:?}") };
            assert_eq!(slice.problems, []);
            let ports: Vec<_> =
                slice.ports.iter().map(|port| format!("{}:{}", port.name, port.port)).collect();
            let ips: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            format!("{} {} {} {ports:?} {ips:?}", slice.key.name, slice.service, slice.source)
        })
        .collect();
    assert_eq!(
        read,
        [
            r#"kubernetes kubernetes local ["https:21022"] ["192.0.2.10"]"#,
            r#"member1-serve-4j6n5 serve member1 [":8080"] ["10.10.0.6"]"#,
            r#"serve-mnvft serve local [":8080"] ["10.12.0.6"]"#,
            r#"kubernetes kubernetes local ["https:21032"] ["192.0.2.10"]"#,
            r#"member1-serve-4j6n5 serve member1 [":8080"] ["10.10.0.6"]"#,
            r#"member2-serve-mnvft serve member2 [":8080"] ["10.12.0.6"]"#,
            r#"serve-rnxxl serve local [] []"#,
            r#"imported-member1-legacy-r6tkw derived-legacy member1 ["http:8080"] ["10.10.0.9"]"#,
            r#"kubernetes kubernetes local ["https:21022"] ["192.0.2.10"]"#,
            r#"member1-headless-z4wpq headless member1 ["http:8080"] ["10.10.0.7"]"#,
            r#"member1-named-ggjch named member1 ["dns:5353", "http:8080", "dns-tcp:5353"] ["10.10.0.7"]"#,
            r#"member1-nowhere-dcgj9 nowhere member1 [] []"#,
            r#"member1-serve-4j6n5 serve member1 [":8080"] ["10.10.0.6"]"#,
            r#"member3-named-b7ktg named member3 [] []"#,
            r#"named-c7g5t named local [] []"#,
            r#"nowhere-rjq8d nowhere local [] []"#,
        ]
    );
}

#[test]
fn karmadas_services_are_read() {
    let text = include_str!("../../fixtures/karmada/legacy-member2-services.yaml");
    let read: Vec<String> = objects(text)
        .into_iter()
        .map(|object| {
            let Object::Service(service) = object else { panic!("{object:?}") };
            assert_eq!((service.problems, service.opt_in), (vec![], OptIn::Unsaid));
            let ports: Vec<_> =
                service.ports.iter().map(|port| format!("{}:{}", port.name, port.port)).collect();
            format!("{} {} {:?} {ports:?}", service.key, service.created, service.cluster_ips)
        })
        .collect();
    assert_eq!(
        read,
        [
            r#"default/derived-legacy 1795431800 [10.13.255.29] ["http:80"]"#,
            r#"default/headless 1795431476 [] ["http:80"]"#,
            r#"default/kubernetes 1795431462 [10.13.0.1] ["https:443"]"#,
            r#"default/named 1795431475 [10.13.20.216] ["http:80", "dns:53", "dns-tcp:53"]"#,
            r#"default/nowhere 1795431476 [10.13.115.73] [":80"]"#,
        ]
    );
}
