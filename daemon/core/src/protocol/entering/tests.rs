//! Who gets a concurrency key, by each policy. That of two creators at once one wins is a property here, and a test
//! against a real store in the daemon.

use lockstep_apis::v1alpha::{Outcome, RunPhase, Snapshot};
use proptest::prelude::*;

use super::*;
use crate::fixture::{Fixture, keyed, plan, with_key};
use crate::protocol;
use ConcurrencyPolicy as P;

fn run(name: &str, node: &str) -> Snapshot {
    with_key(plan(name, &[node], 1), "web")
}

/// `r` goes on node a.
fn going(policy: P) -> Fixture {
    let mut f = Fixture::new();
    f.enter_and_admit(run("r", "a"), policy);
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"]);
    f
}

fn held(run: &str) -> Refusal {
    Refusal::KeyHeld { key: "web".into(), run: run.into() }
}

#[test]
fn queue_waits_for_those_before_it_and_says_for_whom() {
    let mut f = going(P::Queue);
    f.enter_and_admit(run("s", "b"), P::Queue);
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"]);
    let why = f.step().why;
    assert_eq!((why["s"][0].on.as_str(), why["s"][0].reason.as_str()), ("run/r", "ConcurrencyKey"));
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["s/b/0/1"]);
}

#[test]
fn another_key_another_namespace_and_allow_do_not_meet() {
    let mut f = going(P::Refuse);
    f.enter_and_admit(with_key(plan("other", &["b"], 1), "db"), P::Refuse);
    let mut elsewhere = run("elsewhere", "c");
    elsewhere.namespace = "blog".into();
    f.enter_and_admit(elsewhere, P::Refuse);
    f.admit(plan("free", &["d"], 1));
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1", "other/b/0/1", "elsewhere/c/0/1", "free/d/0/1"]);
}

#[test]
fn refuse_creates_nothing_until_the_other_is_through_with_its_places() {
    let mut f = going(P::Refuse);
    let claimed = f.claim("a");
    assert_eq!(f.enter(&run("s", "b"), P::Refuse), Err(held("r")));
    f.commit(protocol::cancel(&f.world, "r", "user/x", 1).unwrap()).unwrap();
    f.settle();
    assert_eq!(f.enter(&run("s", "b"), P::Refuse), Err(held("r")), "cancelled, and a works still");
    f.report(&claimed, Outcome::Cancelled);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelled);
    assert_eq!(f.enter(&run("s", "b"), P::Refuse), Ok(None));
}

#[test]
fn a_run_that_waits_for_admission_has_its_key_already() {
    let mut f = Fixture::new();
    assert_eq!(f.enter(&run("r", "a"), P::Refuse), Ok(None));
    assert_eq!(f.enter(&run("s", "b"), P::Refuse), Err(held("r")));
}

#[test]
fn a_run_that_was_rejected_or_deleted_has_no_key() {
    let mut f = Fixture::new();
    f.enter(&run("r", "a"), P::Refuse).unwrap();
    let rejected = crate::step::rejection(&f.world, f.term, "r", "NoTargets", "none", 1).unwrap();
    f.commit(rejected).unwrap();
    f.enter(&run("s", "b"), P::Refuse).unwrap();
    let rejected = crate::step::rejection(&f.world, f.term, "s", "NoTargets", "none", 1).unwrap();
    f.commit(rejected).unwrap();
    f.commit(protocol::remove(&f.world, "s").unwrap()).unwrap();
    f.settle();
    assert!(f.world.concurrency(&keys::concurrency("shop", "web")).is_none(), "the leader forgets it");
}

#[test]
fn join_answers_with_the_same_run_and_refuses_what_differs() {
    let mut f = going(P::Join);
    assert_eq!(f.enter(&run("s", "b"), P::Join), Ok(Some("r".into())));
    let mut other = keyed(&run("s", "b"), P::Join);
    other.spec.as_mut().unwrap().priority = 7;
    let refused = enter(&f.world, &other, 0, "user/x", 1).unwrap_err();
    assert!(refused.to_string().contains("asked for something else"), "{refused}");
    let newer = enter(&f.world, &keyed(&run("s", "b"), P::Join), 1, "user/x", 1).unwrap_err();
    assert!(newer.to_string().contains("older version of the book"), "{newer}");
    f.claim("a");
    f.commit(protocol::cancel(&f.world, "r", "user/x", 1).unwrap()).unwrap();
    assert!(matches!(f.enter(&run("s", "b"), P::Join), Err(Refusal::CannotJoin { .. })), "it is being stopped");
}

#[test]
fn replace_closes_the_gate_at_once_and_waits_for_the_places() {
    let mut f = going(P::Replace);
    let claimed = f.claim("a");
    f.enter_and_admit(run("s", "b"), P::Replace);
    assert!(f.world.run("r").unwrap().is_cancelled(), "in the creating commit");
    f.settle();
    assert_eq!(f.offered(), Vec::<String>::new(), "a works still");
    f.report(&claimed, Outcome::Cancelled);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelled);
    let status = f.world.run("r").unwrap().object().unwrap().value.status.clone().unwrap();
    assert_eq!(status.message, "replaced by user/x with run s");
    assert_eq!(f.offered(), ["s/b/0/1"]);
}

#[test]
fn replace_stops_all_that_wait_too() {
    let mut f = going(P::Replace);
    f.claim("a");
    f.enter_and_admit(run("s", "b"), P::Queue);
    f.enter(&run("t", "c"), P::Queue).unwrap();
    f.enter_and_admit(run("u", "d"), P::Replace);
    f.settle();
    assert_eq!(["s", "t"].map(|run| f.phase(run)), [RunPhase::Cancelled, RunPhase::Cancelled]);
}

#[test]
fn queue_latest_cancels_what_has_not_begun_and_leaves_what_has() {
    let mut f = going(P::QueueLatest);
    f.enter_and_admit(run("s", "b"), P::QueueLatest);
    f.settle();
    f.enter_and_admit(run("t", "c"), P::QueueLatest);
    f.settle();
    assert_eq!(f.phase("s"), RunPhase::Cancelled);
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Succeeded);
    assert_eq!(f.offered(), ["t/c/0/1"]);
}

#[test]
fn what_begins_meanwhile_is_not_superseded() {
    let mut f = going(P::QueueLatest);
    f.enter_and_admit(run("s", "b"), P::QueueLatest);
    f.settle();
    let Entering::Enter(late) = enter(&f.world, &keyed(&run("t", "c"), P::QueueLatest), 0, "x", 1).unwrap() else {
        panic!()
    };
    f.work("a", Outcome::Ok);
    f.settle();
    assert!(f.commit(late).is_err(), "s was granted: judge again");
    assert!(!f.world.run("s").unwrap().is_closed());
}

#[test]
fn too_many_waiters_are_refused() {
    let mut f = Fixture::new();
    for at in 0..MAX_CANCELLED + 1 {
        f.enter(&run(&format!("r{at}"), "a"), P::Queue).unwrap();
    }
    assert_eq!(f.enter(&run("s", "b"), P::Replace), Err(Refusal::KeyFull("web".into())));
    for at in MAX_CANCELLED + 1..MAX_RUNS_OF_KEY {
        f.enter(&run(&format!("r{at}"), "a"), P::Queue).unwrap();
    }
    assert_eq!(f.enter(&run("s", "b"), P::Queue), Err(Refusal::KeyFull("web".into())));
}

fn any_policy() -> impl Strategy<Value = P> {
    prop::sample::select(vec![P::Queue, P::QueueLatest, P::Refuse, P::Join, P::Replace])
}

proptest! {
    /// Creators that saw the same world: whatever their policies, one commits, and the others must look again.
    #[test]
    fn of_creators_at_once_exactly_one_wins(policies in prop::collection::vec(any_policy(), 2..6), begun in any::<bool>()) {
        let mut f = if begun { going(P::Queue) } else { Fixture::new() };
        let entering: Vec<_> = policies.iter().enumerate().map(|(at, policy)| {
            let run = keyed(&run(&format!("n{at}"), "b"), *policy);
            let key = keys::object("runs", "shop", &format!("n{at}"));
            (enter(&f.world, &run, 0, "user/x", 1), key, run.encode_to_vec())
        }).collect();
        let mut won = 0;
        let mut tried = 0;
        for (entering, key, value) in entering {
            if let Ok(Entering::Enter(commit)) = entering {
                tried += 1;
                won += usize::from(f.commit(commit.create(key, value)).is_ok());
            }
        }
        prop_assert_eq!(won, usize::from(tried > 0));
    }
}
