//! The wall clock, as a number. The only place of the daemon's shell that asks for it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch. A clock before 1970 is 0.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
