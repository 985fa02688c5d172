//! What the host's own processes ask of their sockets: cgroup hooks at the root, for the daemon's network namespace alone.
//!
//! A socket of IPv6 may name an address of IPv4 by the mapped one: that is IPv4 then.

use aya_ebpf::programs::SockAddrContext;
use netd_common::addr::{Be16, Ipv4, Ipv6};

use crate::{
    call::Call,
    family::{V4, V6},
    socket,
    verdict::{ALLOW, Answer, in_use},
};

#[inline(always)]
pub fn connect4(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    if let Some((address, port)) = socket::connect::<V4>(call, call.ipv4()) {
        call.put_ipv4(address, port);
    }
    ALLOW
}

#[inline(always)]
pub fn connect6(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    let address = call.ipv6();
    let led = match address.to_mapped() {
        Some(address) => mapped(socket::connect::<V4>(call, address)),
        None => socket::connect::<V6>(call, address),
    };
    if let Some((address, port)) = led {
        call.put_ipv6(&address, port);
    }
    ALLOW
}

/// Mapped addresses come here too: the kernel takes them for IPv4's before it asks.
#[inline(always)]
pub fn sendmsg4(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    if let Some((address, port)) = socket::send::<V4>(call, call.ipv4()) {
        call.put_ipv4(address, port);
    }
    ALLOW
}

#[inline(always)]
pub fn sendmsg6(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    if let Some((address, port)) = socket::send::<V6>(call, call.ipv6()) {
        call.put_ipv6(&address, port);
    }
    ALLOW
}

#[inline(always)]
pub fn recvmsg4(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    let source = Ipv6::mapped(call.ipv4());
    if let Some(dialled) = call.dialled().and_then(|socket| socket.dialled(&source, call.port()))
        && let Some(address) = dialled.published.to_mapped()
    {
        call.put_ipv4(address, dialled.published_port);
    }
    ALLOW
}

#[inline(always)]
pub fn recvmsg6(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    let source = call.ipv6();
    if let Some(dialled) = call.dialled().and_then(|socket| socket.dialled(&source, call.port())) {
        call.put_ipv6(&dialled.published, dialled.published_port);
    }
    ALLOW
}

#[inline(always)]
pub fn getpeername4(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    let peer = Ipv6::mapped(call.ipv4());
    if let Some(socket) = call.dialled()
        && socket.connected.led_to(&peer, call.port())
        && let Some(address) = socket.connected.published.to_mapped()
    {
        call.put_ipv4(address, socket.connected.published_port);
    }
    ALLOW
}

#[inline(always)]
pub fn getpeername6(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    let peer = call.ipv6();
    if let Some(socket) = call.dialled()
        && socket.connected.led_to(&peer, call.port())
    {
        call.put_ipv6(&socket.connected.published, socket.connected.published_port);
    }
    ALLOW
}

#[inline(always)]
pub fn bind4(context: &SockAddrContext) -> Answer {
    match Call::of_host(context) {
        Some(call) if !socket::may_bind::<V4>(call, call.ipv4()) => in_use(),
        _ => ALLOW,
    }
}

#[inline(always)]
pub fn bind6(context: &SockAddrContext) -> Answer {
    let Some(call) = Call::of_host(context) else { return ALLOW };
    let address = call.ipv6();
    let may = match address.to_mapped() {
        Some(address) => socket::may_bind::<V4>(call, address),
        None => socket::may_bind::<V6>(call, address),
    };
    if may { ALLOW } else { in_use() }
}

#[inline(always)]
fn mapped(led: Option<(Ipv4, Be16)>) -> Option<(Ipv6, Be16)> {
    led.map(|(address, port)| (Ipv6::mapped(address), port))
}
