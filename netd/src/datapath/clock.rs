//! The kernel's clock: jiffies, which cost a program half a nanosecond where nanoseconds cost 34.

use std::{io, time::Duration};

use netd_common::{event::Sweep, fib::AF_INET};
use nix::time::{ClockId, clock_getres};

use super::{Error, at, programs::Programs};

/// Jiffies in a second, CONFIG_HZ: the coarse clocks step once with each, and clock_getres(2) says how far.
pub(super) fn hz() -> Result<u32, Error> {
    let step = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(io::Error::from);
    Ok(per_second(step.map_err(at("CLOCK_MONOTONIC_COARSE".as_ref()))?.into()))
}

/// The kernel's time.
pub(super) fn now(programs: &Programs) -> Result<u64, Error> {
    let (_, now) = programs.sweep(&Sweep { family: AF_INET, endpoint: Sweep::ANY, ..Sweep::default() })?;
    Ok(now)
}

fn per_second(step: Duration) -> u32 {
    step.as_secs_f64().recip().round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_as_many_jiffies_as_the_kernel_was_built_for() {
        for (step, hz) in [(10_000_000, 100), (4_000_000, 250), (3_333_333, 300), (1_000_000, 1000)] {
            assert_eq!(per_second(Duration::from_nanos(step)), hz);
        }
        assert!([100, 250, 300, 1000].contains(&hz().unwrap()), "this kernel's");
    }
}
