use std::{fmt, path::PathBuf, str::FromStr};

/// The value of `--source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// `kubernetes`: an API server.
    Kubernetes,
    /// `directory=PATH`: manifests as files.
    Directory(PathBuf),
}

/// `--source` has a value that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownSource {
    #[error("`{0}` is no source; use `kubernetes` or `directory=PATH`")]
    Name(String),
    #[error("`directory=` lacks the path of a directory of manifests: `directory=PATH`")]
    NoPath,
}

impl FromStr for SourceSpec {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            Some(("directory", "")) => Err(UnknownSource::NoPath),
            None if text == "directory" => Err(UnknownSource::NoPath),
            Some(("directory", path)) => Ok(Self::Directory(path.into())),
            None | Some(_) => Err(UnknownSource::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes => formatter.write_str("kubernetes"),
            Self::Directory(path) => write!(formatter, "directory={}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_as_its_flag_says_or_the_error_names_what_is_valid() {
        assert_eq!("kubernetes".parse(), Ok(SourceSpec::Kubernetes));
        assert_eq!("directory=/etc/a=b".parse(), Ok(SourceSpec::Directory("/etc/a=b".into())));
        assert_eq!("directory=/etc/a=b".parse::<SourceSpec>().unwrap().to_string(), "directory=/etc/a=b");
        for text in ["directory", "directory="] {
            let error = text.parse::<SourceSpec>().unwrap_err();
            assert!(error.to_string().contains("directory=PATH"), "{error}");
        }
        for text in ["", "etcd", "kubernetes=", "Kubernetes", "dir=/x"] {
            let error = text.parse::<SourceSpec>().unwrap_err();
            let said = error.to_string();
            assert!(said.contains("`kubernetes` or `directory=PATH`") && said.contains(text), "{said}");
        }
    }
}
