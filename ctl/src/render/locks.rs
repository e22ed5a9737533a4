//! Locks in words.

use lockstep_apis::{
    timestamp,
    v1alpha::{Lock, LockHold, LockMode, LockUse},
};

use super::safe;

/// The mode as users write it.
pub(crate) fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Read => "Read",
        LockMode::Clean => "Clean",
        LockMode::Write | LockMode::Unspecified => "Write",
    }
}

/// State, who holds it, who waits.
pub(crate) fn cells(lock: &Lock) -> Vec<String> {
    let status = lock.status.clone().unwrap_or_default();
    let state = match &status.poison {
        Some(poison) => format!("Poisoned ({})", poison.run),
        None if status.holders.is_empty() && status.holds.is_empty() => "Free".to_owned(),
        None => "Held".to_owned(),
    };
    let holders = status.holders.iter().map(run).chain(status.holds.iter().map(admin));
    let waiters = status.waiters.iter().map(run);
    vec![state, list(holders), list(waiters)]
}

/// Runs that hold it in a mode that excludes this one.
pub(crate) fn in_the_way(lock: &Lock, mode: LockMode) -> Option<String> {
    let holders = lock.status.iter().flat_map(|status| &status.holders);
    let others = holders.filter(|of| mode != LockMode::Read || of.mode() != LockMode::Read);
    let others: Vec<String> = others.map(|of| format!("run/{}", of.run)).collect();
    (!others.is_empty()).then(|| others.join(", "))
}

/// Whether somebody still holds it for this reason.
pub(crate) fn is_kept_for(lock: &Lock, reason: &str) -> bool {
    lock.status.iter().flat_map(|status| &status.holds).any(|hold| hold.reason == reason)
}

fn list(of: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = of.collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

fn run(of: &LockUse) -> String {
    format!("run/{} ({})", of.run, mode(of.mode()))
}

fn admin(hold: &LockHold) -> String {
    let until = hold.until.as_ref().map(timestamp::format).unwrap_or_default();
    format!("{} ({}, until {until}: {})", hold.owner, mode(hold.mode()), safe(&hold.reason, 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::{LockPoison, LockStatus};

    fn lock() -> Lock {
        let run = |run: &str, mode: LockMode| LockUse { run: run.into(), mode: mode.into() };
        let until = Some(timestamp::from_ms(1_000_000));
        let hold = LockHold { owner: "alice".into(), reason: "disks".into(), until, ..LockHold::default() };
        let status = LockStatus {
            holds: vec![hold],
            holders: vec![run("r", LockMode::Read)],
            waiters: vec![run("s", LockMode::Clean)],
            poison: None,
        };
        Lock { metadata: None, status: Some(status) }
    }

    #[test]
    fn a_lock_says_who_holds_it_and_who_waits() {
        let cells = cells(&lock());
        assert_eq!(cells, ["Held", "run/r (Read), alice (Write, until 1970-01-01T00:16:40Z: disks)", "run/s (Clean)"]);
        let mut poisoned = lock();
        let poison = LockPoison { run: "r".into(), ..LockPoison::default() };
        poisoned.status = Some(LockStatus { poison: Some(poison), ..LockStatus::default() });
        assert_eq!(self::cells(&poisoned), ["Poisoned (r)", "-", "-"]);
    }

    #[test]
    fn readers_are_in_the_way_of_all_but_readers() {
        assert_eq!(in_the_way(&lock(), LockMode::Read), None);
        assert_eq!(in_the_way(&lock(), LockMode::Write).as_deref(), Some("run/r"));
    }
}
