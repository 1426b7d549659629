//! From the objects that Karmada writes to what the maps should hold, as seen from member2.

use super::{Flags, Resolver, testing};
use crate::{
    model::Model,
    source::{
        Event,
        decode::{Manifest, manifests},
    },
};
use std::time::Instant;

#[test]
fn karmadas_objects_become_frontends() {
    let mut model = Model::default();
    let mut resolver = Resolver::new(Flags { all_services: true, ..testing::flags() });
    for text in [
        include_str!("../source/fixtures/karmada/member2-services.yaml"),
        include_str!("../source/fixtures/karmada/member2-endpointslices.yaml"),
        include_str!("../source/fixtures/karmada/legacy-member2-services.yaml"),
        include_str!("../source/fixtures/karmada/legacy-member2-endpointslices.yaml"),
    ] {
        for manifest in manifests(serde_saphyr::from_str(text).unwrap(), "member2") {
            let Manifest::Object(object) = manifest else { panic!("{manifest:?}") };
            let affected = model.apply(Event::Applied(object));
            resolver.update(&model, &affected, Instant::now());
        }
    }
    let frontends: Vec<String> = resolver
        .desired()
        .iter()
        .map(|(key, frontend)| format!("{key} {} {:?}", frontend.service.name, frontend.slots))
        .collect();
    assert_eq!(
        frontends,
        [
            // The import lists its ports in another order than the Service; they find one another by name.
            "TCP 10.13.1.63:80 serve [10.12.0.6:8080, 10.10.0.6:8080]",
            "TCP 10.13.20.216:53 named [10.10.0.7:5353]",
            "UDP 10.13.20.216:53 named [10.10.0.7:5353]",
            "TCP 10.13.20.216:80 named [10.10.0.7:8080]",
            "TCP 10.13.115.73:80 nowhere []",
            // The Service's targetPort is 80, and the slice's port is what counts.
            "TCP 10.13.255.29:80 derived-legacy [10.10.0.9:8080]",
        ]
    );
    assert_eq!(model.problems().chain(resolver.problems()).count(), 0);
}
