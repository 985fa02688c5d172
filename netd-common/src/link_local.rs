//! Link-local addresses (RFC 3927, RFC 4291 section 2.5.6): each is of one link, so that two networks may have the same.

use bytemuck::{Pod, Zeroable};

use crate::addr::{Ipv6, Mac};

/// Key of `LINK_LOCALS`: a link-local address that an endpoint was given. Value: the endpoint's slot, a `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct LinkLocal {
    /// The network's number.
    pub network: u32,
    /// The address; one of IPv4 as it is mapped into IPv6.
    pub address: Ipv6,
}

/// The MAC whose interface has a link-local address by itself (RFC 4291 appendix A). `None` if it is made otherwise.
#[inline(always)]
pub const fn station(address: Ipv6) -> Option<Mac> {
    const UNIVERSAL: u8 = 2;
    let Ipv6([_, _, high, low]) = address;
    let [a, b, c, ff] = high.to_ne_bytes();
    let [fe, d, e, f] = low.to_ne_bytes();
    if address.is_link_local() && ff == 0xff && fe == 0xfe {
        Some(Mac::new([a ^ UNIVERSAL, b, c, d, e, f]))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    #[test]
    fn a_station_shows_in_the_address_that_the_kernel_gives_it() {
        let of = |text: &str| station(text.parse::<Ipv6Addr>().unwrap().into()).map(Mac::octets);
        assert_eq!(of("fe80::42:acff:fe11:2"), Some([0x02, 0x42, 0xac, 0x11, 0, 2]));
        assert_eq!(of("fe80::7777"), None);
        assert_eq!(of("fe80::42:acff:ff11:2"), None);
        assert_eq!(of("fd00::42:acff:fe11:2"), None);
    }
}
