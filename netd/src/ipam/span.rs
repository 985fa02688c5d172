//! Prefixes as ranges of numbers: one arithmetic for both families.

use std::net::IpAddr;

use ipnet::IpNet;

/// From `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
}

impl From<IpNet> for Span {
    fn from(net: IpNet) -> Self {
        Self { first: number(net.network()), last: number(net.broadcast()) }
    }
}

impl Span {
    pub(super) const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The address as a number; comparable within one family.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of the same family as `like` with this number.
pub(super) fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => {
            IpAddr::V4(u32::try_from(number).expect("the number comes from an IPv4 prefix").into())
        }
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}
