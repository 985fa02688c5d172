//! Endpoint-independent mapping (RFC 4787 section 4.1): one external port for all that a container sends from one of its own,
//! whoever it is sent to.
//!
//! A binding is a record of the flow table like any other, of a flow to nobody in particular. Its two keys name no remote: one
//! is found by what the container sends, the other by what comes to the external port, and inserting that one takes the port.
//! Each flow to a remote still has a record and keys of its own; the binding tells a new one its port, and is *held* by those
//! that the container began or has answered, to their end. Once none holds it, its own time runs: until then nobody else gets the
//! port. Who only sends to the port keeps nothing alive (RFC 7857 section 7).
//!
//! A port of a binding serves no other flow, to any remote, and the other way about. The keys cannot tell: those of a flow
//! that is mapped per remote name the remote. Hence [`Usage`], one number for each port, in which each taker writes itself.

use crate::{
    addr::Be16,
    conntrack::{Clock, State},
    nat::{ACCEPTED, BINDING, BOUND, HOST, OWN_ADDRESS},
    tuple::protocol::{ICMP, ICMPV6, TCP, UDP},
};

/// Whether a record's time is up. `holds` as in [`crate::nat::Flow`].
#[inline(always)]
pub const fn is_expired(clock: Clock, protocol: u8, holds: u64, now: u64, hz: u32) -> bool {
    let is_held = clock.state().0 == State::BOUND.0 && holds > 0;
    !is_held && clock.is_expired(protocol, now, hz)
}

/// Whether another may take the record's place and port although its time may not be up.
///
/// A port of connections that have ended needs no rest (RFC 6888 REQ-8), but for a second: whoever takes hold of a binding writes the
/// time first, so that nobody ends it in between.
#[inline(always)]
pub const fn is_over(clock: Clock, protocol: u8, holds: u64, now: u64, hz: u32) -> bool {
    if clock.state().0 != State::BOUND.0 {
        return clock.state().is_over() || clock.is_expired(protocol, now, hz);
    }
    let is_rested =
        if protocol == TCP { clock.age(now) > hz as u64 } else { clock.is_expired(protocol, now, hz) };
    holds == 0 && is_rested
}

/// Whether flows of the protocol can be bound. SCTP's cannot: its ports are not the NAT's to choose.
#[inline(always)]
pub const fn is_bindable(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | ICMP | ICMPV6)
}

/// How a record takes its external port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Nobody else has it.
    Alone,
    /// Others have it too, towards other remotes.
    Shared,
    /// It takes none: it came to the port, or has its binding's, or no address but its own.
    Nothing,
}

/// How a record with these flags takes its external port.
#[inline(always)]
pub const fn taking(flags: u16, endpoint: u32) -> Taking {
    if flags & BINDING != 0 {
        return Taking::Alone;
    }
    if flags & (ACCEPTED | BOUND) != 0 || flags & OWN_ADDRESS != 0 && endpoint != HOST {
        return Taking::Nothing;
    }
    Taking::Shared
}

/// Ports of one address and protocol.
const PORTS: u32 = 1 << 16;
/// External addresses that are told apart.
const ADDRESSES: u32 = 4;
/// Words of `PORT_USAGE4/6`, each of two ports.
pub const WORDS: u32 = 3 * ADDRESSES * PORTS / 2;

/// Where a port's use is written down: a half of a word of `PORT_USAGE4/6`.
///
/// A few external addresses have numbers of their own. More share them: a port may then be thought taken that is free, never
/// the other way about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Index of the word.
    pub word: u32,
    /// By how many bits its half is shifted.
    pub shift: u32,
}

/// In a port's half of the word: a binding has it. Else it is the number of flows that share it.
const ALONE: u64 = 1 << 31;
const HALF: u64 = (1 << 32) - 1;

impl Usage {
    /// The first of an address's ports, the address given by its last word; `None` for protocols that nothing is bound of.
    #[inline(always)]
    pub const fn first(last_word: u32, protocol: u8) -> Option<u32> {
        let class = match protocol {
            TCP => 0,
            UDP => 1,
            ICMP | ICMPV6 => 2,
            _ => return None,
        };
        // Neighbouring addresses differ in the last bits.
        let address = u32::from_be(last_word) % ADDRESSES;
        Some((class * ADDRESSES + address) * PORTS)
    }

    /// Of a port behind the first.
    #[inline(always)]
    pub const fn at(first: u32, port: Be16) -> Self {
        let port = first + port.get() as u32;
        Self { word: port / 2, shift: port % 2 * 32 }
    }

    /// What to add to the word to share the port, and to subtract when that ends.
    #[inline(always)]
    pub const fn share(self) -> u64 {
        1 << self.shift
    }

    /// What to add to the word to have the port alone, and to subtract when that ends.
    #[inline(always)]
    pub const fn alone(self) -> u64 {
        ALONE << self.shift
    }

    /// Whether a binding has the port.
    #[inline(always)]
    pub const fn is_bound(self, word: u64) -> bool {
        word >> self.shift & ALONE != 0
    }

    /// Whether nobody has the port.
    #[inline(always)]
    pub const fn is_free(self, word: u64) -> bool {
        word >> self.shift & HALF == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{addr::Ipv4, tuple::protocol::SCTP};

    const HZ: u32 = 250;

    fn usage(address: u32, protocol: u8, port: u16) -> Usage {
        Usage::at(Usage::first(address, protocol).unwrap(), Be16::new(port))
    }

    fn seconds(seconds: u64) -> u64 {
        seconds * u64::from(HZ)
    }

    #[test]
    fn a_binding_outlives_its_flows_by_two_minutes() {
        let clock = Clock::new(State::BOUND, 1000);
        for protocol in [UDP, TCP, ICMP] {
            let expired = |holds, after| is_expired(clock, protocol, holds, 1000 + seconds(after), HZ);
            assert!(!expired(1, 100_000), "as long as a flow holds it");
            assert!(!expired(0, 120), "RFC 4787 REQ-5, RFC 6888 REQ-8");
            assert!(expired(0, 121));
        }
        let flow = Clock::new(State::PLAIN, 1000);
        assert!(
            is_expired(flow, UDP, 1, 1000 + seconds(301), HZ),
            "a flow's own hold keeps the binding, not the flow"
        );
    }

    #[test]
    fn ports_of_connections_that_have_ended_need_no_rest() {
        let clock = Clock::new(State::BOUND, 1000);
        let over = |protocol, holds, after| is_over(clock, protocol, holds, 1000 + after, HZ);
        assert!(over(TCP, 0, seconds(1) + 1));
        assert!(!over(TCP, 0, seconds(1)), "somebody may be taking hold of it");
        assert!(!over(TCP, 1, seconds(1000)));
        assert!(!over(UDP, 0, seconds(120)) && over(UDP, 0, seconds(121)));
        assert!(is_over(Clock::new(State::CLOSED, 1000), TCP, 0, 1000, HZ), "flows as ever");
        assert!(!is_over(Clock::new(State::ESTABLISHED, 1000), TCP, 0, 1000 + seconds(7440), HZ));
    }

    #[test]
    fn who_takes_a_port_and_how() {
        assert_eq!(taking(BINDING, 3), Taking::Alone);
        assert_eq!(taking(0, 3), Taking::Shared);
        assert_eq!(taking(BOUND, 3), Taking::Nothing);
        assert_eq!(taking(ACCEPTED, 3), Taking::Nothing);
        assert_eq!(taking(OWN_ADDRESS, 3), Taking::Nothing);
        assert_eq!(taking(OWN_ADDRESS, HOST), Taking::Shared, "the host's own port is an external one");
        assert_eq!(Usage::first(1, SCTP), None);
        assert!(!is_bindable(SCTP) && is_bindable(UDP));
    }

    #[test]
    fn neighbouring_addresses_have_ports_of_their_own() {
        let of = |last| {
            let address = Ipv4::from(core::net::Ipv4Addr::new(203, 0, 113, last));
            usage(address.0, UDP, 5000)
        };
        let four = [of(8), of(9), of(10), of(11)];
        assert!((0..4).all(|i| (0..i).all(|j| four[i] != four[j])));
        assert_eq!(of(8), of(12), "more share them");
    }

    proptest! {
        #[test]
        fn a_port_is_alone_or_shared(address: u32, protocol in prop::sample::select(vec![TCP, UDP, ICMP]), port: u16, before: u64) {
            let usage = usage(address, protocol, port);
            let other = Usage { shift: 32 - usage.shift, ..usage };
            prop_assert!(usage.word < WORDS);
            // Whatever the neighbour in the word is.
            let word = before & !(HALF << usage.shift);
            prop_assert!(usage.is_free(word) && !usage.is_bound(word));
            let alone = word + usage.alone();
            prop_assert!(!usage.is_free(alone) && usage.is_bound(alone));
            prop_assert!(usage.is_bound(alone + usage.share()), "who finds it bound has counted himself already");
            let shared = word + usage.share() + usage.share();
            prop_assert!(!usage.is_free(shared) && !usage.is_bound(shared));
            for changed in [alone, shared] {
                prop_assert_eq!(other.is_free(changed), other.is_free(before));
                prop_assert_eq!(other.is_bound(changed), other.is_bound(before));
            }
        }

        #[test]
        fn two_ports_of_an_address_never_meet(address: u32, a: u16, b: u16) {
            prop_assume!(a != b);
            prop_assert_ne!(usage(address, UDP, a), usage(address, UDP, b));
        }
    }
}
