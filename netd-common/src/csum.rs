//! The Internet checksum, changed by what changed (RFC 1624).
//!
//! Sums are kept unfolded in 32 bits, in the byte order of memory: the one's complement sum does not care (RFC 1071
//! section 2 B), so no byte is swapped anywhere.

use crate::addr::{Address, Be16, Ipv4};

/// Folds carries until 16 bits are left.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Folds carries until 32 bits are left: of up to 2^32 words that were added up in 64 bits, which is cheaper than a carry each.
#[inline(always)]
const fn wrap(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum + (sum >> 32)) as u32
}

/// One's complement addition in 32 bits.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    wrap(a as u64 + b as u64)
}

/// The sum of an address's words.
#[inline(always)]
pub fn sum<A: Address>(address: A) -> u32 {
    let [a, b, c, d] = address.words().map(u64::from);
    wrap(a + b + c + d)
}

/// The sum of words as they stand in memory.
#[inline(always)]
pub fn sum_words<const N: usize>(words: &[u32; N]) -> u32 {
    wrap(words.iter().map(|word| u64::from(*word)).sum())
}

/// The sum of a fresh IPv4 header without options: its first two bytes, its length, and TTL and protocol as they stand in
/// memory; identification, fragment and checksum are zero.
#[inline(always)]
pub fn sum_header(
    version_tos: [u8; 2],
    length: Be16,
    ttl_protocol: u16,
    source: Ipv4,
    destination: Ipv4,
) -> u32 {
    let first = u32::from(u16::from_ne_bytes(version_tos)) + u32::from(length.0) + u32::from(ttl_protocol);
    add(first, add(sum(source), sum(destination)))
}

/// What data gains that stays as it is, as [`delta`] has it.
pub const NOTHING: u32 = u32::MAX;

/// What a checksum's data gains when `from` becomes `to`: the `diff` that `bpf_l4_csum_replace` takes with size 0.
#[inline(always)]
pub const fn delta(from: u32, to: u32) -> u32 {
    add(to, !from)
}

/// A checksum field after its data gained `delta`: HC' = ~(~HC + delta), RFC 1624 equation 3.
#[inline(always)]
pub const fn apply(checksum: u16, delta: u32) -> u16 {
    !fold(add(!checksum as u32 & 0xffff, delta))
}

/// Of what kind a packet's checksum is, which the kernel knows and does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The sum of the pseudo header alone, not complemented: a device is to add the rest (CHECKSUM_PARTIAL), ports and all.
    Unfinished,
    /// As it goes over the wire.
    Finished,
    /// What was seen does not tell.
    Unknown,
}

impl Checksum {
    /// Of what kind a checksum is that `bpf_l4_csum_replace` made `after` of `before` when it was told that an address has gained
    /// `delta`. It takes from one kind what it adds to the other.
    #[inline(always)]
    pub const fn seen(before: u16, after: u16, delta: u32) -> Self {
        let finished = apply(before, delta);
        let unfinished = fold(add(before as u32, delta));
        match (after == finished, after == unfinished) {
            (true, false) => Self::Finished,
            (false, true) => Self::Unfinished,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::addr::Ipv6;

    /// The checksum from scratch, RFC 1071, over 16-bit words in memory order.
    fn checksum(words: &[u16]) -> u16 {
        let mut sum = 0u64;
        for word in words {
            sum += u64::from(*word);
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn an_update_equals_a_fresh_checksum(mut words in prop::collection::vec(any::<u16>(), 4..40), to: u32, at in 0usize..2) {
            // A packet of zeros alone has two representations of zero; a real header never is.
            words.push(1);
            let before = checksum(&words);
            let from = u32::from_ne_bytes([
                words[at * 2].to_ne_bytes()[0], words[at * 2].to_ne_bytes()[1],
                words[at * 2 + 1].to_ne_bytes()[0], words[at * 2 + 1].to_ne_bytes()[1],
            ]);
            let bytes = to.to_ne_bytes();
            words[at * 2] = u16::from_ne_bytes([bytes[0], bytes[1]]);
            words[at * 2 + 1] = u16::from_ne_bytes([bytes[2], bytes[3]]);
            prop_assert_eq!(apply(before, delta(from, to)), checksum(&words));
            prop_assert_eq!(delta(to, to), NOTHING);
        }

        #[test]
        fn a_checksum_shows_its_kind(before: u16, delta: u32) {
            let finished = Checksum::seen(before, apply(before, delta), delta);
            let unfinished = Checksum::seen(before, fold(add(before.into(), delta)), delta);
            // Nothing is seen of what changes nothing, and of UDP's absent checksum.
            if delta % 0xffff == 0 {
                prop_assert_ne!(finished, Checksum::Unfinished);
                prop_assert_ne!(unfinished, Checksum::Finished);
            } else {
                prop_assert_eq!((finished, unfinished), (Checksum::Finished, Checksum::Unfinished));
                prop_assert_eq!(Checksum::seen(before, before, delta), Checksum::Unknown);
            }
        }

        #[test]
        fn addresses_sum_as_their_words(a: [u32; 4], b: [u32; 4]) {
            let words = |x: [u32; 4]| -> Vec<u16> {
                x.iter().flat_map(|w| { let b = w.to_ne_bytes(); [u16::from_ne_bytes([b[0], b[1]]), u16::from_ne_bytes([b[2], b[3]])] }).collect()
            };
            let with = |x| { let mut w = words(x); w.push(1); w };
            prop_assert_eq!(apply(checksum(&with(a)), delta(sum(Ipv6(a)), sum(Ipv6(b)))), checksum(&with(b)));
            let with4 = |x: [u32; 4]| { let mut w = words([x[0], 0, 0, 0]); w.push(1); w };
            prop_assert_eq!(apply(checksum(&with4(a)), delta(sum(Ipv4(a[0])), sum(Ipv4(b[0])))), checksum(&with4(b)));
        }
    }
}
