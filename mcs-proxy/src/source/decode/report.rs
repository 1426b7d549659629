use crate::model::{ObjectRef, Problem};

/// Collects what is wrong with one object.
#[derive(Debug)]
pub(super) struct Report {
    object: ObjectRef,
    problems: Vec<Problem>,
    left_out: usize,
}

/// A slice may have a thousand endpoints; nobody reads more than the first few complaints.
const MOST: usize = 8;

impl Report {
    pub(super) const fn new(object: ObjectRef) -> Self {
        Self { object, problems: Vec::new(), left_out: 0 }
    }

    pub(super) fn add(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.problems.len() == MOST {
            self.left_out += 1;
            return;
        }
        self.problems.push(Problem {
            object: self.object.clone(),
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn finish(mut self) -> Vec<Problem> {
        if self.left_out > 0 {
            self.problems.push(Problem {
                object: self.object,
                field: "(others)".into(),
                message: format!("{} more values make no sense", self.left_out),
                remedy: "mend those named first".into(),
            });
        }
        self.problems
    }
}

/// `text` as a message shows it: no longer than a line, without control characters.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
