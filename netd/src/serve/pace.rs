//! How many connections may begin within a time.

use std::time::{Duration, Instant};

/// A bucket of tokens, each of which lets one connection begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two tokens.
    interval: Duration,
    /// What a full bucket is worth.
    full: Duration,
    /// When the bucket was empty, were it filled without end.
    empty: Instant,
}

impl Pace {
    /// `rate` connections a second, and at most `burst` at once.
    pub(super) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / rate;
        let full = interval * burst;
        Self { interval, full, empty: now.checked_sub(full).unwrap_or(now) }
    }

    /// How long the next connection has to wait.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        if let Some(fullest) = now.checked_sub(self.full) {
            self.empty = self.empty.max(fullest);
        }
        self.empty += self.interval;
        self.empty.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_one_at_a_time() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut pace = Pace::new(10, 3, now);
        let waits: Vec<_> = (0..5).map(|_| pace.take(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        assert_eq!(pace.take(now + Duration::from_millis(300)), Duration::ZERO);
        let later = now + Duration::from_secs(50);
        let waits: Vec<_> = (0..4).map(|_| pace.take(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
    }
}
