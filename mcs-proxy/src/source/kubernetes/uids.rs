use crate::model::{NamespacedName, ObjectKind};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

/// A name's hash, and the uid.
pub(super) type UidEntry = (u64, [u8; 16]);

/// The uids of the objects that are followed, which Events about them need. The model has no use for them.
///
/// There may be tens of thousands: a hash, of a key of this process' own, stands for a name, and a uid is kept as the
/// UUID that it is.
#[derive(Debug, Default)]
pub(super) struct Uids {
    state: RandomState,
    /// In order. A hash map would have room for twice as many.
    known: Mutex<BTreeMap<ObjectKind, Vec<UidEntry>>>,
}

impl Uids {
    /// All objects of this kind are these.
    pub(super) fn list(&self, kind: ObjectKind, objects: Vec<UidEntry>) {
        let mut objects = objects;
        objects.sort_unstable();
        objects.dedup_by_key(|(name, _)| *name);
        objects.shrink_to_fit();
        self.with(kind, |known| *known = objects);
    }

    /// What [`Self::list`] takes of an object; `None` for one without a uid.
    pub(super) fn entry(&self, key: &NamespacedName, uid: Option<&str>) -> Option<UidEntry> {
        Some((self.state.hash_one(key), parse(uid?)?))
    }

    /// The object is new, changed, or (`None`) gone.
    pub(super) fn set(&self, kind: ObjectKind, key: &NamespacedName, uid: Option<&str>) {
        let name = self.state.hash_one(key);
        self.with(kind, |known| match (find(known, name), uid.and_then(parse)) {
            (Ok(place), Some(uid)) => known[place].1 = uid,
            (Err(place), Some(uid)) => known.insert(place, (name, uid)),
            (Ok(place), None) => drop(known.remove(place)),
            (Err(_), None) => {}
        });
    }

    /// As the API server writes it; `None` for what is not there.
    pub(super) fn get(&self, kind: ObjectKind, key: &NamespacedName) -> Option<String> {
        let name = self.state.hash_one(key);
        self.with(kind, |known| {
            find(known, name).ok().map(|place| format(u128::from_be_bytes(known[place].1)))
        })
    }

    fn with<T>(&self, kind: ObjectKind, act: impl FnOnce(&mut Vec<UidEntry>) -> T) -> T {
        act(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default())
    }
}

fn find(known: &[UidEntry], name: u64) -> Result<usize, usize> {
    known.binary_search_by_key(&name, |(name, _)| *name)
}

/// `8-4-4-4-12` lower-case hexadecimal digits: RFC 9562.
fn parse(text: &str) -> Option<[u8; 16]> {
    let uid = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
    (format(uid) == text).then(|| uid.to_be_bytes())
}

fn format(uid: u128) -> String {
    let digits = format!("{uid:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_told_as_it_was_until_its_object_goes() {
        let uids = Uids::default();
        let kind = ObjectKind::Service;
        let [serve, other] = ["serve", "other"].map(|name| NamespacedName::new("default", name));
        let uid = "0709d42f-37ad-482c-b4cb-d6d5a7c1576a";
        uids.set(kind, &serve, Some(uid));
        assert_eq!(uids.get(kind, &serve).as_deref(), Some(uid));
        assert_eq!(uids.get(ObjectKind::ServiceImport, &serve), None);
        uids.set(kind, &serve, None);
        assert_eq!(uids.get(kind, &serve), None);
        for odd in ["", "x", "0709D42F-37ad-482c-b4cb-d6d5a7c1576a", "0709d42f37ad482cb4cbd6d5a7c1576a"] {
            uids.set(kind, &serve, Some(odd));
            assert_eq!(uids.get(kind, &serve), None, "{odd}");
        }
        uids.set(kind, &serve, Some(uid));
        uids.list(kind, uids.entry(&other, Some(uid)).into_iter().collect());
        assert_eq!(uids.get(kind, &serve), None);
        assert!(uids.get(kind, &other).is_some());
    }
}
