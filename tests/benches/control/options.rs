//! What is to be measured.

pub(crate) struct Options {
    /// Numbers of Services, of ten endpoints each.
    pub(crate) services: Vec<u32>,
    /// Slices changed, one after another.
    pub(crate) changes: u32,
    /// Without kube-proxy.
    pub(crate) alone: bool,
    pub(crate) json: bool,
}

impl Options {
    /// From the command line; what is not said is as for the tables that are kept. cargo adds `--bench`.
    pub(crate) fn read() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let after = |flag: &str| {
            let place = arguments.iter().position(|argument| argument == flag)?;
            arguments.get(place + 1)
        };
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let sizes =
            after("--services").map(|text| text.split(',').filter_map(|one| one.parse().ok()).collect());
        Self {
            services: sizes.unwrap_or_else(|| vec![100, 1_000, 10_000]),
            changes: after("--changes").and_then(|text| text.parse().ok()).unwrap_or(300),
            alone: has("--alone"),
            json: has("--json"),
        }
    }
}
