//! Word of addresses to neighbours: which way it goes. `__sk_buff::mark` of the run of the program that sends it.

/// As if it had come in by the interface: from the container behind it.
pub const IN: u32 = 0;
/// Out by the interface: from the host.
pub const OUT: u32 = 1;
