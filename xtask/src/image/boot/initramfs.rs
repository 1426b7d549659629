//! The files that a kernel finds in memory when it starts: cpio's format `newc` (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use anyhow::Result;

#[derive(Debug, Default)]
pub(super) struct Initramfs {
    archive: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, 0o040_755, &[])
    }

    /// In a folder that was made before.
    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entry(path, 0o100_000 | mode, bytes)
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.archive)
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entries += 1;
        let (size, name) = (u32::try_from(bytes.len())?, u32::try_from(path.len() + 1)?);
        self.archive.extend(b"070701");
        // Number, mode, owner, group, links, time, size, four of devices, the name's length, no checksum.
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0] {
            self.archive.extend(format!("{field:08x}").bytes());
        }
        self.archive.extend(path.bytes());
        self.archive.push(0);
        self.align();
        self.archive.extend(bytes);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four_with_the_fields_that_the_kernel_reads() {
        let mut files = Initramfs::default();
        files.folder("bin").unwrap();
        files.file("bin/sh", 0o755, b"12345").unwrap();
        let archive = String::from_utf8(files.finish().unwrap()).unwrap();
        let entry = |number: u32, mode: &str, size: u32, name: u32| {
            format!(
                "070701{number:08x}{mode}{zero}{zero}00000001{zero}{size:08x}{zero}{zero}{zero}{zero}{name:08x}{zero}",
                zero = "00000000"
            )
        };
        let expected = [
            entry(1, "000041ed", 0, 4) + "bin\0\0\0",
            entry(2, "000081ed", 5, 7) + "bin/sh\0\0\0\0" + "12345\0\0\0",
            entry(3, "00000000", 0, 11) + "TRAILER!!!\0\0\0\0",
        ];
        assert_eq!(archive, expected.concat());
        assert_eq!(archive.len() % 4, 0);
    }
}
