//! Keeps services from being started by the installation of their packages: what is installed here is for tests, which start
//! it themselves.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Asked by Debian's packages before they start or stop a service; 101 is "no".
const POLICY: &str = "/usr/sbin/policy-rc.d";
const ANSWER: &str =
    "#!/bin/sh\n# Made by netd's `cargo xtask`, for as long as it installs packages.\nexit 101\n";

/// Whether a signal came that would have ended this program.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// While this is there, no service is started.
pub(crate) struct Quiet {
    /// What to remove; nothing where the machine has a policy of its own, which stands.
    policy: Option<PathBuf>,
    handlers: Vec<(Signal, SigAction)>,
}

impl Quiet {
    pub(crate) fn new() -> Result<Self> {
        Self::at(Path::new(POLICY))
    }

    fn at(path: &Path) -> Result<Self> {
        let mut quiet = Self { policy: None, handlers: Vec::new() };
        match fs::read_to_string(path) {
            // What a run left behind that was killed is no policy of the machine's.
            Ok(text) if text == ANSWER => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Ok(quiet),
        }
        quiet.outlive_signals()?;
        quiet.policy = Some(path.to_owned());
        let written =
            fs::write(path, ANSWER).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)));
        written.with_context(|| format!("writing {}", path.display()))?;
        Ok(quiet)
    }

    /// All is installed. An error if a signal came meanwhile, which would have ended this program.
    pub(crate) fn end(self) -> Result<()> {
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// This program must be there to clean up after what a signal ends.
    fn outlive_signals(&mut self) -> Result<()> {
        extern "C" fn note(_: i32) {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the handler stores to an atomic, which is safe at any time. Programs that are run do not inherit it.
            let before = unsafe { sigaction(signal, &action) }.context("sigaction")?;
            self.handlers.push((signal, before));
        }
        Ok(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(path) = &self.policy
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("{} stays and keeps services from being started: {error}", path.display());
        }
        for (signal, before) in &self.handlers {
            // SAFETY: it is what was there before.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_answer_is_no_for_as_long_as_it_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy-rc.d");
        for left_behind in [false, true] {
            if left_behind {
                fs::write(&path, ANSWER).unwrap();
            }
            let quiet = Quiet::at(&path).unwrap();
            let status = Command::new(&path).args(["docker", "start"]).status().unwrap();
            assert_eq!(status.code(), Some(101));
            drop(quiet);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_policy_that_is_there_stands() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy-rc.d");
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        drop(Quiet::at(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 0\n");
        assert!(Quiet::at(&directory.path().join("no/such")).is_err());
    }
}
