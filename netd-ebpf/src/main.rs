//! netd's datapath: programs only, from hook to verdict.
#![no_std]
#![no_main]
// For the atomic instructions in `atomic`; RUSTC_BOOTSTRAP in .cargo/config.toml unlocks it on a stable compiler.
#![feature(asm_experimental_arch)]

mod arp;
mod atomic;
mod binding;
mod bridge;
mod call;
mod conntrack;
mod egress;
mod endpoint;
mod expiry;
mod external;
mod family;
mod fib;
mod filtering;
mod flow_table;
mod frag;
mod gateway;
mod guard;
mod hairpin;
mod hook;
mod icmp;
mod loops;
mod mapping;
mod maps;
mod nat;
mod nd;
mod open;
mod own_error;
mod packet;
mod parse;
mod policy;
mod port_usage;
mod publish;
mod rate;
mod redirect;
mod refuse;
mod rewrite;
mod socket;
mod stats;
mod trace;
mod translation;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};

#[classifier]
#[inline(always)]
pub fn from_container(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::from_container::run(&ctx))
}

#[classifier]
#[inline(always)]
pub fn to_segment(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::to_segment::run())
}

#[classifier]
#[inline(always)]
pub fn from_uplink(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::from_uplink::run(&ctx))
}

#[classifier]
#[inline(always)]
pub fn to_uplink(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::to_uplink::run(&ctx))
}

#[classifier]
#[inline(always)]
pub fn from_tunnel(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::from_uplink::run_bare(&ctx))
}

#[classifier]
#[inline(always)]
pub fn to_tunnel(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::to_uplink::run_bare(&ctx))
}

#[classifier]
pub fn from_host(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::from_host::run(&ctx))
}

#[classifier]
pub fn forwarded(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::forwarded::run(&ctx))
}

#[classifier]
pub fn advertise(ctx: TcContext) -> i32 {
    hook::advertise::run(&ctx)
}

#[classifier]
pub fn sweep(ctx: TcContext) -> i32 {
    hook::sweep::run(&ctx) as i32
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    hook::socket::connect4(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    hook::socket::connect6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    hook::socket::sendmsg4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    hook::socket::sendmsg6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    hook::socket::recvmsg4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    hook::socket::recvmsg6(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    hook::socket::getpeername4(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    hook::socket::getpeername6(&ctx)
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    hook::socket::bind4(&ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    hook::socket::bind6(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel hands some helpers to programs under a licence that is compatible with the GPL alone.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
