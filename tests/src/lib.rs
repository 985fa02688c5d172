//! The test lab: hosts and containers as network namespaces of this machine, with real sockets and real packets
//! between them. Needs root.
//!
//! The lab panics where it cannot do what it is told, with the command that failed and what it said: a test
//! has nothing to recover from. All that it makes is removed on drop, after a panic as well.

pub mod bench;
pub mod lab;
pub mod prog;
