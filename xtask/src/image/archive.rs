//! An image as one tar file that is both an OCI layout and what `docker save` writes.
//!
//! OCI image format 1.1 (image-layout.md, manifest.md, config.md); Docker's image specification 1.2 for `manifest.json`.

use super::Architecture;
use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};
use tar::{Builder, EntryType, Header};

/// What goes in.
#[derive(Debug)]
pub(super) struct Content<'a> {
    /// `REPOSITORY:TAG`
    pub(super) name: &'a str,
    pub(super) program: &'a Path,
    /// Where the program is inside.
    pub(super) path: &'a str,
    pub(super) arch: Architecture,
    /// Seconds since 1970.
    pub(super) created: u64,
}

/// Writes the archive and returns the digest of the image's manifest.
pub(super) fn write(archive: &Path, content: &Content<'_>) -> Result<String> {
    let program = fs::read(content.program).with_context(|| content.program.display().to_string())?;
    let layer = layer(&program, content)?;
    let layer_digest = sha256(&layer);
    let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    compressed.write_all(&layer)?;
    let compressed = compressed.finish()?;

    let config = json!({
        "architecture": content.arch.oci(),
        "config": {
            "Entrypoint": [content.path],
            "Env": [format!("PATH={}", parent(content.path))],
            "Labels": {
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                "org.opencontainers.image.title": title(content.path),
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            },
        },
        "created": rfc3339(content.created),
        "history": [{"created": rfc3339(content.created), "created_by": "cargo xtask image"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &compressed)],
    })
    .to_string();
    let index = index(content, manifest.as_bytes());
    let docker = json!([{
        "Config": blob(config.as_bytes()),
        "RepoTags": [content.name],
        "Layers": [blob(&compressed)],
    }]);

    let mut tar = Builder::new(File::create(archive).with_context(|| archive.display().to_string())?);
    let mut add = |path: &str, bytes: &[u8]| append(&mut tar, path, bytes, 0o644, 0);
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", index.to_string().as_bytes())?;
    add("manifest.json", docker.to_string().as_bytes())?;
    for bytes in [manifest.as_bytes(), config.as_bytes(), &compressed] {
        add(&blob(bytes), bytes)?;
    }
    tar.into_inner()?.sync_all()?;
    Ok(sha256(manifest.as_bytes()))
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn index(content: &Content<'_>, manifest: &[u8]) -> Value {
    let mut entry = descriptor(MANIFEST, manifest);
    entry["platform"] = json!({"architecture": content.arch.oci(), "os": "linux"});
    // containerd goes by the first name, podman and skopeo by the second.
    let tag = content.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] =
        json!({"io.containerd.image.name": content.name, "org.opencontainers.image.ref.name": tag});
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]})
}

/// The file system: the program and the folders that it is in.
fn layer(program: &[u8], content: &Content<'_>) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let path = content.path.trim_start_matches('/');
    for (end, _) in path.match_indices('/') {
        let mut header = header(0, 0o755, content.created);
        header.set_entry_type(EntryType::Directory);
        tar.append_data(&mut header, format!("{}/", &path[..end]), &[][..])?;
    }
    append(&mut tar, path, program, 0o755, content.created)?;
    Ok(tar.into_inner()?)
}

fn append<W: Write>(tar: &mut Builder<W>, path: &str, bytes: &[u8], mode: u32, time: u64) -> Result<()> {
    let mut header = header(u64::try_from(bytes.len())?, mode, time);
    tar.append_data(&mut header, path, bytes).with_context(|| path.to_owned())
}

fn header(size: u64, mode: u32, time: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/{}", sha256(bytes).replace(':', "/"))
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(folder, _)| folder)
}

fn title(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

pub(super) fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, io::Read};

    fn sample(folder: &Path) -> (std::path::PathBuf, String) {
        let program = folder.join("program");
        fs::write(&program, vec![7; 100_000]).unwrap();
        let archive = folder.join("image.tar");
        let content = Content {
            name: "registry.example/team/mcs-proxy:1",
            program: &program,
            path: "/usr/bin/mcs-proxy",
            arch: Architecture::Arm64,
            created: 1_700_000_000,
        };
        let digest = write(&archive, &content).unwrap();
        (archive, digest)
    }

    fn files(archive: impl Read) -> BTreeMap<String, (Header, Vec<u8>)> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let path = entry.path().unwrap().display().to_string();
            files.insert(path, (entry.header().clone(), bytes));
        }
        files
    }

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("mcs-proxy-image-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn the_same_program_makes_the_same_image_to_the_byte() {
        let (one, other) = (Folder::new("one"), Folder::new("other"));
        let (first, digest) = sample(&one.0);
        let (second, again) = sample(&other.0);
        assert_eq!(digest, again);
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
    }

    #[test]
    fn every_digest_names_what_is_there_and_both_ways_in_lead_to_the_program() {
        let folder = Folder::new("whole");
        let (archive, digest) = sample(&folder.0);
        let files = files(File::open(archive).unwrap());
        let json = |path: &str| serde_json::from_slice::<Value>(&files[path].1).unwrap();
        for (path, (_, bytes)) in files.iter().filter(|(path, _)| path.starts_with("blobs/")) {
            assert_eq!(*path, blob(bytes));
        }
        let entry = json("index.json")["manifests"][0].clone();
        assert_eq!(entry["digest"], digest);
        assert_eq!(entry["platform"], json!({"architecture": "arm64", "os": "linux"}));
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "registry.example/team/mcs-proxy:1");
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");

        let manifest = json(&format!("blobs/{}", digest.replace(':', "/")));
        let docker = json("manifest.json")[0].clone();
        assert_eq!(docker["RepoTags"], json!(["registry.example/team/mcs-proxy:1"]));
        let layer = docker["Layers"][0].as_str().unwrap();
        assert_eq!(manifest["layers"][0]["digest"], sha256(&files[layer].1));
        let config = json(docker["Config"].as_str().unwrap());
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/mcs-proxy"]));
        assert_eq!(config["config"]["Env"], json!(["PATH=/usr/bin"]));
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");

        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(files[layer].1.as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], sha256(&plain));
        let inside = self::files(plain.as_slice());
        assert_eq!(inside.keys().collect::<Vec<_>>(), ["usr/", "usr/bin/", "usr/bin/mcs-proxy"]);
        let (header, bytes) = &inside["usr/bin/mcs-proxy"];
        assert_eq!((header.mode().unwrap(), header.uid().unwrap(), bytes.len()), (0o755, 0, 100_000));
    }
}
