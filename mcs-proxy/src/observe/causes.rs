use std::error::Error;

/// The error with those that caused it, but for what is said already: many name their cause themselves.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("/x: {source}; create it")]
        Named { source: io::Error },
        #[error("loading")]
        Bare { source: io::Error },
    }

    #[test]
    fn every_cause_is_told_and_none_twice() {
        let source = || io::Error::from_raw_os_error(2);
        let named = with_causes(&Failure::Named { source: source() });
        assert_eq!(named, "/x: No such file or directory (os error 2); create it");
        let bare = with_causes(&Failure::Bare { source: source() });
        assert_eq!(bare, "loading: No such file or directory (os error 2)");
    }
}
