//! How lines of `check` and `status` are printed.

use super::align::align;
use crate::observe::line::{Level, Line};

/// The level, the part and what was found; beneath a line that is not ok, the way out.
pub(super) fn table(lines: &[Line]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .flat_map(|line| {
            let row = vec![level(line.level).to_owned(), line.part.clone(), line.says.clone()];
            let way_out =
                line.way_out.iter().map(|way_out| vec![String::new(), String::new(), format!("→ {way_out}")]);
            [row].into_iter().chain(way_out).collect::<Vec<_>>()
        })
        .collect();
    align(&rows)
}

/// What to make of it, in one line.
pub(super) fn summary(lines: &[Line]) -> String {
    let count = |level| lines.iter().filter(|line| line.level == level).count();
    format!(
        "{} ok, {} with a warning, {} failed\n",
        count(Level::Ok),
        count(Level::Warning),
        count(Level::Failed)
    )
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "WARNING",
        Level::Failed => "FAILED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_beneath_what_was_found() {
        let lines = [Line::ok("kernel", "Linux 6.18"), Line::failed("bpffs", "not mounted", "mount it")];
        let said = table(&lines) + &summary(&lines);
        assert_eq!(
            said,
            "ok      kernel  Linux 6.18\n\
             FAILED  bpffs   not mounted\n                \
             → mount it\n\
             1 ok, 0 with a warning, 1 failed\n"
        );
    }
}
