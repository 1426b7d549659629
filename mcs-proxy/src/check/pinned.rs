//! What an earlier daemon has pinned, and whether this version can go on with it.

use crate::{
    EBPF_OBJECT,
    daemon::socket,
    dataplane::{loader, pins::PinDir},
    observe::line::Line,
};
use mcs_proxy_ebpf::abi::{ABI_VERSION, MapSizes};
use std::{fs, os::unix::net::UnixStream, path::Path};

const PART: &str = "pins";

pub(super) fn lines(pin_dir: &PinDir, run_dir: &Path, sizes: &MapSizes) -> Vec<Line> {
    let mut lines: Vec<Line> = layouts(pin_dir).into_iter().filter_map(layout).collect();
    lines.push(match loader::adopts(EBPF_OBJECT, pin_dir, sizes) {
        Ok(true) => Line::ok(PART, format!("{}: a daemon with these flags takes them over", pin_dir.path().display())),
        Ok(false) => Line::ok(PART, format!("nothing is pinned in {} yet", pin_dir.path().display())),
        // Nobody has asked about other sizes than its own.
        Err(_) if *sizes == MapSizes::DEFAULT && UnixStream::connect(run_dir.join(socket::FILE)).is_ok() => {
            Line::ok(PART, format!("{}: the daemon that runs here has them in use", pin_dir.path().display()))
        }
        Err(error) => Line::failed(
            PART,
            error.to_string(),
            "give `check` the --max-… flags that the daemon gets; or `mcs-proxy cleanup` removes what is pinned, and \
             connections through it end",
        ),
    });
    lines
}

/// Versions of the layout that are pinned.
fn layouts(pin_dir: &PinDir) -> Vec<u32> {
    let entries = fs::read_dir(pin_dir.root()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix('v')?.parse().ok()).collect()
}

fn layout(found: u32) -> Option<Line> {
    if found > ABI_VERSION {
        return Some(Line::failed(
            PART,
            format!("a newer mcs-proxy has pinned layout {found}; this one's is {ABI_VERSION}"),
            "run the newer version, or drain and uninstall it first",
        ));
    }
    (found < ABI_VERSION).then(|| {
        Line::warning(
            PART,
            format!("layout {found} of an earlier mcs-proxy is pinned beside this one's, {ABI_VERSION}"),
            "it serves the connections that it has; once they are gone `mcs-proxy cleanup` removes it",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::line::Level;

    #[test]
    fn another_layout_is_told_with_what_to_run() {
        assert_eq!(layout(ABI_VERSION), None);
        assert_eq!(layout(ABI_VERSION + 1).unwrap().level, Level::Failed);
        assert_eq!(layout(ABI_VERSION - 1).unwrap().level, Level::Warning);
    }
}
