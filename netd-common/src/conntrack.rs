//! States of a flow and how long each lasts without traffic.
//!
//! TCP follows RFC 6146 section 3.5.2.2 with the timers of RFC 5382 and RFC 7857. Flags and time are arguments; nothing
//! here reads a clock.

use bytemuck::{Pod, Zeroable};

use crate::{limits, tuple::protocol};

/// TCP flags, as in byte 13 of the header.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// Who sends a packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// He sent the flow's first packet.
    pub opener: bool,
    /// The first packet came to a published port.
    pub accepted: bool,
}

/// Where a flow stands. A `u8` in memory: see [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct State(pub u8);

impl State {
    /// The record is free, or about to be.
    pub const DEAD: Self = Self(0);
    /// A protocol without states of its own: UDP, ICMP echo, SCTP.
    pub const PLAIN: Self = Self(1);
    /// TCP: one side has spoken, the other has not ("V6 INIT" in RFC 6146).
    pub const OPENING: Self = Self(2);
    /// TCP: both have spoken.
    pub const ESTABLISHED: Self = Self(3);
    /// TCP: the opener has closed its half.
    pub const FIN_OUT: Self = Self(4);
    /// TCP: the other side has closed its half.
    pub const FIN_IN: Self = Self(5);
    /// TCP: both have closed.
    pub const CLOSED: Self = Self(6);
    /// TCP: one has reset; data from either side takes it back, for the reset may be forged ("TRANS" in RFC 6146).
    pub const RESET: Self = Self(7);
    /// TCP: somebody has come to a published port, and the container has not answered.
    pub const KNOCKING: Self = Self(8);
    /// TCP: the container has answered who came to a published port; that he got it is not known, for he may be made up.
    pub const ANSWERED: Self = Self(9);
    /// As [`Self::PLAIN`], but it came to a published port and the container has not answered.
    pub const UNANSWERED: Self = Self(10);
    /// No flow's state, but a binding's.
    pub const BOUND: Self = Self(11);

    /// The name in tables, for a flow that the container opened; or, if `accepted`, the remote.
    pub const fn name(self, accepted: bool) -> &'static str {
        match self {
            Self::FIN_OUT if accepted => "fin-in",
            Self::FIN_IN if accepted => "fin-out",
            Self::PLAIN => "active",
            Self::UNANSWERED => "unanswered",
            Self::BOUND => "bound",
            Self::KNOCKING => "knocking",
            Self::ANSWERED => "answered",
            Self::OPENING => "opening",
            Self::ESTABLISHED => "established",
            Self::FIN_OUT => "fin-out",
            Self::FIN_IN => "fin-in",
            Self::CLOSED => "closed",
            Self::RESET => "reset",
            _ => "dead",
        }
    }

    /// The state of a flow whose first packet is this one; `accepted`: it came to a published port.
    #[inline(always)]
    pub const fn first(protocol: u8, accepted: bool) -> Self {
        match (protocol == protocol::TCP, accepted) {
            (true, false) => Self::OPENING,
            (true, true) => Self::KNOCKING,
            (false, false) => Self::PLAIN,
            (false, true) => Self::UNANSWERED,
        }
    }

    /// Whether a packet with TCP `flags` leaves the state as it is, whoever sends it: as nearly all do.
    #[inline(always)]
    pub const fn is_steady(self, tcp: u8) -> bool {
        matches!(self, Self::PLAIN)
            || matches!(self, Self::ESTABLISHED) && tcp & (flags::FIN | flags::RST) == 0
    }

    /// The state after a packet from this side with TCP `flags`.
    #[inline(always)]
    pub const fn after(self, side: Side, tcp: u8) -> Self {
        if matches!(self, Self::PLAIN | Self::DEAD | Self::BOUND) {
            return self;
        }
        if matches!(self, Self::UNANSWERED) {
            return if side.opener { self } else { Self::PLAIN };
        }
        if tcp & flags::RST != 0 {
            return Self::RESET;
        }
        match self {
            // Only a segment from the other side proves that it is there.
            Self::OPENING if !side.opener => Self::ESTABLISHED,
            Self::KNOCKING if !side.opener => Self::ANSWERED,
            // Who confirms the answer is no forger of addresses; but not who asks again.
            Self::ANSWERED if side.opener && tcp & (flags::SYN | flags::ACK) == flags::ACK => {
                if tcp & flags::FIN != 0 { Self::FIN_OUT } else { Self::ESTABLISHED }
            }
            Self::ESTABLISHED | Self::RESET if tcp & flags::FIN != 0 => {
                if side.opener {
                    Self::FIN_OUT
                } else {
                    Self::FIN_IN
                }
            }
            Self::FIN_OUT if !side.opener && tcp & flags::FIN != 0 => Self::CLOSED,
            Self::FIN_IN if side.opener && tcp & flags::FIN != 0 => Self::CLOSED,
            // The opener opens the same connection again.
            Self::CLOSED | Self::RESET if side.opener && tcp & (flags::SYN | flags::ACK) == flags::SYN => {
                if side.accepted {
                    Self::KNOCKING
                } else {
                    Self::OPENING
                }
            }
            Self::RESET => Self::ESTABLISHED,
            _ => self,
        }
    }

    /// Seconds without traffic after which the flow ends.
    #[inline(always)]
    pub const fn timeout(self, protocol: u8) -> u32 {
        match self {
            // RFC 5382 REQ-5: established at least 2 hours 4 minutes, transitory at least 4 minutes.
            Self::ESTABLISHED | Self::FIN_OUT | Self::FIN_IN => 7440,
            Self::OPENING | Self::CLOSED | Self::RESET => 240,
            // No mapping of a container's, and anybody can make many of them.
            Self::KNOCKING | Self::ANSWERED => 60,
            Self::UNANSWERED => 30,
            // Since a flow held it. RFC 6888 REQ-8: nobody else gets the port for 120 s.
            Self::BOUND => 120,
            // RFC 5508 REQ-2: at least 60 s. RFC 4787 REQ-5: at least 2 minutes, 5 recommended.
            _ if protocol == protocol::ICMP || protocol == protocol::ICMPV6 => 60,
            _ => 300,
        }
    }

    /// Whether a new flow may take this one's place although its time is not up: both sides have ended it, or it never
    /// came to more than a first packet from who may be made up.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            Self::DEAD | Self::CLOSED | Self::RESET | Self::KNOCKING | Self::ANSWERED | Self::UNANSWERED
        )
    }

    /// Whether packets in this state keep the flow alive. RFC 7857 section 2.2: after a reset only what takes it back does;
    /// RFC 6146: after both FINs nothing does.
    #[inline(always)]
    pub const fn is_refreshed(self) -> bool {
        !matches!(self, Self::DEAD | Self::CLOSED | Self::RESET | Self::KNOCKING | Self::ANSWERED)
    }
}

/// A flow's state and the time it was last refreshed, in one word so that both change at once:
/// whoever ends a flow does it by compare-and-swap against the word that it judged, and fails if a packet came between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Clock(pub u64);

impl Clock {
    /// `jiffies` as `bpf_jiffies64` gives them.
    #[inline(always)]
    pub const fn new(state: State, jiffies: u64) -> Self {
        Self(jiffies << 8 | state.0 as u64)
    }

    /// The state.
    #[inline(always)]
    pub const fn state(self) -> State {
        State(self.0 as u8)
    }

    /// When the flow was last refreshed, in jiffies (their lower 56 bits).
    #[inline(always)]
    pub const fn jiffies(self) -> u64 {
        self.0 >> 8
    }

    /// Jiffies since the last refresh. A clock that is ahead of `now` (another CPU wrote it) is as fresh as can be.
    #[inline(always)]
    pub const fn age(self, now: u64) -> u64 {
        (now & (u64::MAX >> 8)).saturating_sub(self.jiffies())
    }

    /// Whether the flow has outlived its time.
    #[inline(always)]
    pub const fn is_expired(self, protocol: u8, now: u64, hz: u32) -> bool {
        self.age(now) > self.state().timeout(protocol) as u64 * hz as u64
    }

    /// How long a flow has gone without an answer that began at `created`, before the packet at `now`.
    #[inline(always)]
    pub const fn silence(self, created: u64, now: u64, hz: u32) -> Silence {
        if self.age(now) > limits::NEIGHBOUR_MEMORY * hz as u64 {
            Silence::Broken
        } else if now.wrapping_sub(created) >= limits::NEIGHBOUR_PATIENCE * hz as u64 {
            Silence::Long
        } else {
            Silence::Short
        }
    }

    /// What the word becomes after a packet that leads to `state`, or `None` if it need not be written: the state stays and
    /// the last refresh is less than a second ago.
    #[inline(always)]
    pub const fn after(self, state: State, now: u64, hz: u32) -> Option<Self> {
        if state.0 != self.state().0 {
            return Some(Self::new(state, now));
        }
        if state.is_refreshed() && self.age(now) > hz as u64 { Some(Self::new(state, now)) } else { None }
    }
}

/// What may be made of it that a flow has had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing yet.
    Short,
    /// The kernel has had the time to ask the link for the next hop, and a reason to: it knows by now whether anybody has it.
    Long,
    /// The flow has sent nothing for so long that the kernel may have forgotten a neighbour that is there.
    Broken,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{flags::*, *};

    const HZ: u32 = 250;
    const OUTBOUND: Side = Side { opener: true, accepted: false };
    const INBOUND: Side = Side { opener: false, accepted: false };
    const CLIENT: Side = Side { opener: true, accepted: true };
    const SERVER: Side = Side { opener: false, accepted: true };

    fn walk(packets: &[(Side, u8)]) -> State {
        let accepted = packets.first().is_some_and(|(side, _)| side.accepted);
        packets
            .iter()
            .fold(State::first(protocol::TCP, accepted), |state, (side, tcp)| state.after(*side, *tcp))
    }

    #[test]
    fn who_comes_to_a_published_port_has_to_confirm_the_answer() {
        let knock = [(CLIENT, SYN), (CLIENT, SYN)];
        assert_eq!(walk(&knock), State::KNOCKING);
        let answered = [&knock[..], &[(SERVER, SYN | ACK), (SERVER, SYN | ACK), (CLIENT, SYN)]].concat();
        assert_eq!(walk(&answered), State::ANSWERED);
        assert!(walk(&answered).is_over() && !walk(&answered).is_refreshed());
        let open = [&answered[..], &[(CLIENT, ACK)]].concat();
        assert_eq!(walk(&open), State::ESTABLISHED);
        let closed = [&open[..], &[(SERVER, FIN | ACK), (CLIENT, FIN | ACK)]].concat();
        assert_eq!(walk(&closed), State::CLOSED);
        assert_eq!(walk(&[&closed[..], &[(CLIENT, SYN)]].concat()), State::KNOCKING);
        assert_eq!(walk(&[(CLIENT, SYN), (SERVER, RST | ACK)]), State::RESET);
        assert_eq!(State::FIN_OUT.name(true), "fin-in", "the container has not closed yet");
    }

    #[test]
    fn a_datagram_to_a_published_port_counts_once_it_is_answered() {
        let first = State::first(protocol::UDP, true);
        assert_eq!(first.after(CLIENT, 0), State::UNANSWERED);
        assert_eq!(first.after(SERVER, 0), State::PLAIN);
        assert!(first.is_over() && first.is_refreshed());
    }

    #[test]
    fn a_connection_lives_and_dies() {
        let open = [(OUTBOUND, SYN), (INBOUND, SYN | ACK), (OUTBOUND, ACK)];
        assert_eq!(walk(&open), State::ESTABLISHED);
        assert_eq!(walk(&[&open[..], &[(OUTBOUND, FIN | ACK)]].concat()), State::FIN_OUT);
        assert_eq!(walk(&[&open[..], &[(INBOUND, FIN | ACK)]].concat()), State::FIN_IN);
        let closed = [&open[..], &[(OUTBOUND, FIN | ACK), (INBOUND, FIN | ACK), (OUTBOUND, ACK)]].concat();
        assert_eq!(walk(&closed), State::CLOSED);
        assert_eq!(walk(&[&closed[..], &[(OUTBOUND, SYN)]].concat()), State::OPENING);
    }

    #[test]
    fn simultaneous_open_is_an_open() {
        // RFC 5382 REQ-2a.
        assert_eq!(walk(&[(OUTBOUND, SYN), (INBOUND, SYN), (OUTBOUND, SYN | ACK)]), State::ESTABLISHED);
    }

    #[test]
    fn a_forged_reset_is_taken_back_by_data() {
        let reset = [(OUTBOUND, SYN), (INBOUND, SYN | ACK), (INBOUND, RST)];
        assert_eq!(walk(&reset), State::RESET);
        assert_eq!(walk(&[&reset[..], &[(INBOUND, RST)]].concat()), State::RESET);
        assert_eq!(walk(&[&reset[..], &[(OUTBOUND, ACK)]].concat()), State::ESTABLISHED);
    }

    #[test]
    fn only_the_remote_establishes() {
        assert_eq!(walk(&[(OUTBOUND, SYN), (OUTBOUND, SYN), (OUTBOUND, ACK)]), State::OPENING);
    }

    #[test]
    fn timers_are_those_of_the_rfcs() {
        let at = |state: State, protocol, seconds: u64| {
            Clock::new(state, 1000).is_expired(protocol, 1000 + seconds * u64::from(HZ), HZ)
        };
        assert!(!at(State::ESTABLISHED, protocol::TCP, 7440));
        assert!(at(State::ESTABLISHED, protocol::TCP, 7441));
        assert!(!at(State::OPENING, protocol::TCP, 240));
        assert!(at(State::CLOSED, protocol::TCP, 241));
        assert!(!at(State::PLAIN, protocol::UDP, 300));
        assert!(at(State::PLAIN, protocol::UDP, 301));
        assert!(!at(State::PLAIN, protocol::ICMP, 60));
        assert!(at(State::PLAIN, protocol::ICMPV6, 61));
    }

    #[test]
    fn a_packet_a_second_keeps_a_flow_and_more_write_nothing() {
        let clock = Clock::new(State::PLAIN, 1000);
        assert_eq!(clock.after(State::PLAIN, 1000 + u64::from(HZ), HZ), None);
        assert_eq!(clock.after(State::PLAIN, 1001 + u64::from(HZ), HZ), Some(Clock::new(State::PLAIN, 1251)));
        // A resent RST does not keep a reset flow (RFC 7857 section 2.2).
        assert_eq!(Clock::new(State::RESET, 1000).after(State::RESET.after(INBOUND, RST), 100_000, HZ), None);
    }

    #[test]
    fn another_cpu_may_be_ahead() {
        let clock = Clock::new(State::PLAIN, 2000);
        assert_eq!(clock.age(1999), 0);
        assert!(!clock.is_expired(protocol::UDP, 0, HZ));
    }

    proptest! {
        #[test]
        fn no_packet_revives_the_dead(opener: bool, accepted: bool, tcp: u8) {
            prop_assert_eq!(State::DEAD.after(Side { opener, accepted }, tcp), State::DEAD);
        }

        #[test]
        fn a_steady_state_stays(state in 0u8..12, opener: bool, accepted: bool, tcp: u8) {
            let state = State(state);
            let after = state.after(Side { opener, accepted }, tcp);
            prop_assert!(!state.is_steady(tcp) || after == state);
        }

        #[test]
        fn a_state_is_always_a_known_one(
            accepted: bool,
            packets in prop::collection::vec((any::<bool>(), any::<u8>()), 0..40),
        ) {
            let packets: Vec<_> =
                packets.into_iter().map(|(opener, tcp)| (Side { opener, accepted }, tcp)).collect();
            let state = walk(&packets);
            prop_assert!((State::OPENING.0..=State::ANSWERED.0).contains(&state.0));
            prop_assert!(accepted || state.0 <= State::RESET.0);
        }

        #[test]
        fn clock_keeps_both_halves(state in 0u8..12, jiffies in 0u64..1 << 56) {
            let clock = Clock::new(State(state), jiffies);
            prop_assert_eq!((clock.state(), clock.jiffies()), (State(state), jiffies));
        }
    }

    #[test]
    fn a_neighbour_is_asked_before_it_is_missed() {
        let hz = u64::from(HZ);
        let after = |begun: u64, sent: u64| {
            let now = 1000 * hz;
            Clock::new(State::PLAIN, now - sent).silence(now - begun, now, HZ)
        };
        for (begun, sent, silence) in [
            (0, 0, Silence::Short),
            (3 * hz - 1, 0, Silence::Short),
            (3 * hz, 0, Silence::Long),
            (5 * hz, 5 * hz, Silence::Long),
            (900 * hz, 30 * hz, Silence::Long),
            (900 * hz, 30 * hz + 1, Silence::Broken),
        ] {
            assert_eq!(after(begun, sent), silence, "{begun} {sent}");
        }
    }
}
