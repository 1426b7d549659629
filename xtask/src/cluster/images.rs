use crate::{
    image::{self, Architecture, HELLO_POD, PAUSE, Profile, static_program},
    setup,
};
use anyhow::{Context, Result};
use std::{fs, os::unix::fs::symlink, path::Path};

/// The images that every node has: mcs-proxy's as it is shipped, and those of pods to try it with.
pub(crate) fn build(workspace: &Path) -> Result<()> {
    let cluster = setup::cluster_folder(workspace);
    let folder = cluster.join("images");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let shipped = image::shipped(workspace)?;
    let link = folder.join("mcs-proxy.tar");
    if fs::read_link(&link).ok().as_ref() != Some(&shipped) {
        // One of before, or none.
        drop(fs::remove_file(&link));
        symlink(&shipped, &link).with_context(|| link.display().to_string())?;
    }
    for (name, program, path) in
        [("localhost/hello-pod:1", &HELLO_POD, "/bin/hello-pod"), ("localhost/pause:1", &PAUSE, "/bin/pause")]
    {
        let program = static_program(workspace, Architecture::OURS, Profile::Dev, program)?;
        let file = program.file_name().context("a program without a name")?;
        image::of_program(name, &program, path, &folder.join(file).with_extension("tar"))?;
    }
    let archive = folder.join("coredns.tar");
    image::of_program("localhost/coredns:1", &cluster.join("coredns"), "/bin/coredns", &archive)
}
