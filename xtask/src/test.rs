//! `cargo xtask test`: everything built, every test run, one line of counts at the end.

use crate::{
    cluster::build_images,
    run::{build, cargo, command, say},
    setup::{self, Assets},
};
use anyhow::{Context, Result, bail, ensure};
use mcs_proxy_tests::cluster::PARTS;
use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(crate) fn run(workspace: &Path, names: &[String], long: bool) -> Result<()> {
    // The Go compiler and ours have little to do with one another.
    let kube = thread::spawn({
        let workspace = workspace.to_owned();
        move || {
            setup::kube(&workspace, setup::Beside::AnotherBuild)?;
            setup::goclient(&workspace, setup::Beside::AnotherBuild)
        }
    });
    let built = build(workspace, &["mcs-proxy", "hello-pod"]).and_then(|()| {
        let mut tests = tests(workspace, &["--no-run"])?;
        if tests.status()?.success() { Ok(()) } else { bail!("the tests did not build") }
    });
    // A second failure would hide the first.
    let kube = kube.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    built.and(kube)?;
    if takes_a_cluster(workspace, names)? {
        setup::cluster(workspace, setup::Beside::Nothing)?;
        build_images(workspace)?;
    }

    let start = Instant::now();
    let mut tests = tests(workspace, &["--no-fail-fast"])?;
    tests.arg("--").args(names).stdout(Stdio::piped());
    let figures = workspace.join("target/long.txt");
    if long {
        // Those of an earlier run are not of this one; most often there are none.
        drop(fs::remove_file(&figures));
        tests.env(mcs_proxy_tests::LONG, &figures);
    }
    let mut child = tests.spawn().context("cargo test")?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("cargo test's output")?).lines() {
        let line = line?;
        counts.add(&line);
        println!("{line}");
    }
    let succeeded = child.wait()?.success();
    if long {
        println!(
            "\n{}",
            fs::read_to_string(&figures)
                .unwrap_or_else(|_| "no figures: none of these tests has any\n".into())
        );
    }
    println!("\n{}", counts.line(succeeded, start.elapsed()));
    if succeeded && counts.passed == 0 {
        bail!("no test's name contains {}", names.join(" or "));
    }
    if !succeeded {
        bail!(
            "{} failed",
            if counts.failed == 1 { "a test".to_owned() } else { format!("{} tests", counts.failed) }
        );
    }
    Ok(())
}

/// Whether any test of that name runs on a whole cluster, whose parts take minutes to build the first time.
fn takes_a_cluster(workspace: &Path, names: &[String]) -> Result<bool> {
    let listed = command(cargo())
        .current_dir(workspace)
        .args(["test", "--quiet", "--locked", "--workspace", "--test", "cluster", "--", "--list"])
        .args(names)
        .output()?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    Ok(String::from_utf8(listed.stdout)?.lines().any(|line| line.ends_with(": test")))
}

/// `cargo test` over the workspace, with what the tests need to know.
fn tests(workspace: &Path, arguments: &[&str]) -> Result<Command> {
    let own = env::current_exe()?;
    let programs = own.parent().context("our own folder")?;
    let (Assets::Given(kube) | Assets::Ours(kube)) = setup::assets(workspace);
    let mut tests = command(cargo());
    tests
        .current_dir(workspace)
        .args(["test", "--workspace", "--locked"])
        .args(arguments)
        .env("MCS_PROXY_BIN", programs.join("mcs-proxy"))
        .env("HELLO_POD_BIN", programs.join("hello-pod"))
        .env("KUBEBUILDER_ASSETS", kube)
        .env(PARTS, setup::cluster_folder(workspace))
        .env("GOCLIENT_BIN", setup::goclient_path(workspace))
        // A failed test says what failed; where anyhow made the error is of no use.
        .env("RUST_LIB_BACKTRACE", "0");
    say(format!("cargo test {}", arguments.join(" ")));
    Ok(tests)
}

/// The counts of the runner's closing lines, summed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    measured: u64,
    filtered: u64,
}

impl Counts {
    /// Adds a line such as `test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0s`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                "measured" => self.measured += number,
                "filtered out" => self.filtered += number,
                _ => {}
            }
        }
    }

    fn line(&self, ok: bool, elapsed: Duration) -> String {
        let Self { passed, failed, ignored, measured, filtered } = self;
        let verdict = if ok { "ok" } else { "FAILED" };
        format!(
            "test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; {measured} measured; \
             {filtered} filtered out; finished in {:.2}s",
            elapsed.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed_and_others_passed_over() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s",
        );
        counts.add("test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        counts.add("test result: surprising");
        counts.add("test tests::one ... ok");
        assert_eq!(counts, Counts { passed: 3, failed: 3, ignored: 1, measured: 0, filtered: 4 });
        assert_eq!(
            counts.line(false, Duration::from_millis(1500)),
            "test result: FAILED. 3 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 1.50s"
        );
    }
}
