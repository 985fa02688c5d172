//! What the host's own stack forwards.

use bytemuck::{Pod, Zeroable};

use crate::addr::Mac;

/// An interface of the host that is none of netd's, on a host that netd has made forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Foreign {
    /// Its own; zero if it has none.
    pub mac: Mac,
    /// The families in which the host forwarded what comes in here before netd made it forward everything, by a setting of this interface
    /// alone: bits of [`crate::globals::Globals::flags`].
    pub forwards: u16,
}
