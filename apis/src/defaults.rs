//! What is assumed where a field is absent, read from the protos' `default_text`. Stored objects hold only what was given.

use crate::{
    descriptor, duration,
    v1alpha::{Concurrency, ConcurrencyPolicy, ConfigSpec, LockMode, LockRequest, RunDefaults, RunOptions, Task},
};

impl ConfigSpec {
    /// Milliseconds between two signs of life of an agent.
    pub fn heartbeat_ms(&self) -> u64 {
        or_default_ms(self.heartbeat.as_ref(), "ConfigSpec", "heartbeat")
    }

    /// Milliseconds between two looks of a node for changed facts.
    pub fn facts_interval_ms(&self) -> u64 {
        or_default_ms(self.facts_interval.as_ref(), "ConfigSpec", "factsInterval")
    }

    /// Most bytes of output kept of one task on one node.
    pub fn output_bytes(&self) -> u64 {
        let given = self.limits.as_ref().map_or(0, |limits| limits.output_bytes);
        u64::try_from(or_default(given, "Limits", "outputBytes")).unwrap_or(0)
    }

    /// Ended Runs kept in each namespace.
    pub fn retained_runs(&self) -> usize {
        let given = self.retention.as_ref().map_or(0, |retention| i64::from(retention.runs));
        usize::try_from(or_default(given, "Retention", "runs")).unwrap_or(usize::MAX)
    }

    /// Milliseconds that ended Runs are kept.
    pub fn retained_run_age_ms(&self) -> u64 {
        const DAY_MS: u64 = 24 * 3_600_000;
        let given = self.retention.as_ref().map_or(0, |retention| i64::from(retention.run_days));
        u64::try_from(or_default(given, "Retention", "runDays")).unwrap_or(0).saturating_mul(DAY_MS)
    }

    /// Milliseconds that events are kept.
    pub fn retained_events_ms(&self) -> u64 {
        or_default_ms(self.retention.as_ref().and_then(|retention| retention.events.as_ref()), "Retention", "events")
    }

    /// Events kept in each namespace.
    pub fn retained_event_count(&self) -> usize {
        let given = self.retention.as_ref().map_or(0, |retention| retention.event_count);
        usize::try_from(or_default(given, "Retention", "eventCount")).unwrap_or(usize::MAX)
    }

    /// Milliseconds from a Run's creation to its timeout, where neither book nor Run says.
    pub fn run_timeout_ms(&self) -> u64 {
        self.run_defaults.as_ref().map_or_else(|| RunDefaults::default().timeout_ms(), RunDefaults::timeout_ms)
    }

    /// Milliseconds between SIGTERM and SIGKILL, where neither book nor Run says.
    pub fn run_grace_ms(&self) -> u64 {
        self.run_defaults.as_ref().map_or_else(|| RunDefaults::default().grace_ms(), RunDefaults::grace_ms)
    }
}

impl Concurrency {
    /// The policy, or the default.
    pub fn given_policy(&self) -> ConcurrencyPolicy {
        match self.policy() {
            ConcurrencyPolicy::Unspecified => ConcurrencyPolicy::Queue,
            given => given,
        }
    }
}

impl RunDefaults {
    fn timeout_ms(&self) -> u64 {
        or_default_ms(self.timeout.as_ref(), "RunDefaults", "timeout")
    }

    fn grace_ms(&self) -> u64 {
        or_default_ms(self.grace.as_ref(), "RunDefaults", "grace")
    }
}

impl RunOptions {
    /// The timeout in milliseconds, if it is given here.
    pub fn given_timeout_ms(&self) -> Option<u64> {
        self.timeout.as_ref().map(duration::from_proto)
    }

    /// The grace in milliseconds, if it is given here.
    pub fn given_grace_ms(&self) -> Option<u64> {
        self.grace.as_ref().map(duration::from_proto)
    }
}

impl LockRequest {
    /// The mode, Write where none is given.
    pub fn mode_or_default(&self) -> LockMode {
        match self.mode() {
            LockMode::Unspecified => LockMode::Write,
            given => given,
        }
    }
}

impl Task {
    /// The timeout in milliseconds.
    pub fn timeout_ms(&self) -> u64 {
        or_default_ms(self.timeout.as_ref(), "Task", "timeout")
    }

    /// The id: as given, else the name in lower case with `_` for what is no ASCII letter or digit. Empty without both.
    pub fn effective_id(&self) -> String {
        if !self.id.is_empty() {
            return self.id.clone();
        }
        let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        self.name.chars().map(word).collect()
    }
}

fn or_default_ms(given: Option<&prost_types::Duration>, message: &str, field: &str) -> u64 {
    match given {
        Some(given) => duration::from_proto(given),
        None => duration::parse(text(message, field)).expect("invariant: the default in the proto is a duration"),
    }
}

/// 0 is absence: no such field allows it.
fn or_default(given: i64, message: &str, field: &str) -> i64 {
    match given {
        0 => text(message, field).parse().expect("invariant: the default in the proto is a number"),
        given => given,
    }
}

fn text(message: &str, field: &str) -> &'static str {
    let field = descriptor::table().message(message).field(field);
    &field.expect("invariant: the field is in our protos").rules.default_text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1alpha::Limits;

    #[test]
    fn every_default_of_the_protos_is_read_and_gives_way_to_what_is_given() {
        let empty = ConfigSpec::default();
        assert_eq!((empty.heartbeat_ms(), empty.output_bytes(), empty.retained_runs()), (10_000, 10 << 20, 1000));
        assert_eq!(empty.retained_run_age_ms(), 30 * 24 * 3_600_000);
        assert_eq!((empty.retained_events_ms(), empty.retained_event_count()), (72 * 3_600_000, 100_000));
        assert_eq!((empty.run_timeout_ms(), empty.run_grace_ms()), (24 * 3_600_000, 10_000));
        assert_eq!(
            (Task::default().timeout_ms(), LockRequest::default().mode_or_default()),
            (600_000, LockMode::Write)
        );
        let given = ConfigSpec { limits: Some(Limits { output_bytes: 5000 }), ..ConfigSpec::default() };
        assert_eq!(given.output_bytes(), 5000);
    }

    #[test]
    fn an_id_comes_from_the_name() {
        let task = |name: &str, id: &str| Task { name: name.into(), id: id.into(), ..Task::default() }.effective_id();
        assert_eq!((task("Make token!", ""), task("x", "own")), ("make_token_".into(), "own".into()));
    }
}
