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

/// As much as waits for a twentieth of a second.
const WAITING: u64 = 20;
/// Two super-frames: of less, TCP loses what it has just sent.
const LEAST_WAITING: u64 = 2 * 65_536;
/// What Ethernet adds to a packet, a VLAN's tag included.
const HEADER: u32 = 18;

impl Queue {
    /// The queue for a rate at a link whose packets have up to `mtu` bytes.
    pub fn new(rate: Rate, mtu: u32) -> Self {
        let bytes_per_second = rate.bytes_per_second();
        // A frame that is larger than the bucket never passes. Super-frames are cut.
        let burst = (rate.burst.0 / 8).max(u64::from(mtu + HEADER));
        let ticks = (u128::from(burst) * 1_000_000_000).div_ceil(u128::from(bytes_per_second) * 64);
        let waiting = (bytes_per_second / WAITING).max(LEAST_WAITING);
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
    fn a_queue_takes_a_frame_and_holds_two_super_frames() {
        let rate = |per_second: u64, burst: u64| Rate { per_second: Bits(per_second), burst: Bits(burst) };
        for (rate, mtu, queue) in [
            // 20 ms at once, 50 ms in wait.
            (rate(100_000_000, 2_000_000), 1500, (12_500_000, 312_500, 625_000)),
            // 1518 bytes at 1 MB/s: 1.518 ms.
            (rate(8_000_000, 8), 1500, (1_000_000, 23_719, 131_072)),
            // What has no end has the greatest.
            (rate(1_000, 8 << 32), 1500, (125, u32::MAX, 131_072)),
            (rate(1_000_000_000_000, 8_000_000), 1500, (125_000_000_000, 125, u32::MAX)),
        ] {
            let (bytes_per_second, burst, waiting) = queue;
            assert_eq!(Queue::new(rate, mtu), Queue { bytes_per_second, burst, waiting });
        }
    }
}
