//! How packets on a link begin.

/// What stands before the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// Nothing: the link is a tunnel, or leads to one place alone.
    Bare,
}
