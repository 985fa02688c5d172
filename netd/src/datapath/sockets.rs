//! The host's own sockets: the programs that they call, at the root of the control groups, and their connections by published ports.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use aya::{
    maps::MapData,
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};
use bytemuck::{Pod, Zeroable};
use netd_common::{socket::Dialled, stats::Path as Way};

use super::{Datapath, Error, at, connections::Connections, lock, object, programs::Programs};
use crate::model::Protocol;

/// They need no other name than that of the call.
pub(super) const CALLS: [&str; 10] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "bind4",
    "bind6",
];

impl Datapath {
    /// Has the host's own sockets call: those of all processes in a control group and below it, as far as they are in the network
    /// namespace of whoever opened the datapath. Attaching twice is attaching once.
    pub fn attach_sockets(&self, control_group: impl AsFd) -> Result<(), Error> {
        self.programs().attach_calls(control_group)
    }

    /// Ends the host's own TCP connections by ports that lead elsewhere now.
    pub(super) fn end_dialled(&self) -> Result<(), Error> {
        // The kernel looks at every TCP socket of the machine to find those: milliseconds for nothing, where none ever was.
        if self.maps().took(Way::Dialled)? == 0 {
            return Ok(());
        }
        let failed = |source| Error::Connections { source };
        let sockets = MapData::from_pin(self.pins.join("maps").join("SOCKETS"));
        let sockets = sockets.map_err(object::failed("SOCKETS"))?;
        let connections = Connections::open().map_err(failed)?;
        for connection in connections.list(sockets.fd().as_fd()).map_err(failed)? {
            if !self.leads(&connection.dialled)? && connections.end(&connection).map_err(failed)? {
                log::debug!("ended a connection of the host's: {:?}", connection.dialled);
            }
        }
        Ok(())
    }

    /// Whether a published port of TCP that was dialled leads to the same port of a container still.
    fn leads(&self, dialled: &Dialled) -> Result<bool, Error> {
        let published =
            lock(&self.publications).find(dialled.published, Protocol::Tcp, dialled.published_port)?;
        match published {
            Some(it) if it.container_port(dialled.published_port) == dialled.container_port => {
                self.maps().has_address(it.endpoint, dialled.container)
            }
            _ => Ok(false),
        }
    }
}

impl Programs {
    /// Puts the new programs into the links that are pinned.
    pub(super) fn adopt_calls(&mut self) -> Result<(), Error> {
        for name in CALLS {
            let path = self.call_pin(name);
            if !path.exists() {
                continue;
            }
            let program = program(self.loaded(name)?, name)?;
            let program = program.fd().map_err(|source| Error::Program { name, source })?;
            match get(&path).and_then(|link| update(link.as_fd(), program.as_fd())) {
                Ok(()) => {}
                // The control group is gone, and took the attachment with it: only the pin is left.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
                    fs::remove_file(&path).map_err(at(&path))?;
                }
                Err(error) => return Err(at(&path)(error)),
            }
        }
        Ok(())
    }

    /// Attaches the programs to a control group. Attaching twice is attaching once; others may be attached there as well.
    pub(super) fn attach_calls(&mut self, control_group: impl AsFd) -> Result<(), Error> {
        for name in CALLS {
            let path = self.call_pin(name);
            if path.exists() {
                continue;
            }
            let program = program(self.loaded(name)?, name)?;
            let failed = |source| Error::Program { name, source };
            // Links always stand beside each other, and the kernel wants to hear nothing of that:
            // <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/cgroup.c>
            let link = program.attach(control_group.as_fd(), CgroupAttachMode::Single).map_err(failed)?;
            let link = program.take_link(link).map_err(failed)?;
            let link = FdLink::try_from(link).map_err(|source| Error::Link { path: path.clone(), source })?;
            link.pin(&path).map_err(|error| at(&path)(io::Error::other(error)))?;
        }
        Ok(())
    }

    /// The programs that are attached.
    pub(super) fn attached_calls(&self) -> impl Iterator<Item = &'static str> {
        CALLS.into_iter().filter(|name| self.call_pin(name).exists())
    }
}

fn program<'a>(
    program: &'a mut aya::programs::Program,
    name: &'static str,
) -> Result<&'a mut CgroupSockAddr, Error> {
    program.try_into().map_err(|source| Error::Program { name, source })
}

/// The cookie of the calling thread's network namespace.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes `length` bytes of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// `union bpf_attr` of BPF_OBJ_GET, which aya does not let go of the descriptor of.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ObjectGet {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// `union bpf_attr` of BPF_LINK_UPDATE, which aya has for tcx and XDP alone.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// Opens a pin.
fn get(path: &Path) -> io::Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_long = 7;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectGet { path: path.as_ptr() as u64, descriptor: 0, flags: 0 };
    let descriptor = bpf(BPF_OBJ_GET, &attributes)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Puts a program into a link in the place of the one that is there.
fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_LINK_UPDATE: libc::c_long = 29;
    let (link, program) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    bpf(BPF_LINK_UPDATE, &LinkUpdate { link, program, flags: 0, old: 0 }).map(drop)
}

fn bpf(command: libc::c_long, attributes: &impl Pod) -> io::Result<i32> {
    let bytes = bytemuck::bytes_of(attributes);
    // SAFETY: the kernel reads as many bytes as it is told, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, bytes.as_ptr(), bytes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
