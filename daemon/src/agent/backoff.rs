//! How long to wait before the next connection: longer each time, never the same for all agents.

use std::time::Duration;

/// First ceiling; doubles with each failure,
const FIRST: Duration = Duration::from_millis(100);

/// up to this: a thousand agents then make 130 attempts a second in the mean.
const LAST: Duration = Duration::from_secs(15);

/// A session that lasted so long was a good one: the next begins afresh.
const GOOD: Duration = Duration::from_secs(10);

/// Full jitter: anything from nothing to the ceiling.
pub(super) struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { ceiling: FIRST }
    }

    /// The pause after a session, or an attempt at one, that lasted so long.
    pub(super) fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= GOOD {
            self.ceiling = FIRST;
        }
        let share = f64::from(u16::from_le_bytes(crate::identity::random())) / f64::from(u16::MAX);
        let pause = self.ceiling.mul_f64(share);
        self.ceiling = (self.ceiling * 2).min(LAST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_ceiling_and_begin_anew_after_a_good_session() {
        let mut backoff = Backoff::new();
        assert!(backoff.after(Duration::ZERO) <= FIRST);
        for _ in 0..20 {
            assert!(backoff.after(Duration::ZERO) <= LAST);
        }
        assert_eq!(backoff.ceiling, LAST);
        assert!(backoff.after(GOOD) <= FIRST);
    }
}
