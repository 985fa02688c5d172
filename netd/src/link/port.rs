//! Ports of the host's own sockets.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

use crate::model::Protocol;

/// Whether [`try_bind`] says that somebody has the port.
pub fn is_in_use(bound: &io::Result<()>) -> bool {
    bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

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

/// Whether all who are in the way of a socket on this port of all addresses are at one of `known`, in the network namespace of
/// the calling thread.
pub fn is_free_beside(protocol: Protocol, address: IpAddr, port: u16, known: &[IpAddr]) -> io::Result<bool> {
    let tables: &[&str] = match protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => return Ok(false),
    };
    for table in tables {
        let text = match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let mut holders = text.lines().skip(1).filter_map(|line| holder(line, protocol));
        let in_the_way = |(holder, its_port): (IpAddr, u16)| {
            // One at all addresses of IPv6 may be at those of IPv4 as well.
            let meets = holder.is_ipv4() == address.is_ipv4() || holder.is_unspecified();
            its_port == port && meets && !known.contains(&holder)
        };
        if holders.any(in_the_way) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The local address of a line of /proc/net/tcp and its like, if nobody else can have it. See proc_net(5): words of the host's
/// byte order in hexadecimal digits.
fn holder(line: &str, protocol: Protocol) -> Option<(IpAddr, u16)> {
    const LISTENS: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    if protocol == Protocol::Tcp && state != LISTENS {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let word = |n: usize| u32::from_str_radix(address.get(8 * n..8 * n + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address: IpAddr = if address.len() == 8 {
        Ipv4Addr::from(word(0)?).into()
    } else {
        let octets = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
        Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical()
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT | libc::EAFNOSUPPORT | libc::EPFNOSUPPORT)
    )
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn holders_of_a_port_are_told_apart() {
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        for (protocol, port, _socket) in [
            {
                let socket = UdpSocket::bind("127.0.0.3:0").unwrap();
                (
                    Protocol::Udp,
                    socket.local_addr().unwrap().port(),
                    Box::new(socket) as Box<dyn std::any::Any>,
                )
            },
            {
                let socket = TcpListener::bind("127.0.0.3:0").unwrap();
                (
                    Protocol::Tcp,
                    socket.local_addr().unwrap().port(),
                    Box::new(socket) as Box<dyn std::any::Any>,
                )
            },
        ] {
            assert!(try_bind(protocol, any, port).is_err());
            let beside = |known: &[IpAddr]| is_free_beside(protocol, any, port, known).unwrap();
            assert!(!beside(&[]) && beside(&["127.0.0.3".parse().unwrap()]));
            assert!(is_free_beside(protocol, Ipv6Addr::UNSPECIFIED.into(), port, &[]).unwrap());
        }
    }
}
