use super::Reason;
use crate::model::{ObjectRef, Problem};
use std::time::Duration;

/// How long an Event stands before it is renewed.
pub const PERIOD: Duration = Duration::from_secs(3600);

/// `note` may have 1 kB.
const LONGEST_NOTE: usize = 1024;
/// A name may have 253 characters; the hash and the period take the rest.
const LONGEST_PREFIX: usize = 200;

/// What one Event tells of: all problems of one sort with one field of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic {
    pub object: ObjectRef,
    pub reason: Reason,
    /// As a path in the manifest, without the indices of endpoints: those of a slice are one Event.
    pub field: String,
    /// The offending value, where every node sees the same one: to mend a slip by another slip is a new problem. Empty
    /// where it may depend on the node.
    value: String,
}

impl Topic {
    #[must_use]
    pub fn of(problem: &Problem) -> Self {
        let reason = Reason::of(problem);
        let of_endpoints = reason == Reason::RejectedEndpoints;
        let of_text = matches!(reason, Reason::InvalidAnnotation | Reason::InvalidSettings);
        Self {
            object: problem.object.clone(),
            reason,
            field: if of_endpoints { "endpoints".to_owned() } else { problem.field.clone() },
            value: if of_text { problem.message.clone() } else { String::new() },
        }
    }

    /// `OBJECT.HASH.PERIOD`, for the object with this `uid`, at a time since the epoch: the same on every node.
    ///
    /// The period is that of the topic's own: Events of many topics are not all renewed at the same moment. An object
    /// that is made anew under its old name has another `uid` and so other Events.
    #[must_use]
    pub fn event_name(&self, uid: &str, time: Duration) -> String {
        let hash = self.hash(uid);
        let prefix: String = self.object.name.chars().take(LONGEST_PREFIX).collect();
        let prefix = prefix.trim_end_matches(['.', '-']);
        let (period, _) = period(hash, time);
        format!("{prefix}.{hash:016x}.{period:x}")
    }

    /// How long it is from `time`, since the epoch, to the next period.
    #[must_use]
    pub fn until_renewal(&self, uid: &str, time: Duration) -> Duration {
        period(self.hash(uid), time).1
    }

    /// FNV-1a, as Kubernetes itself names by hash: alike on all nodes and in all versions.
    fn hash(&self, uid: &str) -> u64 {
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let reason = self.reason.to_string();
        let fields = [uid, &reason, &self.field, &self.value];
        let bytes = fields.iter().flat_map(|field| field.bytes().chain([0]));
        bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    }
}

/// The number of the period, and what is left of it.
fn period(hash: u64, time: Duration) -> (u64, Duration) {
    let length = PERIOD.as_secs();
    let shifted = time + Duration::from_secs(hash % length);
    let number = shifted.as_secs() / length;
    (number, Duration::from_secs((number + 1) * length) - shifted)
}

/// What the Event says: each problem with its way out, as many as fit, and how many more there are.
pub(super) fn note<'a>(problems: impl ExactSizeIterator<Item = &'a Problem>) -> String {
    const MORE: usize = " (and 4294967296 more)".len();
    let count = problems.len();
    let mut note = String::new();
    for (told, Problem { field, message, remedy, .. }) in problems.enumerate() {
        let text = format!("{field}: {message}; {remedy}");
        let separator = if note.is_empty() { "" } else { " | " };
        if note.len() + separator.len() + text.len() + MORE > LONGEST_NOTE {
            if note.is_empty() {
                note = shortened(&text, LONGEST_NOTE - MORE);
                if count > 1 {
                    note.push_str(&format!(" (and {} more)", count - 1));
                }
            } else {
                note.push_str(&format!(" (and {} more)", count - told));
            }
            return note;
        }
        note.push_str(separator);
        note.push_str(&text);
    }
    note
}

/// At most so many bytes.
fn shortened(text: &str, longest: usize) -> String {
    let end = text.floor_char_boundary(longest - '…'.len_utf8());
    format!("{}…", &text[..end])
}

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
