//! A tunnel between two namespaces: a tun device in each, and a thread that carries packets from one to the other.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Namespace;

/// The largest packet that a tun device hands out.
const LARGEST: usize = 65536;

/// The pair of devices, for as long as the value lives.
pub struct Tunnel {
    thread: Option<JoinHandle<()>>,
    /// Closing it ends the thread.
    stop: Option<PipeWriter>,
}

impl Tunnel {
    /// Makes a device of this name in both namespaces. They are down, and have no addresses.
    pub fn new(one: &Namespace, other: &Namespace, name: &str) -> Self {
        let ends = [open(one, name), open(other, name)];
        let (stopped, stop) = io::pipe().expect("a pipe");
        let thread = thread::spawn(move || carry(&ends, &stopped));
        Self { thread: Some(thread), stop: Some(stop) }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// Makes a tun device: packets without any header of the link's.
fn open(ns: &Namespace, name: &str) -> File {
    ns.enter(|| make(name)).unwrap_or_else(|e| panic!("making the tun device {name}: {e}"))
}

fn make(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: plain numbers and arrays of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes a request of this size.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

fn carry(ends: &[File; 2], stopped: &io::PipeReader) {
    let mut packet = vec![0; LARGEST];
    loop {
        let [one, other] = ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        let mut waiting = [one, other, PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::NONE).expect("waiting for packets");
        let ready = waiting.map(|end| end.any().unwrap_or(true));
        if ready[2] {
            return;
        }
        for (ready, mut from, mut to) in [(ready[0], &ends[0], &ends[1]), (ready[1], &ends[1], &ends[0])] {
            // A device that is down takes and gives nothing, and a tunnel may lose what it is given.
            if ready && let Ok(length) = from.read(&mut packet) {
                let _ = to.write(&packet[..length]);
            }
        }
    }
}
