//! Fences as claims. What random worlds say is in the simulator.

use lockstep_apis::{
    commit::Commit,
    keys,
    v1alpha::{OnUnreachable, Outcome, RunPhase, Session, Snapshot},
};
use prost::Message;

use super::{Sight, UNREACHABLE_MS, after_ms};
use crate::{
    fixture::{Fixture, plan},
    world::NodeEnd,
};

const FENCE_MS: u64 = 30_000;

fn new() -> Sight {
    Sight::new(UNREACHABLE_MS)
}

fn fenced(nodes: &[&str]) -> Snapshot {
    let mut plan = plan("r", nodes, 1);
    plan.fence_ms = FENCE_MS;
    plan.groups[0].max_failures = 1;
    plan
}

fn attach(f: &mut Fixture, node: &str) {
    f.commit(Commit::new().put(keys::session(node), Session::default().encode_to_vec())).unwrap();
}

fn detach(f: &mut Fixture, node: &str) {
    f.commit(Commit::new().delete(keys::session(node))).unwrap();
}

/// Looks and commits; how many commits it was.
fn look(f: &mut Fixture, sight: &mut Sight, steady_ms: u64) -> usize {
    let due = sight.look(&f.world, f.term, steady_ms, f.now_ms);
    let count = due.commits.len();
    due.commits.into_iter().for_each(|commit| f.commit(commit).unwrap());
    f.settle();
    count
}

#[test]
fn a_claimed_place_is_free_only_when_the_fence_has_passed() {
    let (mut f, mut sight) = (Fixture::new(), new());
    attach(&mut f, "a");
    f.admit(fenced(&["a", "b"]));
    f.settle();
    f.claim("a");
    assert_eq!(look(&mut f, &mut sight, 0), 0, "heard");
    detach(&mut f, "a");
    assert_eq!(look(&mut f, &mut sight, 1_000), 0, "just gone");
    assert_eq!(sight.look(&f.world, f.term, 2_000, 0).wake_in_ms, Some(FENCE_MS - 1_000));
    assert_eq!(look(&mut f, &mut sight, 1_000 + FENCE_MS), 1, "fencing");
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Lost));
    assert_eq!(f.world.fenced("a").count(), 1, "no heartbeat keeps it alive");
    assert!(f.offered().is_empty(), "the place is held until the node must have killed its work");
    let seen = 1_000 + FENCE_MS + 7;
    assert_eq!(look(&mut f, &mut sight, seen), 0);
    assert_eq!(look(&mut f, &mut sight, seen + after_ms(FENCE_MS) - 1), 0);
    assert_eq!(look(&mut f, &mut sight, seen + after_ms(FENCE_MS)), 1, "fenced");
    assert_eq!(f.offered(), ["r/b/0/1"]);
}

#[test]
fn a_node_that_reboots_is_not_lost_before_that_may_last() {
    let (mut f, mut sight) = (Fixture::new(), Sight::new(UNREACHABLE_MS));
    attach(&mut f, "a");
    let mut plan = fenced(&["a", "b"]);
    let task = &mut plan.segments[0].tasks[0];
    (task.action, task.timeout_ms) = ("reboot.now".into(), 600_000);
    f.admit(plan);
    f.settle();
    assert_eq!(f.world.reboot_ms("a"), 0, "it has not claimed it");
    f.claim("a");
    assert_eq!(f.world.reboot_ms("a"), 600_000);
    detach(&mut f, "a");
    assert_eq!(look(&mut f, &mut sight, 0), 0);
    assert_eq!(look(&mut f, &mut sight, 600_000 + FENCE_MS - 1), 0, "it reboots");
    assert_eq!(look(&mut f, &mut sight, 600_000 + FENCE_MS), 1, "it does not come back");
}

#[test]
fn a_node_that_is_back_in_time_keeps_its_work() {
    let (mut f, mut sight) = (Fixture::new(), new());
    f.admit(fenced(&["a", "b"]));
    f.settle();
    let attempt = f.claim("a");
    look(&mut f, &mut sight, 0);
    attach(&mut f, "a");
    assert_eq!(look(&mut f, &mut sight, FENCE_MS * 2), 0);
    detach(&mut f, "a");
    assert_eq!(look(&mut f, &mut sight, FENCE_MS * 2 + 1), 0, "counted anew");
    f.report(&attempt, Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/b/0/1"]);
}

#[test]
fn a_session_that_came_unseen_makes_the_verdict_conflict() {
    let (mut f, mut sight) = (Fixture::new(), new());
    f.admit(fenced(&["a", "b"]));
    f.settle();
    f.claim("a");
    sight.look(&f.world, f.term, 0, 0);
    let due = sight.look(&f.world, f.term, FENCE_MS, 0);
    attach(&mut f, "a");
    assert!(f.commit(due.commits[0].clone()).is_err());
}

#[test]
fn another_leader_counts_anew() {
    let (mut f, mut sight) = (Fixture::new(), new());
    f.admit(fenced(&["a", "b"]));
    f.settle();
    f.claim("a");
    look(&mut f, &mut sight, 0);
    look(&mut f, &mut sight, FENCE_MS);
    let mut other = new();
    assert_eq!(look(&mut f, &mut other, 500_000), 0);
    assert_eq!(look(&mut f, &mut other, 500_000 + after_ms(FENCE_MS)), 1);
}

#[test]
fn what_was_not_claimed_is_free_at_once() {
    let (mut f, mut sight) = (Fixture::new(), new());
    f.admit(fenced(&["a", "b"]));
    f.settle();
    look(&mut f, &mut sight, 0);
    assert_eq!(look(&mut f, &mut sight, FENCE_MS), 1);
    assert_eq!(f.offered(), ["r/b/0/1"]);
}

#[test]
fn an_ended_run_lets_go_of_what_it_holds() {
    let (mut f, mut sight) = (Fixture::new(), new());
    let mut plan = fenced(&["a", "b"]);
    plan.groups[0].max_failures = 0;
    f.admit(plan);
    f.settle();
    f.claim("a");
    look(&mut f, &mut sight, 0);
    look(&mut f, &mut sight, FENCE_MS);
    assert_eq!(f.phase("r"), RunPhase::Failed);
    assert!(f.world.run("r").unwrap().cursor().is_some(), "kept for the place");
    look(&mut f, &mut sight, FENCE_MS);
    look(&mut f, &mut sight, FENCE_MS + after_ms(FENCE_MS));
    assert!(f.world.run("r").unwrap().cursor().is_none());
}

#[test]
fn without_the_option_nothing_is_ever_due() {
    let (mut f, mut sight) = (Fixture::new(), new());
    f.admit(plan("r", &["a", "b"], 1));
    f.settle();
    f.claim("a");
    assert_eq!(look(&mut f, &mut sight, 0) + look(&mut f, &mut sight, u64::MAX / 2), 0);
}

fn unreachable(option: OnUnreachable) -> Snapshot {
    Snapshot { on_unreachable: option.into(), ..plan("r", &["a", "b"], 1) }
}

#[test]
fn who_goes_before_it_begins_ends_as_the_option_says() {
    for (option, end, phase) in [
        (OnUnreachable::Skip, Some(NodeEnd::Skipped), RunPhase::Succeeded),
        (OnUnreachable::Fail, Some(NodeEnd::Unreachable), RunPhase::Failed),
        (OnUnreachable::Wait, None, RunPhase::Running),
    ] {
        let (mut f, mut sight) = (Fixture::new(), new());
        attach(&mut f, "a");
        attach(&mut f, "b");
        f.admit(unreachable(option));
        f.settle();
        assert_eq!(look(&mut f, &mut sight, 0), 0, "heard");
        detach(&mut f, "a");
        assert_eq!(look(&mut f, &mut sight, 1_000), 0, "it may come back");
        let count = look(&mut f, &mut sight, 1_000 + UNREACHABLE_MS);
        assert_eq!(count, usize::from(end.is_some()), "{option:?}");
        assert_eq!(f.end_of("r", "a"), end);
        if end == Some(NodeEnd::Skipped) {
            assert_eq!(f.offered(), ["r/b/0/1"], "its place is free");
            let attempt = f.claim("b");
            f.report(&attempt, Outcome::Ok);
            f.settle();
        }
        assert_eq!(f.phase("r"), phase, "{option:?}");
    }
}

#[test]
fn who_has_begun_is_waited_for() {
    let (mut f, mut sight) = (Fixture::new(), new());
    f.admit(unreachable(OnUnreachable::Fail));
    f.settle();
    f.claim("a");
    assert_eq!(look(&mut f, &mut sight, 0) + look(&mut f, &mut sight, u64::MAX / 2), 0);
}

#[test]
fn a_claim_that_came_unseen_makes_the_end_conflict() {
    let (mut f, mut sight) = (Fixture::new(), new());
    f.admit(unreachable(OnUnreachable::Fail));
    f.settle();
    sight.look(&f.world, f.term, 0, 0);
    let due = sight.look(&f.world, f.term, UNREACHABLE_MS, 0);
    f.claim("a");
    assert!(f.commit(due.commits[0].clone()).is_err());
}
