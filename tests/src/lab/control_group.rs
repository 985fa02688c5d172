//! Control groups, by which everything that a container engine has started is found, and ended.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, write};

use super::{PATIENCE, comes_true};

/// The control groups of this machine.
const ROOT: &str = "/sys/fs/cgroup";

/// Control groups of one name. Whatever is in them, or in others within, is killed when this goes, and they with it.
pub(super) struct ControlGroups {
    name: String,
}

impl ControlGroups {
    /// Those of an engine whose data is in a directory of a name of its own: a group of version 2 for the engine itself,
    /// and whatever groups the engine makes.
    pub(super) fn of(directory: &Path) -> Self {
        let name = directory.file_name().expect("a directory has a name");
        let groups = Self { name: name.to_string_lossy().into_owned() };
        fs::create_dir(groups.own()).expect("making a control group");
        groups
    }

    /// Moves the process that calls it into the group of version 2. It is safe between fork and exec.
    pub(super) fn entrance(&self) -> impl Fn() -> io::Result<()> + Send + Sync + 'static {
        let procs = File::options().write(true).open(self.own().join("cgroup.procs"));
        let procs = procs.expect("opening a control group");
        move || Ok(write(procs.as_fd(), b"0").map(drop)?)
    }

    /// Where the engine makes groups, below the root of whatever hierarchy.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    fn own(&self) -> PathBuf {
        let roots = ["", "unified"].map(|root| Path::new(ROOT).join(root));
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists());
        root.expect("cgroup2 is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified")
            .join(format!("{}-engine", self.name))
    }

    /// All that there are, those within another one first.
    fn all(&self) -> Vec<PathBuf> {
        let hierarchies = directories(Path::new(ROOT)).into_iter();
        let hierarchies = hierarchies.filter(|path| path.join("cgroup.procs").exists());
        let mut groups: Vec<_> = hierarchies.map(|path| path.join(&self.name)).collect();
        groups.extend([Path::new(ROOT).join(&self.name), self.own()]);
        groups.retain(|path| path.exists());
        let mut at = 0;
        while let Some(group) = groups.get(at).cloned() {
            groups.extend(directories(&group));
            at += 1;
        }
        groups.reverse();
        groups
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        let gone = comes_true(PATIENCE, || {
            for group in self.all() {
                let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
                    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                let _ = fs::remove_dir(&group);
            }
            self.all().is_empty()
        });
        if !gone {
            eprintln!("control groups stay: {:?}", self.all());
        }
    }
}
