use super::SourceCluster;
use std::{collections::BTreeMap, sync::Arc};

/// The other clusters that are known by name, as slices come from them; and how many do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clusters(BTreeMap<Arc<str>, usize>);

impl Clusters {
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// In order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// A slice that came from `former` comes from `now`. `true`: there is another cluster, or one less.
    pub(crate) fn exchange(&mut self, former: Option<&SourceCluster>, now: Option<&SourceCluster>) -> bool {
        if former == now {
            return false;
        }
        let mut is_news = false;
        if let Some(SourceCluster::Remote(name)) = now {
            let slices = self.0.entry(Arc::clone(name)).or_default();
            is_news |= *slices == 0;
            *slices += 1;
        }
        if let Some(SourceCluster::Remote(name)) = former
            && let Some(slices) = self.0.get_mut(name)
        {
            *slices -= 1;
            if *slices == 0 {
                self.0.remove(name);
                is_news = true;
            }
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_known_from_its_first_slice_to_its_last() {
        let mut clusters = Clusters::default();
        let [one, two] = ["member1", "member3"].map(|name| SourceCluster::Remote(name.into()));
        assert!(!clusters.exchange(None, Some(&SourceCluster::Local)));
        assert!(!clusters.exchange(Some(&SourceCluster::Unknown), None));
        assert!(clusters.exchange(None, Some(&one)));
        assert!(!clusters.exchange(None, Some(&one)));
        assert!(!clusters.exchange(Some(&one), Some(&one)));
        assert!(clusters.exchange(Some(&one), Some(&two)));
        assert_eq!(clusters.names().collect::<Vec<_>>(), ["member1", "member3"]);
        assert!(clusters.exchange(Some(&one), None));
        assert!(!clusters.has("member1") && clusters.has("member3"));
    }
}
