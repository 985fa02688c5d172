//! One daemon for each state directory.

use std::{
    fs::{File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// How long a daemon that has been killed may take to end, while the kernel takes apart what it had.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the state directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("the state directory {} is held by another daemon (pid {pid}); stop that one, or give this one its own with --state-dir", directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The other daemon's.
        pid: String,
    },
    /// It cannot be made or written to.
    #[error("the state directory {}: {reason}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        reason: io::Error,
    },
}

/// Holds the state directory until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Name of the file in the state directory.
    pub const FILE: &str = "lock";

    /// Takes the directory, which is made if it is missing.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let fail = |reason| LockError::Io { directory: directory.to_owned(), reason };
        std::fs::create_dir_all(directory).map_err(fail)?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(fail)?;
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(directory.join(Self::FILE)).map_err(fail)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut file) => {
                    file.set_len(0).map_err(fail)?;
                    writeln!(file, "{}", std::process::id()).map_err(fail)?;
                    return Ok(Self { _file: file });
                }
                Err((held, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    file = held;
                    thread::sleep(Duration::from_millis(10));
                }
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut pid = String::new();
                    file.read_to_string(&mut pid).map_err(fail)?;
                    return Err(LockError::Held {
                        directory: directory.to_owned(),
                        pid: pid.trim().to_owned(),
                    });
                }
                Err((_, error)) => return Err(fail(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        let error = Lock::take(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        assert!(error.contains(directory.path().to_str().unwrap()), "{error}");
        drop(lock);
        Lock::take(directory.path()).unwrap();
    }
}
