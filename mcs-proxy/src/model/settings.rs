use super::{NamespacedName, Problem};
use clap::ValueEnum;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What the operator says of everything and of single clusters: the ConfigMap that `--settings` names.
///
/// Its key `mode` holds a [`Mode`]; every other key is a cluster's name and holds a [`ClusterSettings`] as YAML.
/// Without the ConfigMap everything stands at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub mode: Mode,
    /// By the cluster's name, this cluster's own included. Those not named have [`ClusterSettings::default`].
    pub clusters: BTreeMap<String, ClusterSettings>,
    /// mcs-proxy is to leave every node.
    pub uninstall: Option<Uninstall>,
}

/// The ConfigMap's annotation [`UNINSTALL_ANNOTATION`]: the daemons drain, take everything off and say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uninstall {
    /// Which attempt it is: reports have it as a label.
    pub id: String,
    /// How long connections may take to end.
    #[serde(with = "seconds")]
    pub drain: Duration,
    /// `mode` as it was, for whoever thinks better of it.
    #[serde(default)]
    pub mode: Option<String>,
}

/// On the settings' ConfigMap, an [`Uninstall`] as JSON; on a report, its id as a label.
pub const UNINSTALL_ANNOTATION: &str = "mcs-proxy.io/uninstall";

mod seconds {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_secs())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }
}

/// `mode`: the switch for everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Active,
    /// No new flows; those there are go on.
    Drain,
    /// As drain, and the programs are detached.
    Bypass,
}

/// `mcs-proxy mode`: the same switch on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NodeMode {
    /// As the settings say
    #[default]
    Auto,
    /// Serve, whatever the settings say
    Active,
    /// No new flows; those there are finish
    Drain,
    /// The same, and take the programs off: flows that are still open end
    Bypass,
}

impl Mode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Drain => "drain",
            Self::Bypass => "bypass",
        }
    }
}

impl NodeMode {
    /// What holds on this node where the settings say `settings`.
    #[must_use]
    pub const fn over(self, settings: Mode) -> Mode {
        match self {
            Self::Auto => settings,
            Self::Active => Mode::Active,
            Self::Drain => Mode::Drain,
            Self::Bypass => Mode::Bypass,
        }
    }
}

/// `member1: {state: …, cidrs: […], on-failure: …, zones: …, max-endpoints: …}`; each field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    pub state: ClusterState,
    /// Ranges of its pods, sorted. Not empty: its imports may name no address outside them; of this cluster's own
    /// entry: no import may name one inside.
    pub cidrs: Vec<IpNet>,
    pub on_failure: OnFailure,
    pub zones: Zones,
    /// How many endpoints it may import in all.
    pub max_endpoints: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    #[default]
    Active,
    /// No new flows; those there are go on.
    Drain,
    /// No new flows, and those there are end.
    Drop,
}

/// What to do if its new flows stay without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    #[default]
    Keep,
    Drain,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zones {
    /// Its zones are its own, whatever they are called.
    #[default]
    Own,
    /// Its zones' names mean the same as this cluster's.
    Shared,
}

impl Settings {
    /// What holds for a cluster, named here or not.
    #[must_use]
    pub fn cluster(&self, name: &str) -> ClusterSettings {
        self.clusters.get(name).cloned().unwrap_or_default()
    }
}

/// The ConfigMap as it was read. What could not be read stands at its default until the
/// [`Model`](super::Model) puts the last good value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsObject {
    pub key: NamespacedName,
    pub settings: Settings,
    /// Keys whose values could not be read; none of them is in `settings.clusters`.
    pub malformed: BTreeSet<String>,
    pub problems: Vec<Problem>,
}

/// The key of [`Settings::mode`]; all others are clusters' names.
pub const MODE_KEY: &str = "mode";

impl SettingsObject {
    /// Puts `previous`'s values where this one's were malformed: a value that cannot be read changes nothing.
    pub(super) fn keep_last_good_of(&mut self, previous: &Settings) {
        for key in &self.malformed {
            if key == UNINSTALL_ANNOTATION {
                self.settings.uninstall.clone_from(&previous.uninstall);
            } else if key == MODE_KEY {
                self.settings.mode = previous.mode;
            } else if let Some(cluster) = previous.clusters.get(key) {
                self.settings.clusters.insert(key.clone(), cluster.clone());
            }
        }
    }
}
