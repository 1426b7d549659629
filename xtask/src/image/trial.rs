//! A program is looked at and run before it goes into an image: on this machine or, if it is for another processor, by
//! QEMU's emulation of single processes.

use super::{Architecture, VERSION};
use crate::{run::command, setup};
use anyhow::{Context, Result, ensure};
use object::{
    Endianness, elf,
    read::elf::{FileHeader, ProgramHeader},
};
use std::{fs, path::Path};

/// Command lines that take no node and no rights, and what they print among other things.
const LINES: [(&str, &str); 4] = [
    ("--version", VERSION),
    ("--help", "Usage: mcs-proxy"),
    ("completion bash", "complete -F"),
    ("explain -f deploy/examples/demo-member2 --cluster-name member2", "used: takes new flows"),
];

/// # Errors
/// The program is for another processor, is not static, or does not print what it should.
pub(super) fn run(workspace: &Path, arch: Architecture, program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    look(&bytes, arch).with_context(|| program.display().to_string())?;
    let emulator = if arch == Architecture::OURS { None } else { Some(setup::emulator(workspace)?) };
    call(workspace, emulator.as_deref(), program)
}

/// An image of it alone has no other file that it could need.
fn look(program: &[u8], arch: Architecture) -> Result<()> {
    let header = elf::FileHeader64::<Endianness>::parse(program).context("no 64-bit ELF file")?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    ensure!(machine == arch.elf(), "not for {}: its machine is {machine}, not {}", arch.oci(), arch.elf());
    for part in header.program_headers(endian, program)? {
        if let Some(loader) = part.interpreter(endian, program)? {
            anyhow::bail!("not static: it wants {}", String::from_utf8_lossy(loader));
        }
    }
    Ok(())
}

fn call(workspace: &Path, emulator: Option<&Path>, program: &Path) -> Result<()> {
    for (line, printed) in LINES {
        let mut call = emulator.map_or_else(
            || command(program),
            |emulator| {
                let mut call = command(emulator);
                call.arg(program);
                call
            },
        );
        let output = call
            .current_dir(workspace)
            .args(line.split(' '))
            .output()
            .with_context(|| format!("{call:?}"))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success() && out.contains(printed),
            "{} {line}: {}, and prints no {printed:?} but\n{out}{err}",
            program.display(),
            output.status
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Architecture = match Architecture::OURS {
        Architecture::Amd64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::Amd64,
    };

    /// A dynamic one.
    fn own() -> Vec<u8> {
        fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn a_program_that_wants_a_loader_or_another_processor_goes_into_no_image() {
        let dynamic = look(&own(), Architecture::OURS).unwrap_err().to_string();
        assert!(dynamic.starts_with("not static: it wants /"), "{dynamic}");
        let foreign = look(&own(), OTHER).unwrap_err().to_string();
        assert!(foreign.starts_with(&format!("not for {}: ", OTHER.oci())), "{foreign}");
        let script = look(b"#!/bin/sh\nexit 0\n", Architecture::OURS).unwrap_err().to_string();
        assert_eq!(script, "no 64-bit ELF file");

        let mut program = own();
        let number = |at: usize, bytes: usize| {
            (0..bytes).rev().fold(0, |number, byte| number << 8 | usize::from(program[at + byte]))
        };
        // elf(5): e_phoff, e_phentsize and e_phnum.
        let (headers, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
        let loader = (0..count)
            .map(|header| headers + header * size)
            .find(|&at| number(at, 4) == usize::try_from(elf::PT_INTERP).unwrap())
            .unwrap();
        program[loader..loader + 4].fill(0);
        look(&program, Architecture::OURS).unwrap();
    }

    #[test]
    fn a_program_that_does_not_print_what_it_should_is_named_with_its_command_line() {
        let workspace = crate::workspace();
        let silent = call(&workspace, None, Path::new("/bin/true")).unwrap_err().to_string();
        assert!(silent.starts_with("/bin/true --version: exit status: 0, and prints no \""), "{silent}");
        // As an emulator would be called.
        let echo = Path::new("/bin/echo");
        let echoed = call(&workspace, Some(echo), Path::new(VERSION)).unwrap_err().to_string();
        assert!(echoed.ends_with(&format!("but\n{VERSION} --help\n")), "{echoed}");
    }
}
