//! What an address is to the host itself.

/// Why the host takes in what is sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// It is one of the host's own.
    Own,
    /// It means all hosts of a link, and so this one.
    Broadcast,
}
