//! Sockets of the host that have dialled a published port: the kernel leads them to the container, and shows them the port that
//! they dialled.

use bytemuck::{Pod, Zeroable};

use crate::addr::{Be16, Ipv6};

/// Datagrams to different ports that one socket may be answered at the same time.
pub const SENT: usize = 7;

/// A published port that was dialled, and the container's port that it led to. Addresses of IPv4 are mapped, for a socket of IPv6
/// may dial those too (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Dialled {
    /// The container's address.
    pub container: Ipv6,
    /// The address that was dialled.
    pub published: Ipv6,
    /// The container's port; 0 for nothing.
    pub container_port: Be16,
    /// The port that was dialled.
    pub published_port: Be16,
}

impl Dialled {
    /// Whether what comes from there is the answer.
    #[inline(always)]
    pub fn led_to(&self, container: &Ipv6, port: Be16) -> bool {
        self.container_port == port && self.container == *container && port.0 != 0
    }
}

/// What one socket has dialled: a value of `SOCKETS`, kept with the socket and gone with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Socket {
    /// By connect(2).
    pub connected: Dialled,
    /// By its latest datagrams that named a port, each port once.
    pub sent: [Dialled; SENT],
    /// The oldest of those.
    pub oldest: u32,
}

impl Socket {
    /// A socket that was connected: it hears nobody else, whatever it has sent before.
    #[inline(always)]
    pub fn connected(dialled: Dialled) -> Self {
        Self { connected: dialled, ..Self::default() }
    }

    /// What was dialled to get a datagram from there.
    #[inline(always)]
    pub fn dialled(&self, container: &Ipv6, port: Be16) -> Option<&Dialled> {
        // The latest word on an address is that of the datagrams, if there is any.
        let mut found = None;
        for dialled in &self.sent {
            if dialled.led_to(container, port) {
                found = Some(dialled);
            }
        }
        if found.is_none() && self.connected.led_to(container, port) {
            found = Some(&self.connected);
        }
        found
    }

    /// A datagram was sent to a published port.
    #[inline(always)]
    pub fn remember(&mut self, dialled: &Dialled) {
        for known in &mut self.sent {
            if known.led_to(&dialled.container, dialled.container_port) {
                *known = *dialled;
                return;
            }
        }
        let oldest = self.oldest as usize;
        let place = if oldest < SENT { oldest } else { 0 };
        self.sent[place] = *dialled;
        self.oldest = place as u32 + 1;
    }

    /// A datagram was sent to that very address: its answer is what it is.
    #[inline(always)]
    pub fn forget(&mut self, address: &Ipv6, port: Be16) {
        for known in &mut self.sent {
            if known.led_to(address, port) {
                *known = Dialled::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Ipv6 {
        Ipv6::mapped(core::net::Ipv4Addr::new(172, 17, 0, last).into())
    }

    fn dialled(container: u8, port: u16) -> Dialled {
        Dialled {
            container: address(container),
            published: Ipv6::mapped(core::net::Ipv4Addr::LOCALHOST.into()),
            container_port: Be16::new(80),
            published_port: Be16::new(port),
        }
    }

    #[test]
    fn an_answer_is_shown_as_what_was_dialled() {
        let mut socket = Socket::connected(dialled(2, 8080));
        let port = |socket: &Socket, from| {
            socket.dialled(&address(from), Be16::new(80)).map(|it| it.published_port.get())
        };
        assert_eq!((port(&socket, 2), port(&socket, 3)), (Some(8080), None));
        socket.remember(&dialled(3, 8081));
        assert_eq!((port(&socket, 2), port(&socket, 3)), (Some(8080), Some(8081)));
        // By another published port to the same one: the latest counts.
        socket.remember(&dialled(3, 8082));
        assert_eq!(port(&socket, 3), Some(8082));
        assert_eq!(socket.oldest, 1);
        socket.forget(&address(3), Be16::new(80));
        assert_eq!(port(&socket, 3), None);
        assert_eq!(socket.dialled(&Ipv6::default(), Be16(0)), None, "nothing is not an address");
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut socket = Socket::default();
        for n in 1..=3 * SENT as u8 + 2 {
            socket.remember(&dialled(n, 8000 + u16::from(n)));
            for m in 1..=n {
                let known = socket.dialled(&address(m), Be16::new(80)).is_some();
                assert_eq!(known, m + SENT as u8 > n, "{m} after {n}");
            }
        }
    }
}
