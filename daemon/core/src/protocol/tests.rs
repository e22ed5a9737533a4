//! What claims, reports and releases may not do.

use std::collections::BTreeSet;

use lockstep_apis::v1alpha::{Approval, Outcome, RunPhase, Sealed, TaskReport, Value};

use super::*;
use crate::fixture::{Fixture, by, plan, with_barriers};

fn assigned() -> Fixture {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a", "b"], 2));
    f.settle();
    f
}

#[test]
fn an_attempt_is_claimed_once() {
    let mut f = assigned();
    let old_view = f.world.clone();
    let attempt = f.claim("a");
    assert_eq!(answer_claim(&f.world, &attempt, &by("one")), ClaimAnswer::Granted);
    assert_eq!(answer_claim(&f.world, &attempt, &by("two")), ClaimAnswer::Forgotten);
    let ClaimAnswer::Commit(stale) = answer_claim(&old_view, &attempt, &by("two")) else { panic!() };
    assert!(f.commit(stale).is_err());
}

#[test]
fn nothing_is_claimed_under_a_closed_gate() {
    for close in [pause, cancel] {
        let mut f = assigned();
        let attempt = f.world.offers("a").next().unwrap().clone();
        let ClaimAnswer::Commit(claim) = answer_claim(&f.world, &attempt, &by("one")) else { panic!() };
        f.commit(close(&f.world, "r", "user/x", 1).unwrap()).unwrap();
        assert!(f.commit(claim).is_err());
        assert!(matches!(answer_claim(&f.world, &attempt, &by("one")), ClaimAnswer::Refused(_)));
        assert_eq!(f.world.offers("a").count(), 0);
    }
}

#[test]
fn a_report_needs_the_claim_and_is_stored_once() {
    let mut f = assigned();
    let attempt = f.world.offers("a").next().unwrap().clone();
    assert!(f.commit(report(&attempt, &Report::default(), false)).is_err(), "not claimed");
    f.work("a", Outcome::Ok);
    assert!(f.commit(report(&attempt, &Report::default(), false)).is_err(), "reported already");
}

#[test]
fn a_report_and_a_release_exclude_each_other() {
    let mut f = assigned();
    let attempt = f.claim("a");
    let release_first = release(&f.world, "r", "a", "user/x", 1).unwrap();
    f.report(&attempt, Outcome::Ok);
    assert!(f.commit(release_first).is_err());
    assert_eq!(release(&f.world, "r", "a", "user/x", 1), Err(Refusal::NothingHeld));

    let attempt = f.claim("b");
    f.commit(release(&f.world, "r", "b", "user/x", 1).unwrap()).unwrap();
    assert!(f.commit(report(&attempt, &Report::default(), false)).is_err(), "a verdict is there");
    f.commit(report(&attempt, &Report::default(), true)).unwrap();
    assert!(f.world.attempt(&attempt).unwrap().report.as_ref().unwrap().value.late);
}

fn awaiting(two_persons: bool) -> Fixture {
    let mut f = Fixture::new();
    let mut plan = plan("r", &["a"], 1);
    plan.approval = Some(Approval { required: true, two_persons });
    f.create_by(&plan, "alice");
    f.admit_created(&plan);
    f.settle();
    f
}

fn by_whom(name: &str) -> RunApproval {
    RunApproval { by: name.into(), by_uid: format!("uid-{name}"), reason: "looked at".into(), ..Default::default() }
}

#[test]
fn nothing_begins_before_it_is_approved_and_by_whom_is_kept() {
    let mut f = awaiting(false);
    assert_eq!((f.offered(), f.phase("r")), (Vec::new(), RunPhase::AwaitingApproval));
    assert_eq!(f.step().why["r"][0].reason, "AwaitingApproval");
    assert_eq!(resume(&f.world, "r"), Err(Refusal::NotPaused), "a resume is no approval");
    f.commit(approve(&f.world, "r", by_whom("alice")).unwrap()).unwrap();
    assert_eq!(approve(&f.world, "r", by_whom("alice")), Err(Refusal::NotAwaiting));
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"]);
    f.work("a", Outcome::Ok);
    f.settle();
    let status = f.world.run("r").unwrap().object().unwrap().value.status.clone().unwrap();
    assert_eq!((status.phase(), status.approval.unwrap()), (RunPhase::Succeeded, by_whom("alice")));
}

#[test]
fn where_two_persons_are_asked_for_nobody_approves_a_run_of_their_own() {
    let mut f = awaiting(true);
    let renamed = RunApproval { by: "alice2".into(), ..by_whom("alice") };
    for own in [by_whom("alice"), renamed] {
        assert_eq!(approve(&f.world, "r", own), Err(Refusal::OwnRun));
    }
    f.commit(approve(&f.world, "r", by_whom("bob")).unwrap()).unwrap();
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"]);
}

#[test]
fn the_timeout_counts_while_approval_is_awaited_and_so_does_a_cancel() {
    let mut f = awaiting(false);
    f.now_ms += 60_001;
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Failed);
    assert_eq!(approve(&f.world, "r", by_whom("bob")), Err(Refusal::Ended));
    let mut f = awaiting(false);
    f.commit(cancel(&f.world, "r", "user/x", 1).unwrap()).unwrap();
    assert_eq!(approve(&f.world, "r", by_whom("bob")), Err(Refusal::AlreadyStopped));
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelled);
}

#[test]
fn a_run_that_was_paused_before_its_admission_waits_for_both() {
    let mut f = Fixture::new();
    let mut plan = plan("r", &["a"], 1);
    plan.approval = Some(Approval { required: true, two_persons: false });
    f.create_by(&plan, "alice");
    f.commit(pause(&f.world, "r", "user/x", 1).unwrap()).unwrap();
    f.admit_created(&plan);
    f.commit(approve(&f.world, "r", by_whom("alice")).unwrap()).unwrap();
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Paused);
    f.commit(resume(&f.world, "r").unwrap()).unwrap();
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"]);
}

#[test]
fn what_is_over_is_not_cancelled_paused_or_resumed() {
    let mut f = assigned();
    assert_eq!(resume(&f.world, "r"), Err(Refusal::NotPaused));
    f.work("a", Outcome::Ok);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(cancel(&f.world, "r", "user/x", 1), Err(Refusal::Ended));
    assert_eq!(pause(&f.world, "r", "user/x", 1), Err(Refusal::Ended));
}

#[test]
fn what_an_earlier_process_claimed_and_nobody_holds_is_forgotten() {
    let mut f = assigned();
    let attempt = f.claim("a");
    let nothing = BTreeSet::new();
    assert_eq!(forgotten(&f.world, "a", "one", &nothing).count(), 0, "the same process asks again");
    assert_eq!(forgotten(&f.world, "a", "two", &nothing).collect::<Vec<_>>(), [&attempt]);
    assert_eq!(forgotten(&f.world, "a", "two", &BTreeSet::from([attempt.clone()])).count(), 0);
}

#[test]
fn work_has_the_nodes_own_results_and_only_the_shared_values_it_reads() {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a", "b"], 2), 2);
    plan.segments[0].all_of_window = false;
    plan.segments[0].nodes = vec![0];
    plan.segments[0].tasks[0].shared = true;
    plan.segments[1].reads_shared = vec!["t0".into()];
    f.admit(plan);
    f.settle();
    let attempt = f.claim("a");
    let task = TaskReport { outcome: Outcome::Ok.into(), result: Some(Value::text("made")), ..Default::default() };
    f.commit(report(&attempt, &Report { tasks: vec![task], ..Default::default() }, false)).unwrap();
    f.settle();
    let (a, b) = (f.claim("a"), f.claim("b"));
    let (a, b) = (work(&f.world, &a).unwrap().work, work(&f.world, &b).unwrap().work);
    assert_eq!(a.results["t0"], Value::text("made"));
    assert!(b.results.is_empty());
    assert_eq!(b.shared["t0"], Value::text("made"));
}

#[test]
fn secrets_come_sealed_with_what_they_are_bound_to() {
    let mut f = Fixture::new();
    f.admit(with_barriers(plan("r", &["a"], 1), 2));
    f.settle();
    let attempt = f.claim("a");
    let sealed = Sealed { key_id: "k".into(), ..Default::default() };
    let task = TaskReport { outcome: Outcome::Ok.into(), sealed: Some(sealed.clone()), ..Default::default() };
    f.commit(report(&attempt, &Report { tasks: vec![task], ..Default::default() }, false)).unwrap();
    f.settle();
    let next = f.claim("a");
    let delivery = work(&f.world, &next).unwrap();
    assert_eq!(
        delivery.sealed,
        [SealedValue { place: Place::Results, id: "t0".into(), sealed, bound_to: Some((attempt, 0)) }]
    );
}

#[test]
fn a_run_is_removed_with_all_that_is_kept_of_it() {
    let mut f = assigned();
    assert!(f.commit(remove(&f.world, "r").unwrap()).is_err(), "it has a cursor");
    f.work("a", Outcome::Ok);
    f.work("b", Outcome::Ok);
    f.settle();
    f.commit(remove(&f.world, "r").unwrap()).unwrap();
    assert_eq!(f.entries().map(|entry| entry.key.to_string()).collect::<Vec<_>>(), ["leader"]);
    assert!(f.world.run("r").is_none());
}

#[test]
fn a_claim_whose_answer_was_lost_and_that_is_given_up_meanwhile_is_still_reported() {
    let mut f = assigned();
    let attempt = f.claim("a");
    f.now_ms += 60_000;
    f.settle();
    f.now_ms += 10_000;
    f.settle();
    assert_eq!(f.world.run("r").unwrap().places().len(), 1, "lost, and held");
    assert_eq!(forgotten(&f.world, "a", "one", &BTreeSet::new()).collect::<Vec<_>>(), [&attempt]);
    assert_eq!(answer_claim(&f.world, &attempt, &by("one")), ClaimAnswer::Forgotten, "nothing begins under a verdict");
    let all = crate::recovery::interrupted_all(&work(&f.world, &attempt).unwrap().work, f.now_ms);
    f.commit(report(&attempt, &all, true)).unwrap();
    f.settle();
    assert!(f.world.run("r").unwrap().cursor().is_none(), "the place is given back");
}

/// `a` and `b` did the first segment; the second reads what they said, of this length.
fn with_results(length: usize) -> Fixture {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a", "b"], 2), 2);
    plan.segments[1].reads_all = vec!["t0".into()];
    plan.all.insert("t0".into(), Value::map([("old", Value::text("before"))]));
    f.admit(plan);
    f.settle();
    for node in ["a", "b"] {
        let attempt = f.claim(node);
        let result = Value::text(node.repeat(length));
        let task = TaskReport { outcome: Outcome::Ok.into(), result: Some(result), ..Default::default() };
        f.commit(report(&attempt, &Report { tasks: vec![task], ..Default::default() }, false)).unwrap();
    }
    f.settle();
    f
}

#[test]
fn results_of_all_nodes_are_handed_on_by_name_with_those_of_a_retried_run() {
    let mut f = with_results(1);
    let attempt = f.claim("b");
    let work = work(&f.world, &attempt).unwrap().work;
    let all = Value::map([("old", "before"), ("a", "a"), ("b", "b")].map(|(name, text)| (name, Value::text(text))));
    assert_eq!(work.all, [("t0".to_owned(), all)].into());
}

#[test]
fn results_of_all_nodes_that_are_too_long_are_withheld_by_name() {
    let mut f = with_results(600 * 1024);
    let attempt = f.claim("b");
    let work = work(&f.world, &attempt).unwrap().work;
    assert!(work.all.is_empty() && work.all_withheld == ["t0"]);
}

#[test]
fn a_check_hands_on_what_is_not_known_and_that_the_node_would_be_another() {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a", "b"], 2), 3);
    plan.check = true;
    plan.segments[2].reads_shared = vec!["made".to_owned()];
    f.admit(plan);
    f.settle();
    for node in ["a", "b"] {
        let attempt = f.claim(node);
        let work = work(&f.world, &attempt).unwrap().work;
        assert!(work.check && work.unknown.is_empty() && !work.unsettled);
        let unknown = TaskReport { outcome: Outcome::Unpredicted.into(), unknown: true, ..Default::default() };
        let report = Report { tasks: vec![unknown], ..Default::default() };
        f.commit(super::report(&attempt, &report, false)).unwrap();
    }
    f.settle();
    for node in ["a", "b"] {
        let attempt = f.claim(node);
        let work = work(&f.world, &attempt).unwrap().work;
        assert_eq!((work.unknown, work.unsettled), (vec!["t0".to_owned()], true));
        f.report(&attempt, Outcome::Ok);
    }
    f.settle();
    let attempt = f.claim("a");
    assert_eq!(work(&f.world, &attempt).unwrap().work.unknown, ["t0", "made"], "its producer did not run");
}

#[test]
fn variables_that_a_segment_sets_are_there_in_the_next() {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a"], 1), 2);
    plan.segments[0].tasks[0].action = "variable.set".to_owned();
    plan.variables.insert("port".to_owned(), Value::from(1));
    f.admit(plan);
    f.settle();
    let attempt = f.claim("a");
    let values = Value::map([("values", Value::map([("port", Value::from(2))]))]);
    let done = TaskReport { outcome: Outcome::Ok.into(), result: Some(values), ..Default::default() };
    f.commit(super::report(&attempt, &Report { tasks: vec![done], ..Default::default() }, false)).unwrap();
    f.settle();
    let attempt = f.claim("a");
    assert_eq!(work(&f.world, &attempt).unwrap().work.variables["port"], Value::from(2));
}
