//! The ABI between netd's kernel half (`netd-ebpf`) and its user half (`netd`), and the decisions that both take.
//!
//! Two kinds of thing live here, side by side under the noun they belong to:
//!
//! * **map layouts**: `#[repr(C)]` types without padding, `bool`, `enum` or `Option`, whose sizes and offsets are
//!   held by a golden test (`abi`). A change to any of them bumps [`ABI_VERSION`], which is part of the path that maps
//!   are pinned under.
//! * **pure decisions**: TCP states, expiry, port choice, checksum arithmetic. Plain functions of their arguments,
//!   time and randomness included, so that the kernel, unit tests and property tests run the same code.
//!
//! Addresses and ports are in network byte order in memory; the types say so.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod abi;
pub mod addr;
pub mod advertise;
pub mod binding;
pub mod bridge;
pub mod conntrack;
pub mod csum;
pub mod drop;
pub mod endpoint;
pub mod event;
pub mod external;
pub mod fdb;
pub mod fib;
pub mod forwarded;
pub mod frag;
pub mod globals;
pub mod limits;
pub mod link_local;
pub mod nat;
pub mod nptv6;
pub mod policy;
pub mod publish;
pub mod rate;
pub mod socket;
pub mod stats;
pub mod tuple;

pub use abi::ABI_VERSION;
