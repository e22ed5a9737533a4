//! The wall clock, as a number, and the clock since boot. The only place of the daemon's shell that asks for them.

use std::time::{SystemTime, UNIX_EPOCH};

pub use lockstep_executor::guard::boot_ms;

/// Milliseconds since the epoch. A clock before 1970 is 0.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
