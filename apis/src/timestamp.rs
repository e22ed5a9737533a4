//! Times in text: RFC 3339 with a zone, years 1 to 9999. A leap second (`:60`) is refused: no clock of ours shows one.

use prost_types::Timestamp;

const FORM: &str =
    "not a time: write it as in `2026-01-02T03:04:05Z`, with `Z` or an offset, years 1 to 9999, seconds to 59";

/// Reads a time. The error is a sentence.
pub fn parse(text: &str) -> Result<Timestamp, &'static str> {
    read(text).ok_or(FORM)
}

fn read(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if !text.is_ascii()
        || bytes.len() < 20
        || bytes[4] != b'-'
        || bytes[7] != b'-'
        || bytes[13] != b':'
        || bytes[16] != b':'
    {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't') {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = &text[from..to];
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let day_ok = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !(year >= 1 && day_ok && hour <= 23 && minute <= 59 && second <= 59) {
        return None;
    }
    let (nanos, zone) = fraction(&text[19..])?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    Some(Timestamp { seconds, nanos })
}

/// Nanoseconds and what follows.
fn fraction(text: &str) -> Option<(i32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let nanos: i32 = format!("{:0<9}", &rest[..digits]).parse().ok()?;
    Some((nanos, &rest[digits..]))
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| {
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<i64>().ok() } else { None }
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Writes a time in UTC so that [`parse`] reads it back.
pub fn format(time: &Timestamp) -> String {
    let (days, rest) = (time.seconds.div_euclid(86_400), time.seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let fraction = match time.nanos {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A time of so many milliseconds since 1970.
pub fn from_ms(ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// Milliseconds since 1970; 0 for times before.
pub fn to_ms(time: &Timestamp) -> u64 {
    u64::try_from(time.seconds)
        .map_or(0, |s| s.saturating_mul(1000) + u64::try_from(time.nanos / 1_000_000).unwrap_or(0))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: years begin in March, eras have 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_year = (5 * of_year + 2) / 153;
    let month = if month_of_year < 10 { month_of_year + 3 } else { month_of_year - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * month_of_year + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_and_offsets_count() {
        for text in
            ["1970-01-01T00:00:00Z", "2024-02-29T23:59:59.5Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"]
        {
            assert_eq!(format(&parse(text).unwrap()), text);
        }
        assert_eq!(parse("2026-01-02T03:04:05+01:30").unwrap(), parse("2026-01-02T01:34:05Z").unwrap());
        assert_eq!(parse("2000-03-01T00:00:00Z").unwrap().seconds, 951_868_800);
        assert_eq!(to_ms(&from_ms(1_700_000_000_123)), 1_700_000_000_123);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:60Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "now",
            "",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-0é-01T00:00:00Z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
