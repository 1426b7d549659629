use mcs_proxy_ebpf::abi::Algorithm;

/// A name in `mcs-proxy.io/algorithm` that is no algorithm's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no algorithm; use round-robin, random or maglev")]
pub struct UnknownAlgorithm(String);

/// The algorithm of this name: `round-robin`, `random` or `maglev`.
///
/// # Errors
/// Any other name.
pub fn parse_algorithm(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
    match name {
        "round-robin" => Ok(Algorithm::RoundRobin),
        "random" => Ok(Algorithm::Random),
        "maglev" => Ok(Algorithm::Maglev),
        other => Err(UnknownAlgorithm(other.escape_debug().take(80).collect())),
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
        for algorithm in [Algorithm::RoundRobin, Algorithm::Random, Algorithm::Maglev] {
            assert_eq!(parse_algorithm(algorithm_name(algorithm)), Ok(algorithm));
        }
        for name in ["", "rr", "Random"] {
            assert!(parse_algorithm(name).unwrap_err().to_string().contains("round-robin, random or maglev"));
        }
    }
}
