//! The one image of all engines: a static busybox, for no registry can be reached.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::namespace;

const BUSYBOX: &str = "/bin/busybox";
/// The programs of busybox that the tests run in containers.
const APPLETS: [&str; 5] = ["sh", "sleep", "ip", "ping", "nslookup"];

/// Makes its root file system in a new directory, and returns the archive of it that engines import.
pub(super) fn build(directory: &Path) -> PathBuf {
    let bin = directory.join("bin");
    fs::create_dir_all(&bin).expect("a directory for the image");
    fs::copy(BUSYBOX, bin.join("busybox"))
        .unwrap_or_else(|e| panic!("{BUSYBOX} of busybox-static, which `cargo xtask setup` installs: {e}"));
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).expect("linking a program of busybox");
    }
    let archive = directory.with_extension("tar");
    let mut tar = Command::new("tar");
    namespace::run(
        tar.arg("--create").arg("--file").arg(&archive).arg("--directory").args([directory, Path::new(".")]),
    );
    archive
}
