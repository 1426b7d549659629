/// Whether an importer may call a cluster so: as [`check_cluster_name`], and not by a word that means something else in
/// `mcs-proxy.io/clusters`, where such a cluster could not be named.
///
/// # Errors
/// In words, what it may be.
pub fn check_imported_name(text: &str) -> Result<(), &'static str> {
    if matches!(text, "local" | "others") {
        return Err(
            "in mcs-proxy.io/clusters `local` is this cluster, and `others` are all that are not named",
        );
    }
    check_cluster_name(text)
}

/// Whether a cluster may be called so: what a label may hold, in the form of RFC 1123, at most 63 characters.
///
/// # Errors
/// In words, what it may be.
pub fn check_cluster_name(text: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(edge)
        && text.ends_with(edge);
    if fits {
        Ok(())
    } else {
        Err(
            "a cluster's name has at most 63 lower-case letters, digits, `-` and `.`, and begins and ends with a \
             letter or digit",
        )
    }
}
