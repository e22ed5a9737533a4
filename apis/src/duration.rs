//! Durations in text: `1h30m`. Units d, h, m, s, ms, each at most once, largest first; at most 7 days.

use thiserror::Error;

/// Seven days, in milliseconds: the longest duration that can be written.
pub const MAX_MS: u64 = 7 * 24 * 3_600_000;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The text is not a duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// Not of the grammar.
    #[error("not a duration: write numbers with the units d, h, m, s, ms, largest first, as in `1h30m` or `500ms`")]
    Syntax,
    /// Over [`MAX_MS`].
    #[error("longer than 7 days, which is the longest duration")]
    TooLong,
}

/// Reads a duration as milliseconds. `0s` is zero; a number without unit is refused.
pub fn parse(text: &str) -> Result<u64, DurationError> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut smallest = None;
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError::Syntax)?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let at = UNITS.iter().position(|(word, _)| *word == unit).ok_or(DurationError::Syntax)?;
        if number.is_empty() || smallest.is_some_and(|smallest| at <= smallest) {
            return Err(DurationError::Syntax);
        }
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        total = number.checked_mul(UNITS[at].1).and_then(|ms| total.checked_add(ms)).ok_or(DurationError::TooLong)?;
        smallest = Some(at);
        rest = tail;
    }
    if total > MAX_MS { Err(DurationError::TooLong) } else { Ok(total) }
}

/// Writes milliseconds so that [`parse`] reads them back: `1h30m`, `0s`.
pub fn format(ms: u64) -> String {
    let mut rest = ms;
    let mut text = String::new();
    for (unit, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Milliseconds of a proto duration; negative ones are zero, fractions of a millisecond are cut.
pub fn from_proto(duration: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(duration.nanos).unwrap_or(0) / 1_000_000)
}

/// A proto duration of so many milliseconds.
pub fn to_proto(ms: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for ms in [0, 1, 999, 1000, 5_400_000, 86_400_001, MAX_MS] {
            assert_eq!(parse(&format(ms)), Ok(ms), "{}", format(ms));
            assert_eq!(from_proto(&to_proto(ms)), ms);
        }
        assert_eq!(parse("1h30m"), Ok(5_400_000));
        assert_eq!(parse("90m"), Ok(5_400_000));
        assert_eq!(format(5_400_000), "1h30m");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in ["", "5", "-5s", "1y", "1h1h", "1m1h", "5 m", "PT5M", "1.5h", "m", "1H", "1µs", "٣s"] {
            assert_eq!(parse(text), Err(DurationError::Syntax), "{text}");
        }
        for text in ["8d", "99999999999h", "99999999999999999999999h", "7d1ms"] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text}");
        }
    }
}
