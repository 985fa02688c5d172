//! Ports of the host's own sockets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use crate::model::Protocol;

/// Tries whether the port could be bound, in the network namespace of the calling thread: the kernel's own reason if not.
pub fn try_bind(protocol: Protocol, address: IpAddr, port: u16) -> io::Result<()> {
    let address = SocketAddr::new(address, port);
    let kind = if protocol == Protocol::Udp { Type::DGRAM } else { Type::STREAM };
    let number = SocketProtocol::from(i32::from(protocol.number()));
    let socket = match Socket::new(Domain::for_address(address), kind, Some(number)) {
        // A kernel that does not know the protocol has nobody at its ports.
        Err(error) if is_unknown(&error) => return Ok(()),
        socket => socket?,
    };
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol != Protocol::Udp {
        // What is left of connections that have ended is in nobody's way.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    // Another socket that only listens may have the port by the same leave.
    if protocol == Protocol::Udp { Ok(()) } else { socket.listen(1) }
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT | libc::EAFNOSUPPORT | libc::EPFNOSUPPORT)
    )
}
