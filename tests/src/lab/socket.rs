//! Sockets in a namespace, of chosen ports, that wait no longer than the lab's patience.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Family, Namespace, PATIENCE, until};

/// A UDP socket on a port of all addresses (0: any port).
pub fn udp(ns: &Namespace, family: Family, port: u16) -> UdpSocket {
    let address = family.any(port);
    let socket = bound(ns, address, UdpSocket::bind);
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
    socket
}

/// A socket that is bound to an address. Its predecessor there may be closed and yet be open: in the child of another thread that
/// has forked and not executed its program yet. That is no test's affair, so it is waited for.
pub fn bound<S: Send>(ns: &Namespace, address: SocketAddr, bind: fn(SocketAddr) -> io::Result<S>) -> S {
    let mut socket = None;
    until(&format!("{address} can be bound"), || match ns.enter(|| bind(address)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => false,
        result => {
            socket = Some(result.unwrap_or_else(|e| panic!("binding {address}: {e}")));
            true
        }
    });
    socket.expect("bound above")
}

/// Closes a socket of UDP, or one that listens, and waits until its port is nobody's: as `bound` says, it may be open for a moment
/// longer, and would take what its kernel is to refuse.
pub fn close(ns: &Namespace, socket: impl AsFd) {
    let address = SockRef::from(&socket).local_addr().expect("a socket's address");
    let port = address.as_socket().expect("an address of IP").port();
    drop(socket);
    until(&format!("port {port} is closed"), || !ns.enter(|| is_open(port)));
}

/// Whether a socket of UDP has a port in the calling thread's namespace, or one of TCP listens there.
fn is_open(port: u16) -> bool {
    let local = format!(":{port:04X}");
    ["udp", "udp6", "tcp", "tcp6"].iter().any(|protocol| {
        let path = format!("/proc/thread-self/net/{protocol}");
        let table = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("reading {path}: {e}"));
        table.lines().skip(1).any(|row| {
            let mut words = row.split_whitespace().skip(1);
            let (address, state) = (words.next().unwrap_or(""), words.nth(1).unwrap_or(""));
            // 0A is LISTEN; the states of UDP tell nothing here.
            address.ends_with(&local) && (protocol.starts_with("udp") || state == "0A")
        })
    })
}

/// Sends a datagram and returns its answer, which must come from where the datagram went.
pub fn ask(socket: &UdpSocket, to: SocketAddr, question: &[u8]) -> Vec<u8> {
    socket.send_to(question, to).unwrap_or_else(|e| panic!("sending to {to}: {e}{}", overflows()));
    let mut answer = vec![0; 65536];
    let (length, from) = socket.recv_from(&mut answer).unwrap_or_else(|e| panic!("an answer of {to}: {e}"));
    assert_eq!(from, to, "the answer comes from elsewhere");
    answer.truncate(length);
    answer
}

/// How often the kernel had no room for a neighbour of IPv6, if it ever had none: it keeps 1,024 for all namespaces together, other
/// programs' on the machine too, and who sends to one more is told EINVAL, where IPv4 loses the datagram in silence.
/// <https://github.com/torvalds/linux/blob/v6.18/net/ipv6/ip6_output.c>, `ip6_finish_output2`
fn overflows() -> String {
    let table = std::fs::read_to_string("/proc/net/stat/ndisc_cache").unwrap_or_default();
    let column = table.split_whitespace().position(|name| name == "table_fulls");
    let count = |row: &str| {
        let word = row.split_whitespace().nth(column?)?;
        u64::from_str_radix(word, 16).ok()
    };
    match table.lines().skip(1).filter_map(count).sum() {
        0 => String::new(),
        times => {
            format!(" (the kernel's table of neighbours was full {times} times since the machine started)")
        }
    }
}

/// Connects from a port (0: any port).
pub fn connect(ns: &Namespace, port: u16, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    connect_from(ns, family.any(port), to)
}

/// The same from an address of the namespace's.
pub fn connect_from(ns: &Namespace, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = ns.enter(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An address and a port.
pub fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}
