//! What admins do with locks, and what that means for Runs.

use lockstep_apis::v1alpha::{Outcome, RunPhase};

use super::*;
use crate::fixture::{Fixture, START_MS, plan, with_lock, with_poison};
use crate::protocol::{cancel, remove};

fn hold(owner: &str, mode: LockMode, until_ms: u64) -> LockHold {
    LockHold {
        owner: owner.into(),
        owner_uid: format!("uid-{owner}"),
        mode: mode.into(),
        reason: "disks are swapped".into(),
        since: None,
        until: Some(timestamp::from_ms(until_ms)),
    }
}

fn new_lock() -> Metadata {
    Metadata { name: "l".into(), namespace: "shop".into(), ..Metadata::default() }
}

impl Fixture {
    fn acquire(&mut self, owner: &str, mode: LockMode) -> Result<(), Refusal> {
        let commit = acquire_lock(&self.world, new_lock(), hold(owner, mode, self.now_ms + 5000))?;
        self.commit(commit).unwrap();
        self.settle();
        Ok(())
    }

    fn status(&self) -> LockStatus {
        self.world.lock("shop", "l").and_then(|lock| lock.value.status.clone()).unwrap_or_default()
    }

    /// What the Run waits for: reason, message, who is in the way.
    fn waits(&self, run: &str) -> (String, String, String) {
        let of = &self.step().why[run][0];
        (of.reason.clone(), of.message.clone(), of.behind.clone())
    }
}

#[test]
fn what_an_admin_holds_no_run_gets_and_the_reason_names_who_and_why() {
    let mut f = Fixture::new();
    f.acquire("alice", LockMode::Write).unwrap();
    f.admit(with_lock(plan("r", &["a"], 1), "l", LockMode::Read));
    f.settle();
    assert_eq!(f.offered(), Vec::<String>::new());
    let (reason, message, behind) = f.waits("r");
    assert_eq!((reason.as_str(), behind.as_str()), ("LockHeld", "user/alice"));
    assert!(message.starts_with("alice holds the lock l until 1970-"), "{message}");
    assert!(message.ends_with(": disks are swapped"), "{message}");
    assert_eq!(f.status().waiters[0].run, "r");
    f.commit(release_lock(&f.world, "shop", "l", "uid-alice").unwrap()).unwrap();
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"]);
    assert_eq!((f.status().holders.len(), f.status().waiters.len()), (1, 0));
}

#[test]
fn a_lock_that_runs_hold_is_an_admins_when_they_are_through_and_nobody_comes_between() {
    let mut f = Fixture::new();
    f.admit(with_lock(plan("r", &["a"], 1), "l", LockMode::Write));
    f.admit(with_lock(plan("s", &["b"], 1), "l", LockMode::Write));
    f.settle();
    f.acquire("alice", LockMode::Write).unwrap();
    assert_eq!(lock_holders(&f.world, "shop", "l")[0].run, "r");
    f.work("a", Outcome::Ok);
    f.settle();
    assert!(lock_holders(&f.world, "shop", "l").is_empty());
    assert_eq!(f.offered(), Vec::<String>::new(), "s waits for alice");
}

#[test]
fn a_grant_and_an_acquire_exclude_each_other() {
    let mut f = Fixture::new();
    f.admit(with_lock(plan("r", &["a"], 1), "l", LockMode::Write));
    let granting = f.step().commits.remove(0);
    let acquire = acquire_lock(&f.world, new_lock(), hold("alice", LockMode::Write, START_MS + 1)).unwrap();
    f.commit(acquire).unwrap();
    assert!(f.commit(granting).is_err(), "it did not see alice");
}

#[test]
fn admins_share_reads_and_exclude_each_other_otherwise() {
    let mut f = Fixture::new();
    f.acquire("alice", LockMode::Read).unwrap();
    f.acquire("bob", LockMode::Read).unwrap();
    let refused = f.acquire("carol", LockMode::Write).unwrap_err();
    assert!(refused.to_string().contains("alice holds the lock l"), "{refused}");
    assert_eq!(f.status().holds.len(), 2);
    f.commit(release_lock(&f.world, "shop", "l", "bob").unwrap()).unwrap();
    f.acquire("alice", LockMode::Write).unwrap();
    assert_eq!(f.status().holds.len(), 1, "again by the same owner takes the former's place");
    assert_eq!(release_lock(&f.world, "shop", "l", "bob"), Err(Refusal::LockNotHeld("bob".into())));
}

#[test]
fn what_an_admin_holds_runs_out() {
    let mut f = Fixture::new();
    f.acquire("alice", LockMode::Write).unwrap();
    f.admit(with_lock(plan("r", &["a"], 1), "l", LockMode::Write));
    f.settle();
    assert_eq!(f.step().wake_at_ms, Some(START_MS + 1000), "a status is due first");
    f.now_ms += 5000;
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"]);
}

#[test]
fn a_lock_is_made_by_use_and_goes_with_it() {
    let mut f = Fixture::new();
    f.admit(with_lock(plan("r", &["a"], 1), "l", LockMode::Write));
    f.settle();
    let metadata = f.world.lock("shop", "l").unwrap().value.metadata.clone().unwrap();
    assert_eq!((metadata.uuid.len(), &metadata.uuid[14..15]), (36, "7"));
    f.work("a", Outcome::Ok);
    f.settle();
    assert!(f.world.lock("shop", "l").is_none());
    assert!(f.step().status.is_empty() && f.step().commits.is_empty());
}

#[test]
fn a_failed_run_poisons_its_locks_and_only_clearing_lifts_that() {
    let mut f = Fixture::new();
    f.admit(with_poison(plan("r", &["a"], 1), "l"));
    f.admit(with_lock(plan("s", &["b"], 1), "l", LockMode::Read));
    f.settle();
    f.work("a", Outcome::Failed);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Failed);
    assert_eq!((f.waits("s").0.as_str(), f.waits("s").2.as_str()), ("LockPoisoned", "run/r"));
    f.acquire("alice", LockMode::Write).unwrap();
    f.commit(release_lock(&f.world, "shop", "l", "alice").unwrap()).unwrap();
    f.commit(remove(&f.world, "r").unwrap()).unwrap();
    f.settle();
    assert_eq!(f.status().poison.unwrap().message, "1 node failed, and at most 0 may");
    assert_eq!(f.offered(), Vec::<String>::new());
    f.commit(clear_lock(&f.world, "shop", "l").unwrap()).unwrap();
    f.settle();
    assert_eq!(f.offered(), ["s/b/0/1"]);
    assert_eq!(clear_lock(&f.world, "shop", "l"), Err(Refusal::NotPoisoned));
}

#[test]
fn what_succeeds_is_cancelled_or_never_had_the_lock_poisons_nothing() {
    for how in ["succeeds", "is cancelled", "waits"] {
        let mut f = Fixture::new();
        if how == "waits" {
            f.acquire("alice", LockMode::Write).unwrap();
        }
        f.admit(with_poison(plan("r", &["a"], 1), "l"));
        f.settle();
        match how {
            "succeeds" => drop(f.work("a", Outcome::Ok)),
            "is cancelled" => f.commit(cancel(&f.world, "r", "user/x", 1).unwrap()).unwrap(),
            _ => f.now_ms += 60_001,
        }
        f.settle();
        assert_eq!(f.status().poison, None, "{how}");
    }
}

#[test]
fn runs_that_fail_at_once_poison_one_lock_one_after_another() {
    let mut f = Fixture::new();
    for (run, node) in [("r", "a"), ("s", "b")] {
        let mut plan = with_poison(plan(run, &[node], 1), "l");
        plan.locks[0].mode = LockMode::Read.into();
        f.admit(plan);
    }
    f.settle();
    f.work("a", Outcome::Failed);
    f.work("b", Outcome::Failed);
    f.settle();
    assert_eq!(["r", "s"].map(|run| f.phase(run)), [RunPhase::Failed, RunPhase::Failed]);
    assert_eq!(f.status().poison.unwrap().run, "r");
}

#[test]
fn clean_waits_for_all_before_it_and_nobody_passes_it() {
    let mut f = Fixture::new();
    f.admit(with_lock(plan("reads", &["a"], 1), "l", LockMode::Read));
    f.settle();
    f.admit(with_lock(plan("before", &["b"], 1), "l", LockMode::Write));
    let mut clean = with_lock(plan("clean", &["c"], 1), "l", LockMode::Clean);
    clean.priority = 9;
    f.admit(clean);
    let mut later = with_lock(plan("later", &["d"], 1), "l", LockMode::Read);
    later.priority = 99;
    f.admit(later);
    f.settle();
    for (node, next) in [("a", "before/b/0/1"), ("b", "clean/c/0/1"), ("c", "later/d/0/1")] {
        f.work(node, Outcome::Ok);
        f.settle();
        assert_eq!(f.offered(), [next], "alone, and in order of admission");
    }
}

#[test]
fn priorities_that_pull_in_both_directions_over_several_locks_end() {
    let mut f = Fixture::new();
    let mut runs = vec![
        with_lock(with_lock(plan("y", &["a"], 1), "l", LockMode::Write), "c", LockMode::Clean),
        with_lock(with_lock(plan("z", &["b"], 1), "c", LockMode::Read), "m", LockMode::Write),
        with_lock(with_lock(plan("x", &["c"], 1), "l", LockMode::Write), "m", LockMode::Write),
    ];
    runs[2].priority = 5;
    f.acquire("alice", LockMode::Write).unwrap();
    runs.into_iter().for_each(|run| f.admit(run));
    f.settle();
    f.commit(release_lock(&f.world, "shop", "l", "alice").unwrap()).unwrap();
    f.settle();
    for _ in 0..3 {
        let node = f.offered()[0].split('/').nth(1).unwrap().to_owned();
        f.work(&node, Outcome::Ok);
        f.settle();
    }
    assert_eq!(["x", "y", "z"].map(|run| f.phase(run)), [RunPhase::Succeeded; 3]);
}
