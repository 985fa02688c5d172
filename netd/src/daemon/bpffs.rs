//! Where programs and maps are pinned.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use netd_common::ABI_VERSION;
use nix::{
    mount::{self, MsFlags},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where the system has its bpffs.
const SYSTEM: &str = "/sys/fs/bpf";

/// The directory in the run directory that the daemon mounts a bpffs on where the system has none.
pub(super) const OWN: &str = "bpf";

/// The bpffs that a daemon with this run directory is to use: [`mount`] makes it, if it is not there yet.
pub(super) fn place(run_dir: &Path) -> PathBuf {
    find(run_dir).unwrap_or_else(|| run_dir.join(OWN))
}

/// Mounts a bpffs at [`place`], unless there is one.
pub(super) fn mount(place: &Path) -> anyhow::Result<()> {
    if is_bpffs(place) {
        return Ok(());
    }
    fs::create_dir_all(place).with_context(|| format!("making {}", place.display()))?;
    mount::mount(Some("bpf"), place, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting a bpffs on {}", place.display()))?;
    log::info!("{SYSTEM} is no bpffs: mounted one on {}", place.display());
    if mount_namespace("self").ok() != mount_namespace("1").ok() {
        log::warn!(
            "{} is in a mount namespace of its own: what is pinned there goes when its last process ends",
            place.display()
        );
    }
    Ok(())
}

/// The bpffs that a daemon with this run directory uses, if it is there.
pub(super) fn find(run_dir: &Path) -> Option<PathBuf> {
    // Its own first: the system's may have been mounted since.
    [run_dir.join(OWN), PathBuf::from(SYSTEM)].into_iter().find(|path| is_bpffs(path))
}

/// The pins of the daemon with this state directory, one directory for each version of the map layouts.
pub(super) fn home(bpffs: &Path, state_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = fs::canonicalize(state_dir).with_context(|| format!("finding {}", state_dir.display()))?;
    Ok(bpffs.join(format!("netd-{:016x}", fnv1a(path.as_os_str().as_bytes()))))
}

/// The pins of this version.
pub(super) fn pins(bpffs: &Path, state_dir: &Path) -> anyhow::Result<PathBuf> {
    Ok(home(bpffs, state_dir)?.join(format!("v{ABI_VERSION}")))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_namespace(process: &str) -> std::io::Result<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/mnt"))
}

/// FNV-1a: the name must be the same in every netd to come.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv1a() {
        // From the reference test suite of the algorithm's authors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn each_state_directory_has_pins_of_its_own() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pins = |dir: &Path| pins(Path::new("/bpf"), dir).unwrap();
        assert_ne!(pins(a.path()), pins(b.path()));
        assert_eq!(pins(a.path()), pins(&a.path().join(".")));
        assert!(pins(a.path()).ends_with(format!("v{ABI_VERSION}")));
    }
}
