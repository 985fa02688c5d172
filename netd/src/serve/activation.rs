//! Sockets that the service manager listens at and hands over: systemd's LISTEN_FDS and LISTEN_PID.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Number of the first.
const FIRST: u32 = 3;

/// The sockets that were handed over and not yet asked for, the first of them with number 3.
#[derive(Debug, Default)]
pub(super) struct Activation(Vec<Option<OwnedFd>>);

impl Activation {
    /// Takes over what was handed to this process. To be called once.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let sockets = sd_notify::listen_fds()?.map(|number| {
            // SAFETY: the service manager opened it for this process, and nobody else here knows of it.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            Ok(Some(socket))
        });
        sockets.collect::<io::Result<_>>().map(Self)
    }

    /// The socket with this number, or all that are left.
    pub(super) fn take(&mut self, number: Option<u32>) -> io::Result<Vec<OwnedFd>> {
        let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::NotFound, reason));
        if self.0.is_empty() {
            return refuse(
                "no sockets found via socket activation: make sure the service was started by systemd"
                    .to_owned(),
            );
        }
        let Some(number) = number else {
            return match self.0.iter_mut().filter_map(Option::take).collect::<Vec<_>>() {
                all if all.is_empty() => {
                    refuse("all sockets of socket activation are in use already".to_owned())
                }
                all => Ok(all),
            };
        };
        let slot = number.checked_sub(FIRST).and_then(|index| self.0.get_mut(index as usize));
        match slot.map(Option::take) {
            None => refuse("too few socket activated files passed in by systemd".to_owned()),
            Some(None) => {
                refuse(format!("failed to listen on systemd activated file: fd {number} is in use already"))
            }
            Some(Some(socket)) => Ok(vec![socket]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn sockets_are_given_out_once() {
        let socket = || Some(UnixDatagram::unbound().unwrap().into());
        let mut activation = Activation(vec![socket(), socket(), socket()]);
        assert_eq!(activation.take(Some(4)).unwrap().len(), 1);
        assert!(activation.take(Some(4)).unwrap_err().to_string().ends_with("fd 4 is in use already"));
        assert_eq!(activation.take(None).unwrap().len(), 2);
        assert!(activation.take(None).is_err());
        for number in [0, 2, 6] {
            let error = activation.take(Some(number)).unwrap_err().to_string();
            assert_eq!(error, "too few socket activated files passed in by systemd");
        }
        let error = Activation::default().take(None).unwrap_err().to_string();
        assert!(error.starts_with("no sockets found via socket activation"));
    }
}
