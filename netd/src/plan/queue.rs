//! How much a link lets out, and how much waits for its turn there.

use crate::model::Rate;

/// The queue of a link that lets out only so much: a token bucket, the kernel's `tbf`.
///
/// It counts frames as they are on the wire, their Ethernet headers included: of a super-frame, each of its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The rate.
    pub bytes_per_second: u64,
    /// How long the rate goes on for what may pass at once, in ticks of 64 ns, as the kernel keeps it.
    pub burst: u32,
    /// Bytes that may wait.
    pub waiting: u32,
}

/// A twentieth of a second's worth may wait.
const WAITING: u64 = 20;
/// At least two super-frames: of less, TCP loses what it has just sent.
const SUPER_FRAMES: u64 = 2 * 65_536;
/// But half a second's worth at most: a sender whose packets wait for seconds takes them for lost, and sends them again.
const SLOW_WAITING: u64 = 2;
/// And that many packets at any rate: TCP begins with them (RFC 6928).
const PACKETS: u64 = 10;
/// What Ethernet adds to a packet, a VLAN's tag included.
const HEADER: u32 = 18;

impl Queue {
    /// The queue for a rate at a link whose packets have up to `mtu` bytes.
    pub fn new(rate: Rate, mtu: u32) -> Self {
        let bytes_per_second = rate.bytes_per_second();
        // A frame that is larger than the bucket never passes. Super-frames are cut.
        let frame = u64::from(mtu + HEADER);
        let burst = (rate.burst.0 / 8).max(frame);
        let ticks = (u128::from(burst) * 1_000_000_000).div_ceil(u128::from(bytes_per_second) * 64);
        let least = (bytes_per_second / SLOW_WAITING).max(PACKETS * frame).min(SUPER_FRAMES);
        let waiting = (bytes_per_second / WAITING).max(least);
        Self {
            bytes_per_second,
            burst: u32::try_from(ticks).unwrap_or(u32::MAX),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bits;

    #[test]
    fn a_queue_takes_a_frame_and_holds_two_super_frames_or_half_a_second() {
        let rate = |per_second: u64, burst: u64| Rate { per_second: Bits(per_second), burst: Bits(burst) };
        for (rate, mtu, queue) in [
            // 20 ms at once, 50 ms in wait.
            (rate(100_000_000, 2_000_000), 1500, (12_500_000, 312_500, 625_000)),
            // 1518 bytes at 1 MB/s: 1.518 ms.
            (rate(8_000_000, 8), 1500, (1_000_000, 23_719, 131_072)),
            // Half a second, or ten frames.
            (rate(800_000, 8), 1500, (100_000, 237_188, 50_000)),
            // What has no end has the greatest.
            (rate(1_000, 8 << 32), 1500, (125, u32::MAX, 15_180)),
            (rate(1_000_000_000_000, 8_000_000), 1500, (125_000_000_000, 125, u32::MAX)),
        ] {
            let (bytes_per_second, burst, waiting) = queue;
            assert_eq!(Queue::new(rate, mtu), Queue { bytes_per_second, burst, waiting });
        }
    }
}
