//! The root of the control groups, where the programs that sockets call are attached.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
};

use crate::datapath::Datapath;

/// The directory in the run directory that the hierarchy is mounted on for a moment where the system has not mounted it.
const OWN: &str = "cgroup";

/// Number of the first control group namespace's file: what is the root there is the root.
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/nsfs.h>
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// Has the host's own sockets reach published ports. Without that they are reached from elsewhere all the same.
pub(super) fn attach(datapath: &Datapath, run_dir: &Path) {
    let attached = root(run_dir).and_then(|root| Ok(datapath.attach_sockets(root)?));
    if let Err(error) = attached {
        log::warn!(
            "published ports are neither reached from the host itself nor kept from its processes: {error:#}"
        );
        return;
    }
    let namespace = fs::read_link("/proc/self/ns/cgroup").unwrap_or_default();
    if namespace != Path::new(INITIAL_NAMESPACE) {
        log::warn!(
            "netd is in a control group namespace: of the host's processes those below its own control group reach published ports"
        );
    }
}

fn root(run_dir: &Path) -> anyhow::Result<File> {
    // A mount may lie hidden below another.
    let is_there = |path: &PathBuf| statfs(path).is_ok_and(|it| it.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if let Some(path) = roots(&fs::read_to_string("/proc/self/mountinfo")?).find(is_there) {
        return File::open(&path).with_context(|| format!("opening {}", path.display()));
    }
    // What is attached holds on to the hierarchy, mounted or not.
    let own = run_dir.join(OWN);
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    mount(Some("cgroup2"), &own, Some("cgroup2"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting the control groups on {}", own.display()))?;
    let root = File::open(&own).with_context(|| format!("opening {}", own.display()));
    umount2(&own, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", own.display()))?;
    fs::remove_dir(&own).with_context(|| format!("removing {}", own.display()))?;
    root
}

/// Where the unified hierarchy's root is mounted. See proc_pid_mountinfo(5).
fn roots(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, path) = (fields.next()?, fields.next()?);
        let is_root = root == "/" && file_system.starts_with("cgroup2 ");
        is_root.then(|| PathBuf::from(path.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found() {
        let hybrid = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      25 24 0:23 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      26 24 0:24 /below /elsewhere rw - cgroup2 cgroup2 rw\n\
                      27 24 0:24 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = |mounts| roots(mounts).collect::<Vec<_>>();
        assert_eq!(found(hybrid), [Path::new("/sys/fs/cgroup/unified")]);
        assert_eq!(found("27 24 0:24 / /a\\040b rw - cgroup2 none rw"), [Path::new("/a b")]);
        assert!(found("24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw").is_empty());
    }
}
