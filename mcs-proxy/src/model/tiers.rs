//! `mcs-proxy.io/clusters` and `mcs-proxy.io/min-ready`: which clusters take a Service's new flows, and when.
//!
//! ```text
//! clusters  = tier *( "," tier )
//! tier      = member *( "+" member )
//! member    = cluster [ "=" share ]            share: 1 to 1000
//! cluster   = "local" / "others" / NAME        NAME: RFC 1123, at most 63 characters
//! min-ready = NUMBER / PERCENTAGE "%"          from 1; at most 100 %
//! ```
//!
//! No character of it means anything to a shell.

use std::fmt;

/// The largest share, so that the wheel stays small: `1000` against `1` is a tenth of a percent.
pub const LARGEST_SHARE: u16 = 1000;

/// Tiers in the order of preference, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiers(Vec<Tier>);

/// Clusters that take new flows together, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier(Vec<Member>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub cluster: ClusterSelector,
    /// What follows the `=`.
    pub share: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClusterSelector {
    /// `local`: the cluster we are in.
    Local,
    /// `others`: every cluster that no tier names.
    Others,
    Named(String),
}

/// `mcs-proxy.io/min-ready`: how many eligible endpoints a tier must have to take the new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinReady {
    Count(u32),
    /// Of the endpoints that the tier's slices list, terminating ones aside; rounded up.
    Percent(u8),
}

/// Why a value makes no sense, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct PreferenceError {
    /// In characters, from 1.
    pub column: usize,
    message: String,
}

impl Tiers {
    /// Reads the value of `mcs-proxy.io/clusters`.
    ///
    /// # Errors
    /// It is not of the grammar, or names a cluster twice.
    pub fn parse(text: &str) -> Result<Self, PreferenceError> {
        let mut seen: Vec<ClusterSelector> = Vec::new();
        let mut tiers = Vec::new();
        for (start, tier) in pieces(text, ',') {
            let mut members = Vec::new();
            for (offset, member) in pieces(tier, '+') {
                let at = start + offset;
                let parsed = member_at(text, at, member)?;
                if seen.contains(&parsed.cluster) {
                    return Err(error(text, at, format!("{} is named twice", parsed.cluster)));
                }
                seen.push(parsed.cluster.clone());
                members.push(parsed);
            }
            tiers.push(Tier(members));
        }
        Ok(Self(tiers))
    }

    #[must_use]
    pub fn as_slice(&self) -> &[Tier] {
        &self.0
    }

    /// The clusters that they call by their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(Tier::members).filter_map(|member| match &member.cluster {
            ClusterSelector::Named(name) => Some(name.as_str()),
            ClusterSelector::Local | ClusterSelector::Others => None,
        })
    }
}

impl Tier {
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// Whether its clusters share by number; otherwise all its endpoints count alike.
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.0.iter().any(|member| member.share.is_some())
    }
}

impl MinReady {
    pub const DEFAULT: Self = Self::Count(1);

    /// Reads the value of `mcs-proxy.io/min-ready`.
    ///
    /// # Errors
    /// It is neither a number from 1 nor a percentage from 1 to 100.
    pub fn parse(text: &str) -> Result<Self, PreferenceError> {
        let digits = text.strip_suffix('%').unwrap_or(text);
        if let Some(strange) = digits.find(|c: char| !c.is_ascii_digit()) {
            return Err(error(text, strange, "expected a number, such as 2, or a percentage, such as 50%"));
        }
        let number: Option<u32> = digits.parse().ok();
        match (number, digits.len() < text.len()) {
            (Some(count @ 1..), false) => Ok(Self::Count(count)),
            (Some(percent @ 1..=100), true) => Ok(Self::Percent(percent as u8)),
            (_, true) => Err(error(text, 0, "a percentage is between 1% and 100%")),
            (_, false) => Err(error(text, 0, "expected a number from 1, or a percentage, such as 50%")),
        }
    }

    /// How many a tier needs whose slices list so many.
    #[must_use]
    pub fn of(self, listed: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (listed * usize::from(percent)).div_ceil(100).max(1),
        }
    }
}

fn member_at(text: &str, at: usize, member: &str) -> Result<Member, PreferenceError> {
    let (name, share) = match member.split_once('=') {
        Some((name, share)) => (name, Some((at + name.len() + 1, share))),
        None => (member, None),
    };
    Ok(Member {
        cluster: cluster_at(text, at, name)?,
        share: share.map(|(at, digits)| share_at(text, at, digits)).transpose()?,
    })
}

fn cluster_at(text: &str, at: usize, name: &str) -> Result<ClusterSelector, PreferenceError> {
    const NAME: &str = "a cluster's name has lower-case letters, digits, `-` and `.`";
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() {
        return Err(error(text, at, "a cluster's name is missing"));
    }
    if let Some((offset, strange)) = name.char_indices().find(|&(_, c)| !inner(c)) {
        return Err(error(text, at + offset, format!("`{}`: {NAME}", strange.escape_debug())));
    }
    if name.starts_with(['-', '.']) || name.ends_with(['-', '.']) {
        return Err(error(text, at, format!("{NAME}, and begins and ends with a letter or digit")));
    }
    if name.len() > 63 {
        return Err(error(text, at + 63, "a cluster's name has at most 63 characters"));
    }
    Ok(match name {
        "local" => ClusterSelector::Local,
        "others" => ClusterSelector::Others,
        name => ClusterSelector::Named(name.to_owned()),
    })
}

fn share_at(text: &str, at: usize, digits: &str) -> Result<u16, PreferenceError> {
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    match number {
        Some(share @ 1..=LARGEST_SHARE) => Ok(share),
        _ => Err(error(text, at, format!("a share is a number from 1 to {LARGEST_SHARE}"))),
    }
}

/// The pieces between separators, with their byte offsets.
fn pieces(text: &str, separator: char) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split(separator).map(move |piece| {
        let at = start;
        start += piece.len() + separator.len_utf8();
        (at, piece)
    })
}

fn error(text: &str, at: usize, message: impl Into<String>) -> PreferenceError {
    let before = text.get(..at).unwrap_or(text);
    PreferenceError { column: before.chars().count() + 1, message: message.into() }
}

impl fmt::Display for Tiers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, tier) in self.0.iter().enumerate() {
            formatter.write_str(if i == 0 { "" } else { "," })?;
            write!(formatter, "{tier}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Member { cluster, share }) in self.0.iter().enumerate() {
            formatter.write_str(if i == 0 { "" } else { "+" })?;
            write!(formatter, "{cluster}")?;
            if let Some(share) = share {
                write!(formatter, "={share}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ClusterSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Local => "local",
            Self::Others => "others",
            Self::Named(name) => name,
        })
    }
}

impl fmt::Display for MinReady {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Percent(percent) => write!(formatter, "{percent}%"),
        }
    }
}

#[cfg(test)]
#[path = "tiers_tests.rs"]
mod tests;
