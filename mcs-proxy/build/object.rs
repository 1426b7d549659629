//! How the eBPF object is built. Shared by the build script, which embeds the object, and by xtask.
//!
//! A second cargo builds `mcs-proxy-ebpf` for the BPF target, with a compiler that has `core` for that target:
//! Debian's `rustc-web` with `libstd-rust-web-dev-bpf` (stable, and a `core` ready to link), else a rustup nightly
//! with `rust-src` (which builds `core` too). Both are linked by `bpf-linker`.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
pub(crate) const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";

/// Environment variable that forces one of the two compilers: `debian` or `nightly`.
pub(crate) const ROUTE: &str = "MCS_PROXY_BPF_TOOLCHAIN";

/// Why there is no object; each is one line.
#[derive(Debug)]
pub(crate) enum Error {
    ToolsMissing,
    /// The compiler has said why on stderr.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ToolsMissing => {
                "the tools that build the eBPF programs are missing: run `cargo xtask setup`, which installs them or says how"
            }
            Self::Failed(message) => message,
        })
    }
}

/// A compiler for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    Debian,
    /// The folder of the toolchain.
    Nightly(PathBuf),
}

impl Compiler {
    /// The first one that is complete on this machine.
    pub(crate) fn find() -> Option<Self> {
        let forced = env::var(ROUTE).ok();
        let allows = |route: &str| forced.as_deref().is_none_or(|forced| forced == route);
        let debian = Path::new(DEBIAN_RUSTC).exists() && Path::new(DEBIAN_CORE).is_dir();
        if allows("debian") && debian {
            return Some(Self::Debian);
        }
        if allows("nightly") { nightly_with_sources().map(Self::Nightly) } else { None }
    }

    fn rustc(&self) -> PathBuf {
        match self {
            Self::Debian => PathBuf::from(DEBIAN_RUSTC),
            Self::Nightly(toolchain) => toolchain.join("bin/rustc"),
        }
    }
}

fn nightly_with_sources() -> Option<PathBuf> {
    let output =
        Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output().ok()?;
    let toolchain = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    toolchain.join("lib/rustlib/src/rust/library/core").is_dir().then_some(toolchain)
}

/// Where `cargo xtask setup` puts the linker.
pub(crate) fn linker(workspace: &Path) -> PathBuf {
    workspace.join("target/tools/bin/bpf-linker")
}

/// Builds the object for kernels of an architecture (as Rust calls it), with flags for the compiler beyond the usual ones,
/// and returns its path.
pub(crate) fn build(
    workspace: &Path,
    cargo: &Path,
    architecture: &str,
    extra_flags: &[&str],
) -> Result<PathBuf, Error> {
    let linker = linker(workspace);
    let compiler = Compiler::find().filter(|_| linker.exists()).ok_or(Error::ToolsMissing)?;
    let mut flags = flags(workspace, &linker, architecture);
    flags.extend(extra_flags.iter().map(|&flag| flag.to_owned()));
    let mut target_dir = workspace.join("target/bpf");
    if architecture != env::consts::ARCH {
        target_dir.push(architecture);
    }

    let mut command = Command::new(cargo);
    command
        .current_dir(workspace)
        .args(["build", "--release", "--locked", "--package", "mcs-proxy-ebpf", "--bin", "mcs-proxy-ebpf"])
        .args(["--features", "programs", "--target", TARGET, "--target-dir"])
        .arg(&target_dir);
    if compiler != Compiler::Debian {
        command.args(["-Z", "build-std=core"]);
    }
    forget_outer_cargo(&mut command);
    command
        .env("RUSTC", compiler.rustc())
        // The target and the attributes that eBPF programs need are unstable; this compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // The linker does its own link-time optimization on bitcode, and needs the debug information for BTF.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_INCREMENTAL", "0");

    let status = command.status().map_err(|error| Error::Failed(format!("{}: {error}", cargo.display())))?;
    if !status.success() {
        return Err(Error::Failed(
            "the eBPF programs did not build; `cargo xtask ebpf` shows this alone".into(),
        ));
    }
    Ok(target_dir.join(TARGET).join("release/mcs-proxy-ebpf"))
}

fn flags(workspace: &Path, linker: &Path, architecture: &str) -> Vec<String> {
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        // Atomic operations that return a value need v3 of the instruction set (Linux 5.12).
        "-Ctarget-cpu=v3".into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // aya-ebpf's own build script would set it from the host's.
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        "-Ccodegen-units=1".into(),
        "-Cpanic=abort".into(),
        // BTF holds the names of source files: the same object wherever the workspace lies.
        format!("--remap-path-prefix={}=mcs-proxy", workspace.display()),
    ];
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags
}

/// Removes what an outer cargo, rustup or clippy set for the host's build and would lead the inner one astray.
fn forget_outer_cargo(command: &mut Command) {
    const KEPT: [&str; 3] = ["CARGO_HOME", "CARGO_TERM_COLOR", "RUSTUP_HOME"];
    const KEPT_PREFIXES: [&str; 5] =
        ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_CREDENTIAL"];
    const NAMES: [&str; 11] = [
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "TARGET",
        "TARGET_DIR",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let kept = KEPT.contains(&text) || KEPT_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        let cargos = text.starts_with("CARGO") || text.starts_with("RUST") || NAMES.contains(&text);
        if cargos && !kept {
            command.env_remove(OsStr::new(text));
        }
    }
}
