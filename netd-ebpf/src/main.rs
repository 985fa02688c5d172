//! netd's datapath: programs only, from hook to verdict.
#![no_std]
#![no_main]
// For the atomic instructions in `atomic`; RUSTC_BOOTSTRAP in .cargo/config.toml unlocks it on a stable compiler.
#![feature(asm_experimental_arch)]

mod arp;
mod atomic;
mod bridge;
mod conntrack;
mod endpoint;
mod external;
mod family;
mod fib;
mod frag;
mod guard;
mod hook;
mod icmp;
mod maps;
mod nat;
mod nd;
mod open;
mod packet;
mod parse;
mod publish;
mod redirect;
mod refuse;
mod rewrite;
mod stats;
mod trace;
mod verdict;

use aya_ebpf::{macros::classifier, programs::TcContext};

#[classifier]
#[inline(always)]
pub fn from_container(ctx: TcContext) -> i32 {
    verdict::action(&ctx, hook::from_container::run(&ctx))
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
pub fn sweep(ctx: TcContext) -> i32 {
    hook::sweep::run(&ctx) as i32
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
