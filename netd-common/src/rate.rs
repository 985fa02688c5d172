//! How fast an endpoint may send: a token bucket, kept as the time at which it will be full again.

use bytemuck::{Pod, Zeroable};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// How fast an endpoint may send: a value of `RATES`, an array indexed by the endpoint's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rate {
    /// 0 for as fast as it can.
    pub bytes_per_second: u64,
    /// How long, in nanoseconds, the rate could be sent at for what may be sent at once.
    pub burst: u64,
}

impl Rate {
    /// Whether a packet may pass at the time `now`, in nanoseconds, if the bucket is full at `full`: when it will be full then.
    ///
    /// This is virtual scheduling (ITU-T I.371 Annex A), with one difference: who finds anything in the bucket passes, whatever
    /// his size, and those after him pay. Segments come in super-frames of up to 192 KB, and a bucket that is smaller would
    /// never let one through.
    #[inline(always)]
    pub const fn pass(self, full: u64, now: u64, bytes: u32) -> Option<u64> {
        if self.bytes_per_second == 0 {
            return Some(full);
        }
        let full = if full > now { full } else { now };
        if full - now > self.burst {
            return None;
        }
        Some(full + bytes as u64 * SECOND / self.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEGABYTE: Rate = Rate { bytes_per_second: 1_000_000, burst: 0 };

    #[test]
    fn one_passes_and_the_next_waits_for_it_to_be_paid() {
        let full = MEGABYTE.pass(0, 5000, 1000).unwrap();
        assert_eq!(full, 5000 + 1_000_000);
        assert_eq!(MEGABYTE.pass(full, full - 1, 1), None);
        assert!(MEGABYTE.pass(full, full, 1).is_some());
    }

    #[test]
    fn a_rest_is_good_for_one_burst_and_no_more() {
        let rate = Rate { burst: 2_000_000, ..MEGABYTE };
        let (mut full, mut passed) = (0, 0);
        while let Some(next) = rate.pass(full, 1 << 40, 1000) {
            (full, passed) = (next, passed + 1);
        }
        assert_eq!(passed, 3, "the burst of two, and the one who finds the last of it");
    }

    #[test]
    fn without_a_rate_everything_passes() {
        assert_eq!(Rate::default().pass(7, 9, u32::MAX), Some(7));
    }

    proptest! {
        #[test]
        fn over_time_it_is_the_rate(
            rate in 1_000u64..10_000_000_000,
            burst in 0u64..SECOND,
            sizes in prop::collection::vec(60u32..196_608, 1..20),
        ) {
            // Somebody who always has a packet, and tries as soon as the bucket may let it through.
            let limit = Rate { bytes_per_second: rate, burst };
            let (mut now, mut full, mut bytes) = (SECOND, 0, 0u64);
            for size in sizes.iter().cycle().take(500) {
                if let Some(next) = limit.pass(full, now, *size) {
                    full = next;
                } else {
                    now = full - burst;
                    full = limit.pass(full, now, *size).unwrap();
                }
                bytes += u64::from(*size);
            }
            let allowed = u128::from(rate) * u128::from(now - SECOND + burst) / u128::from(SECOND);
            // What a packet owes is in whole nanoseconds: each may get what the rate sends in one of them.
            let rounding = 500 * u128::from(rate.div_ceil(SECOND));
            let largest = 196_608;
            prop_assert!(u128::from(bytes) <= allowed + largest + rounding, "{bytes} of {allowed}");
            prop_assert!(u128::from(bytes) + 500 >= allowed.saturating_sub(u128::from(rate) * u128::from(burst) / u128::from(SECOND)));
        }
    }
}
