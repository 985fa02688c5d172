//! The kernel's grace periods.
//!
//! Where a program is attached to a link (`tcx_entry_sync`), and where a link that has one goes, the kernel waits until every
//! processor has let go of what was there before, and all that changes links waits behind it: 7 to 27 ms were measured for one
//! attachment (Linux 6.18, two processors). Elsewhere in the same requests (`synchronize_net`) it asks the processors to let go at
//! once: 0.1 ms. It does so everywhere while
//! `/sys/kernel/rcu_expedited` says so, unless `rcu_normal` forbids it, as real-time hosts do:
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/rcu/update.c>

use std::{
    fs,
    path::{Path, PathBuf},
};

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The switch that makes grace periods short. It is the whole machine's, so it is on only while links change.
#[derive(Clone, Debug)]
pub struct Grace {
    switch: PathBuf,
    /// A file that is there while the switch is on by netd: a daemon that is killed then leaves its successor to switch it off.
    mark: PathBuf,
}

impl Grace {
    /// Switches off what a daemon of the same `run_dir` left on.
    pub fn new(run_dir: &Path) -> Self {
        Self::at(SWITCH.into(), run_dir.join("expedited"))
    }

    fn at(switch: PathBuf, mark: PathBuf) -> Self {
        let grace = Self { switch, mark };
        if grace.mark.exists() {
            grace.switch_off();
        }
        grace
    }

    /// Makes grace periods short until what is returned is dropped. `None` where they are already, or cannot be: a link's change
    /// takes its time then.
    pub fn expedite(&self) -> Option<Expedited<'_>> {
        let is_off = fs::read(&self.switch).is_ok_and(|value| value.trim_ascii() == b"0");
        if !is_off || fs::write(&self.mark, "").is_err() {
            return None;
        }
        // /sys may be read-only: nothing is on then.
        if fs::write(&self.switch, "1").is_err() {
            self.unmark();
            return None;
        }
        Some(Expedited(self))
    }

    fn switch_off(&self) {
        match fs::write(&self.switch, "0") {
            Ok(()) => self.unmark(),
            Err(error) => log::warn!("{} stays 1: {error}", self.switch.display()),
        }
    }

    fn unmark(&self) {
        if let Err(error) = fs::remove_file(&self.mark) {
            log::warn!("{} stays: {error}", self.mark.display());
        }
    }
}

/// While it is there, grace periods are short.
#[derive(Debug)]
pub struct Expedited<'a>(&'a Grace);

impl Drop for Expedited<'_> {
    fn drop(&mut self) {
        self.0.switch_off();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grace(value: &str) -> (tempfile::TempDir, Grace) {
        let dir = tempfile::tempdir().unwrap();
        let switch = dir.path().join("switch");
        fs::write(&switch, value).unwrap();
        let grace = Grace::at(switch, dir.path().join("mark"));
        (dir, grace)
    }

    fn switch(grace: &Grace) -> String {
        fs::read_to_string(&grace.switch).unwrap()
    }

    #[test]
    fn they_are_short_for_a_while() {
        let (_dir, grace) = grace("0\n");
        let expedited = grace.expedite();
        assert_eq!(switch(&grace), "1");
        assert!(grace.expedite().is_none());
        drop(expedited);
        assert_eq!(switch(&grace), "0");
        assert!(!grace.mark.exists());
    }

    #[test]
    fn who_wants_them_short_keeps_them_so() {
        let (_dir, grace) = grace("1\n");
        assert!(grace.expedite().is_none());
        assert_eq!(switch(&grace), "1\n");
    }

    #[test]
    fn a_daemon_that_was_killed_leaves_them_to_the_next() {
        let (_dir, grace) = grace("0\n");
        std::mem::forget(grace.expedite());
        assert_eq!(switch(&grace), "1");
        let next = Grace::at(grace.switch, grace.mark);
        assert_eq!(switch(&next), "0");
        assert!(!next.mark.exists());
    }

    #[test]
    fn a_kernel_without_the_switch_goes_on() {
        let (dir, grace) = grace("0");
        let without = Grace { switch: dir.path().join("none"), ..grace };
        assert!(without.expedite().is_none());
        assert!(!without.mark.exists());
    }
}
