use mcs_proxy_ebpf::abi::Algorithm;

/// A name of an algorithm, in `mcs-proxy.io/algorithm` or `--default-algorithm`, that is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAlgorithm {
    #[error("`maglev` is not served by this version; use round-robin or random")]
    NotServedYet,
    #[error("`{0}` is no algorithm; use round-robin or random")]
    Name(String),
}

/// The algorithm of this name: `round-robin` or `random`.
///
/// # Errors
/// Any other name.
pub fn parse_algorithm(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
    match name {
        "round-robin" => Ok(Algorithm::RoundRobin),
        "random" => Ok(Algorithm::Random),
        "maglev" => Err(UnknownAlgorithm::NotServedYet),
        other => Err(UnknownAlgorithm::Name(other.escape_debug().take(80).collect())),
    }
}

/// As annotations and flags write it.
#[must_use]
pub const fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "round-robin",
        Algorithm::Random => "random",
        Algorithm::Maglev => "maglev",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_algorithms_go_both_ways() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::Random] {
            assert_eq!(parse_algorithm(algorithm_name(algorithm)), Ok(algorithm));
        }
        assert_eq!(parse_algorithm("maglev"), Err(UnknownAlgorithm::NotServedYet));
        for name in ["", "rr", "Random"] {
            assert!(parse_algorithm(name).unwrap_err().to_string().contains("round-robin or random"));
        }
    }
}
