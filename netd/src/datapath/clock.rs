//! The kernel's clock: jiffies, which cost a program half a nanosecond where nanoseconds cost 34.

use std::{
    thread,
    time::{Duration, Instant},
};

use netd_common::{event::Sweep, fib::AF_INET};

use super::{Error, maps::Maps, programs::Programs};

/// What CONFIG_HZ can be.
const KNOWN: [u32; 4] = [100, 250, 300, 1000];

/// Long enough to tell 250 from 300 with a tick to spare at each end.
const SPAN: Duration = Duration::from_millis(120);

/// Jiffies in a second. The kernel does not tell, so they are counted once and then kept in the pinned `GLOBALS`.
pub(super) fn hz(maps: &Maps, programs: &Programs) -> Result<u32, Error> {
    let known = maps.globals()?.hz;
    if known != 0 {
        return Ok(known);
    }
    let (began, first) = (Instant::now(), now(programs)?);
    thread::sleep(SPAN);
    let (last, took) = (now(programs)?, began.elapsed());
    Ok(nearest(last.saturating_sub(first), took))
}

/// The kernel's time.
pub(super) fn now(programs: &Programs) -> Result<u64, Error> {
    let (_, now) = programs.sweep(&Sweep { family: AF_INET, endpoint: Sweep::ANY, ..Sweep::default() })?;
    Ok(now)
}

fn nearest(ticks: u64, took: Duration) -> u32 {
    let measured = ticks as f64 / took.as_secs_f64();
    KNOWN
        .into_iter()
        .min_by(|a, b| (f64::from(*a) - measured).abs().total_cmp(&(f64::from(*b) - measured).abs()))
        .unwrap_or(KNOWN[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_more_or_less_does_not_matter() {
        for hz in KNOWN {
            let ticks = u64::from(hz) * SPAN.as_millis() as u64 / 1000;
            for ticks in [ticks - 1, ticks, ticks + 1] {
                assert_eq!(nearest(ticks, SPAN), hz, "{ticks} ticks");
            }
        }
    }
}
