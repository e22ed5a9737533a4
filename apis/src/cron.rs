//! The schedules of crontab(5), as cron itself reads them: five fields or a word. Knows no clock.

/// The words that stand for five fields, and `@reboot`.
const WORDS: [&str; 8] = ["@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    Field { name: "day of week", least: 0, most: 7, names: &DAYS },
];

/// Whether cron takes the schedule, and whether there is any day on which it is due.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence that begins with the schedule.
pub fn check(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let known = WORDS.contains(&schedule);
        return if known { Ok(()) } else { Err(format!("is none of {}", WORDS.join(", "))) };
    }
    let parts: Vec<&str> = schedule.split([' ', '\t']).filter(|part| !part.is_empty()).collect();
    if parts.len() != FIELDS.len() {
        let wanted = "minute, hour, day of month, month, day of week";
        return Err(format!("has {} fields, not five: {wanted}", parts.len()));
    }
    let mut values = Vec::with_capacity(FIELDS.len());
    for (field, part) in FIELDS.iter().zip(&parts) {
        values.push(field.values(part)?);
    }
    // Where both days are given, either is enough.
    let (days, months) = (&values[2], &values[3]);
    let longest = |month: &u32| [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][*month as usize - 1];
    if parts[4].starts_with('*') && !months.iter().any(|month| days.iter().any(|day| *day <= longest(month))) {
        return Err("is due on no day of any year".to_owned());
    }
    Ok(())
}

impl Field {
    fn values(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut values = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(self.step(step)?)),
                None => (part, None),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((from, to)) => (self.value(from)?, self.value(to)?),
                None if step.is_some() => return Err(format!("has a step after one {}: give a range or *", self.name)),
                None => (self.value(range)?, self.value(range)?),
            };
            if from > to {
                return Err(format!("has a {} range that ends before it begins: {range}", self.name));
            }
            values.extend((from..=to).step_by(step.unwrap_or(1)));
        }
        Ok(values)
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        let value = named.map(|at| at as u32 + self.least).or(number);
        value.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| {
            let text: String = text.chars().take(16).collect();
            format!("has the {} {text:?}, which is not from {} to {}", self.name, self.least, self.most)
        })
    }

    fn step(&self, text: &str) -> Result<usize, String> {
        let step = text.parse().ok().filter(|step| (1..=self.most as usize).contains(step));
        step.ok_or_else(|| format!("has a {} step that is not from 1 to {}", self.name, self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cron_takes_is_taken() {
        for good in [
            "0 0 * * *",
            "*/5 0-23/2 1,15 jan-Mar mon",
            "59 23 31 12 7",
            "0\t4  * * sun",
            "@reboot",
            "@daily",
            "0 0 29 2 *",
            "0 0 31 2 1",
            "1,2,3-5 * * * *",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_cron_would_pass_over_is_refused_with_its_field() {
        for (bad, word) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 0 * * * *", "6 fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of month"),
            ("* * * foo *", "month"),
            ("* * * * 8", "day of week"),
            ("5-1 * * * *", "ends before"),
            ("5/2 * * * *", "step after one"),
            ("*/0 * * * *", "step"),
            ("1, * * * *", "minute"),
            ("-1 * * * *", "minute"),
            ("@dayly", "@daily"),
            ("0 0 30 2 *", "no day"),
            ("0 0 31 4,6 *", "no day"),
        ] {
            let found = check(bad).unwrap_err();
            assert!(found.contains(word), "{bad}: {found}");
        }
    }
}
