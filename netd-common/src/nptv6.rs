//! IPv6-to-IPv6 network prefix translation (RFC 6296): a prefix takes another's place, and one 16-bit word of the rest of the
//! address makes good what that does to checksums over it. No transport header need be touched, or even known.

use crate::{addr::Ipv6, csum};

/// The longest prefix that leaves a whole word to adjust.
pub const LONGEST: u32 = 112;

/// What an address is to gain when the prefix `from` becomes `to`, for its checksum to stay (RFC 6296 section 3.1). In the
/// byte order of memory, as all sums are. The other way round it is the complement.
pub fn adjustment(from: Ipv6, to: Ipv6) -> u16 {
    csum::fold(csum::delta(csum::sum(to), csum::sum(from)))
}

/// `address` with its first `length` bits replaced by those of `prefix`, and its sum kept by `adjustment`. `None` if no word
/// can take that: such an address has no translation (RFC 6296 section 3.6).
#[inline(always)]
pub fn translate(address: Ipv6, prefix: Ipv6, length: u32, adjustment: u16) -> Option<Ipv6> {
    let mut words = address.0;
    let mut at = 0;
    while at < 4 {
        let mask = mask(length, at);
        words[at as usize] = (address.0[at as usize] & !mask) | (prefix.0[at as usize] & mask);
        at += 1;
    }
    let mut halves: [u16; 8] = bytemuck::cast(words);
    // Section 3.4: up to /48 it is the subnet that changes. Section 3.5: else the first word of the rest that is not all ones.
    let (first, last) =
        if length <= 48 { (3, 3) } else { (if length <= 64 { 4 } else { length.div_ceil(16) }, 7) };
    let mut at = 3;
    while at < 8 {
        let half = halves[at as usize];
        if first <= at && at <= last && half != u16::MAX {
            let sum = csum::fold(u32::from(half) + u32::from(adjustment));
            // Zero has two forms, and only one of them leads back.
            halves[at as usize] = if sum == u16::MAX { 0 } else { sum };
            return Some(Ipv6(bytemuck::cast(halves)));
        }
        at += 1;
    }
    None
}

/// The bits of an address's word number `at` that are part of a prefix of `length` bits, in the byte order of memory.
#[inline(always)]
const fn mask(length: u32, at: u32) -> u32 {
    let before = at * 32;
    if length <= before {
        0
    } else if length >= before + 32 {
        u32::MAX
    } else {
        (u32::MAX << (before + 32 - length)).to_be()
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> Ipv6 {
        text.parse::<Ipv6Addr>().unwrap().into()
    }

    fn there(address: &str, from: &str, to: &str, length: u32) -> Option<String> {
        let adjustment = adjustment(ip(from), ip(to));
        let there = translate(ip(address), ip(to), length, adjustment)?;
        Some(Ipv6Addr::from(there).to_string())
    }

    #[test]
    fn the_example_of_rfc_6296() {
        // Section 3.2: the adjustment is 0xd54f, and subnet 1 becomes 0xd550.
        let (inside, outside) = ("fd01:203:405::", "2001:db8:1::");
        assert_eq!(adjustment(ip(inside), ip(outside)), 0xd54f_u16.to_be());
        assert_eq!(there("fd01:203:405:1::1234", inside, outside, 48).unwrap(), "2001:db8:1:d550::1234");
        assert_eq!(there("2001:db8:1:d550::1234", outside, inside, 48).unwrap(), "fd01:203:405:1::1234");
    }

    #[test]
    fn a_longer_prefix_moves_the_adjustment_into_the_interface() {
        let (inside, outside) = ("fd01:203:405:1::", "2001:db8:1:2::");
        // 0xd54f + 1 - 2
        assert_eq!(there("fd01:203:405:1::1234", inside, outside, 64).unwrap(), "2001:db8:1:2:d54e::1234");
        // A word of all ones cannot carry it: the next one does.
        assert_eq!(
            there("fd01:203:405:1:ffff::1234", inside, outside, 64).unwrap(),
            "2001:db8:1:2:ffff:d54e:0:1234"
        );
        // A prefix that ends within a word leaves that word alone.
        assert_eq!(
            there("fd00:0:0:0:7::5", "fd00::", "fd00:0:0:0:8000::", 68).unwrap(),
            "fd00::8007:7fff:0:5"
        );
    }

    #[test]
    fn what_has_no_room_has_no_translation() {
        let (inside, outside) = ("fd01:203:405::", "2001:db8:1::");
        assert_eq!(there("fd01:203:405:ffff::1", inside, outside, 48), None);
        let address = "fd01:203:405:1:ffff:ffff:ffff:ffff";
        assert_eq!(there(address, "fd01:203:405:1::", "2001:db8:1:2::", 64), None);
    }

    fn prefix(words: [u32; 4], length: u32) -> Ipv6 {
        let mut at = 0;
        Ipv6(words.map(|word| {
            at += 1;
            word & mask(length, at - 1)
        }))
    }

    proptest! {
        #[test]
        fn translation_keeps_the_sum_and_leads_back(address: [u32; 4], from: [u32; 4], to: [u32; 4], length in 16..=LONGEST) {
            let (from, to) = (prefix(from, length), prefix(to, length));
            let inside = prefix(address, length);
            let address = Ipv6(core::array::from_fn(|at| address[at] & !inside.0[at] | from.0[at]));
            let adjustment = adjustment(from, to);
            if let Some(there) = translate(address, to, length, adjustment) {
                prop_assert_eq!(prefix(there.0, length), to);
                // Both zeros are zero to a checksum.
                let sum = |address| csum::fold(csum::sum(address)) % u16::MAX;
                prop_assert_eq!(sum(there), sum(address));
                prop_assert_eq!(translate(there, from, length, !adjustment), Some(address));
            }
        }

        #[test]
        fn two_addresses_never_become_one(a: [u32; 4], b: [u32; 4], to: [u32; 4]) {
            let length = 64;
            let from = prefix(a, length);
            let (a, b) = (Ipv6([from.0[0], from.0[1], a[2], a[3]]), Ipv6([from.0[0], from.0[1], b[2], b[3]]));
            let to = prefix(to, length);
            let adjustment = adjustment(from, to);
            let (there_a, there_b) = (translate(a, to, length, adjustment), translate(b, to, length, adjustment));
            prop_assert_eq!(a == b, there_a == there_b);
        }
    }
}
