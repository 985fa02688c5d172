//! The host's own TCP connections by published ports: whose port leads there no more is ended, and both ends are told.
//!
//! A connected socket has the container's address, as if it had dialled that. What it did dial is kept with it, in `SOCKETS`, and
//! the kernel tells it of each socket beside what else sock_diag(7) tells:
//! <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/inet_diag.h>,
//! <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/sock_diag.h>

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use bytemuck::{Pod, Zeroable};
use netd_common::{
    addr::{Be16, Ipv4, Ipv6},
    socket::{Dialled, Socket},
    tuple::protocol::TCP,
};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator},
    sys::{self, protocols::NETLINK_SOCK_DIAG},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// The attribute of a request that asks for sockets' storage, and in it the one that names a map.
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
/// The attribute of an answer that has it, in it one for each map, and in that the value.
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
/// Bits of the states in which a socket is connected, or about to be: of the kernel's twelve all but TIME_WAIT, CLOSE, LISTEN
/// and NEW_SYN_RECV. <https://github.com/torvalds/linux/blob/v6.18/include/net/tcp_states.h>
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Messages that end an answer, and begin with an error's negative number, or with 0.
const ENDS: [i32; 2] = [libc::NLMSG_DONE, libc::NLMSG_ERROR];

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`: a socket, with a cookie that no other has.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Id {
    source_port: Be16,
    destination_port: Be16,
    source: [u32; 4],
    /// One word of it for IPv4.
    destination: [u32; 4],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    more: u8,
    pad: u8,
    states: u32,
    id: Id,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: Id,
    expires_to_inode: [u32; 5],
}

/// A connection of the host's that a published port has led to a container.
pub(super) struct Connection {
    family: u8,
    id: Id,
    pub(super) dialled: Dialled,
}

/// The kernel's answers, for the calling thread's network namespace.
pub(super) struct Connections(sys::Socket);

impl Connections {
    /// # Errors
    ///
    /// Whatever the kernel says; that it knows of no such questions, without `CONFIG_INET_DIAG`.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = sys::Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&sys::SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// All that `sockets`, the map `SOCKETS`, tells of.
    pub(super) fn list(&self, sockets: BorrowedFd<'_>) -> io::Result<Vec<Connection>> {
        let map = attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &sockets.as_raw_fd().to_ne_bytes());
        let storages = attribute(INET_DIAG_REQ_SK_BPF_STORAGES, &map);
        let mut connections = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let request = request(family as u8, Id::default());
            self.ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request, &storages, |answer| {
                connections.extend(connection(answer));
            })?;
        }
        Ok(connections)
    }

    /// Ends a connection. `false` if it has ended meanwhile.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP if the kernel ends nobody's, without `CONFIG_INET_DIAG_DESTROY`.
    pub(super) fn end(&self, connection: &Connection) -> io::Result<bool> {
        let request = request(connection.family, connection.id);
        match self.ask(SOCK_DESTROY, NLM_F_ACK, request, &[], |_| {}) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    /// Sends a request, and hears what is said to it.
    fn ask(
        &self,
        kind: u16,
        flags: u16,
        request: Request,
        attributes: &[u8],
        mut hear: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let length = (size_of::<Header>() + size_of::<Request>() + attributes.len()) as u32;
        let header = Header { length, kind, flags: NLM_F_REQUEST | flags, sequence: 0, port: 0 };
        let message = [bytemuck::bytes_of(&header), bytemuck::bytes_of(&request), attributes].concat();
        self.0.send(&message, 0)?;
        loop {
            let (answers, _) = self.0.recv_from_full()?;
            let mut rest = &answers[..];
            while let Some((kind, answer)) = next(&mut rest) {
                if !ENDS.contains(&i32::from(kind)) {
                    hear(answer);
                    continue;
                }
                let code = answer.first_chunk().map_or(-libc::EBADMSG, |code| i32::from_ne_bytes(*code));
                return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
        }
    }
}

fn request(family: u8, id: Id) -> Request {
    Request { family, protocol: TCP, more: 0, pad: 0, states: CONNECTED, id }
}

/// `struct nlattr`, and what is in it, filled up to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len() as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of an attribute among others.
fn find(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(attributes).map_while(Result::ok);
    attributes.find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec())
}

/// The connection that an answer is about, if the socket has dialled a published port and is still connected to where that led.
fn connection(answer: &[u8]) -> Option<Connection> {
    let (fixed, attributes) = answer.split_at_checked(size_of::<Answer>())?;
    let Answer { family, id, .. } = bytemuck::pod_read_unaligned(fixed);
    let storages = find(attributes, INET_DIAG_SK_BPF_STORAGES)?;
    let value = find(&find(&storages, SK_DIAG_BPF_STORAGE)?, SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    let socket: Socket = bytemuck::try_pod_read_unaligned(&value).ok()?;
    let is_ipv4 = i32::from(family) == libc::AF_INET;
    let peer = if is_ipv4 { Ipv6::mapped(Ipv4(id.destination[0])) } else { Ipv6(id.destination) };
    let dialled = socket.connected;
    dialled.led_to(&peer, id.destination_port).then_some(Connection { family, id, dialled })
}

/// The kind and the contents of the next message.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let header: Header = bytemuck::pod_read_unaligned(rest.get(..size_of::<Header>())?);
    let message = rest.get(size_of::<Header>()..header.length as usize)?;
    *rest = rest.get((header.length as usize).next_multiple_of(4)..).unwrap_or_default();
    Some((header.kind, message))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// The answer for a socket that is connected to 172.17.0.2:`port` and has dialled 127.0.0.1:8080, which led to port 80 there.
    fn answer(family: i32, port: u16) -> Vec<u8> {
        let container = Ipv6::mapped(Ipv4Addr::new(172, 17, 0, 2).into());
        let dialled = Dialled {
            container,
            published: Ipv6::mapped(Ipv4Addr::LOCALHOST.into()),
            container_port: Be16::new(80),
            published_port: Be16::new(8080),
        };
        let mut id = Id { destination_port: Be16::new(port), cookie: [3, 4], ..Id::default() };
        id.destination = if family == libc::AF_INET { [container.0[3], 0, 0, 0] } else { container.0 };
        let fixed = Answer { family: family as u8, id, ..Answer::zeroed() };
        let socket = Socket { connected: dialled, ..Socket::default() };
        let value = attribute(SK_DIAG_BPF_STORAGE_MAP_VALUE, bytemuck::bytes_of(&socket));
        let storage = [attribute(2, &[9, 0, 0, 0]), value].concat();
        let storages = attribute(INET_DIAG_SK_BPF_STORAGES, &attribute(SK_DIAG_BPF_STORAGE, &storage));
        [bytemuck::bytes_of(&fixed), &attribute(8, &[0]), &storages].concat()
    }

    #[test]
    fn a_socket_is_told_by_what_it_has_dialled() {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let found = connection(&answer(family, 80)).unwrap();
            assert_eq!((found.dialled.published_port.get(), found.id.cookie), (8080, [3, 4]));
            assert!(connection(&answer(family, 81)).is_none(), "it is connected elsewhere by now");
            assert!(connection(&answer(family, 80)[..size_of::<Answer>()]).is_none(), "it never dialled");
            assert!(connection(&[]).is_none());
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let header = |length, kind| {
            let header = Header { length, kind, flags: 0, sequence: 0, port: 0 };
            bytemuck::bytes_of(&header).to_vec()
        };
        let messages = [header(17, 20), vec![7, 0, 0, 0], header(16, 3)].concat();
        let mut rest = &messages[..];
        assert_eq!(next(&mut rest), Some((20, &[7][..])));
        assert_eq!(next(&mut rest), Some((3, &[][..])));
        assert_eq!(next(&mut rest), None);
        // Longer than what came.
        assert_eq!(next(&mut &header(17, 20)[..]), None);
        assert_eq!(next(&mut &header(3, 20)[..]), None);
    }
}
