//! 1:1 translation: an address that the outside knows a container by, or a prefix that it knows a network by. Stateless, and
//! blind to what is carried.

use bytemuck::{Pod, Zeroable};

use crate::{
    addr::{Address, Ipv4, Ipv6},
    nptv6,
};

/// A value of `EXTERNALS4/6`, keyed by what the outside sees, and of `INTERNALS4/6`, keyed by what it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct External<A> {
    /// What the outside sees: an address, or a prefix with its host bits zero.
    pub external: A,
    /// What it stands for, in the same form.
    pub internal: A,
    /// How many bits of an address are translated: all of them, or a prefix.
    pub length: u32,
    /// [`crate::nptv6::adjustment`] from inside to outside, in the lower half.
    pub adjustment: u32,
}

// SAFETY: `repr(C)`, and the golden test of `abi` holds that the fields leave no padding.
unsafe impl Zeroable for External<Ipv4> {}
// SAFETY: as above.
unsafe impl Pod for External<Ipv4> {}
// SAFETY: as above.
unsafe impl Zeroable for External<Ipv6> {}
// SAFETY: as above.
unsafe impl Pod for External<Ipv6> {}

impl External<Ipv4> {
    /// One address for another.
    pub fn new4(external: Ipv4, internal: Ipv4) -> Self {
        Self { external, internal, length: 32, adjustment: 0 }
    }
}

impl External<Ipv6> {
    /// One address for another, or one prefix for another: addresses are exchanged whole, prefixes keep all checksums.
    pub fn new6(external: Ipv6, internal: Ipv6, length: u32) -> Self {
        let adjustment = if length == 128 { 0 } else { nptv6::adjustment(internal, external) };
        Self { external, internal, length, adjustment: u32::from(adjustment) }
    }
}

impl<A: Address> External<A> {
    /// What the outside sees of `internal`; `None` if that has no translation.
    #[inline(always)]
    pub fn outward(&self, internal: A) -> Option<A> {
        internal.translate(self.external, self.length, self.adjustment as u16)
    }

    /// What `external` stands for.
    #[inline(always)]
    pub fn inward(&self, external: A) -> Option<A> {
        external.translate(self.internal, self.length, !(self.adjustment as u16))
    }
}
