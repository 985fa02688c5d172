//! Network namespaces.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use nix::sched::{CloneFlags, setns};

use super::{Doing, Error};

/// `NS_GET_NSTYPE` of ioctl_ns(2).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// An open network namespace; it lives on while this does.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u64,
}

impl Namespace {
    /// Opens the namespace at `path`: a bind mount of one, or a file in some /proc/PID/ns.
    ///
    /// # Errors
    /// `NotFound` if nothing is there; `InvalidInput` if what is there is no network namespace.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let action = || format!("open the network namespace {}", path.display());
        // A file that is no namespace may be a device or a pipe: opened so, it does not block.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).doing(action)?;
        // SAFETY: the request takes no argument; other kinds of file refuse it.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            let what = io::Error::new(io::ErrorKind::InvalidInput, "it is not a network namespace");
            return Err(what).doing(action);
        }
        let inode = file.metadata().doing(action)?.ino();
        Ok(Self { file, inode })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Tells it from all other namespaces that exist at the time.
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `f` on a thread of its own within the namespace.
    pub async fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let action = || "enter a network namespace".to_owned();
        let file = self.file.try_clone().doing(action)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // setns changes the calling thread for good; this one ends with `f`.
        std::thread::Builder::new()
            .name("netns".into())
            .spawn(move || {
                let result = setns(&file, CloneFlags::CLONE_NEWNET).map(|()| f());
                // The receiver is gone if the caller was cancelled: then nobody wants the result.
                drop(sender.send(result));
            })
            .doing(action)?;
        let result = receiver.await.map_err(|_| io::Error::other("the thread died")).doing(action)?;
        result.map_err(io::Error::from).doing(action)
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_namespaces_are_opened() {
        let own = Namespace::current().unwrap();
        assert_eq!(own.inode(), Namespace::open(Path::new("/proc/self/ns/net")).unwrap().inode());
        for other in ["/proc/self/ns/mnt", "/dev/null", "/etc"] {
            let error = Namespace::open(Path::new(other)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        let error = Namespace::open(Path::new("/run/netns/no-such")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(
            error
                .to_string()
                .starts_with("cannot open the network namespace /run/netns/no-such: No such file")
        );
    }
}
