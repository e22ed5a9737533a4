//! Claims about work that is done for one node by another.

use lockstep_apis::v1alpha::{Outcome, RunPhase, Snapshot, SnapshotNode};

use crate::{
    fixture::{Fixture, by, plan, with_barriers},
    outcome,
    protocol::{self, ClaimAnswer},
    world::NodeEnd,
};

/// The plan's segment, done by this node for all.
fn with_delegate(mut plan: Snapshot, segment: usize, delegate: &str, throttle: u32) -> Snapshot {
    let index = plan.delegates.len() as u32;
    plan.delegates.push(SnapshotNode { uid: delegate.into(), name: delegate.into(), ..Default::default() });
    let of = &mut plan.segments[segment];
    of.all_of_window = false;
    of.nodes = (0..plan.nodes.len() as u32).collect();
    of.delegates = vec![index; plan.nodes.len()];
    of.throttle = throttle;
    plan
}

/// Drained by `d`, worked on, undrained by `d`.
fn drained(run: &str, nodes: &[&str], size: usize, delegate: &str) -> Snapshot {
    let plan = with_barriers(plan(run, nodes, size), 3);
    with_delegate(with_delegate(plan, 0, delegate, 8), 2, delegate, 8)
}

#[test]
fn a_delegate_does_it_for_each_node_of_the_window_and_is_in_none() {
    let mut f = Fixture::new();
    f.admit(drained("r", &["a", "b", "c"], 2, "d"));
    f.settle();
    assert_eq!(f.offered(), ["r/d/0/1", "r/d/0/1"], "for a and for b, beside the two places of the window");
    f.work("d", Outcome::Ok);
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/a/1/1", "r/b/1/1"]);
    f.work("a", Outcome::Changed);
    f.work("b", Outcome::Ok);
    f.settle();
    f.work("d", Outcome::Ok);
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/d/0/1"], "the next window");
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Changed));
}

#[test]
fn what_fails_on_the_delegate_fails_the_node_that_it_was_for() {
    let mut f = Fixture::new();
    let mut plan = drained("r", &["a", "b"], 2, "d");
    plan.groups[0].max_failures = 1;
    f.admit(plan);
    f.settle();
    let failed = f.work("d", Outcome::Failed).for_node;
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.end_of("r", &failed), Some(NodeEnd::Failed));
    let other = if failed == "a" { "b" } else { "a" };
    assert_eq!(f.offered(), [format!("r/{other}/1/1")], "it enters no later segment");
}

#[test]
fn a_delegate_is_given_as_much_at_once_as_its_throttle_says() {
    let mut f = Fixture::new();
    f.admit(with_delegate(plan("r", &["a", "b", "c"], 3), 0, "d", 2));
    f.settle();
    assert_eq!(f.offered().len(), 2);
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered().len(), 2);
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered().len(), 1);
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Succeeded);
}

#[test]
fn a_window_asks_for_its_delegates_and_keeps_them_to_its_end() {
    let mut f = Fixture::new();
    f.admit(drained("r", &["a"], 1, "d"));
    f.settle();
    f.admit(plan("s", &["d", "e"], 2));
    f.settle();
    assert_eq!(f.offered(), ["r/d/0/1", "s/e/0/1"]);
    assert_eq!(f.step().why["s"][0].message, "d works for run r");
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/a/1/1", "s/e/0/1"], "idle, and kept");
    f.work("a", Outcome::Ok);
    f.settle();
    f.work("d", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["s/d/0/1", "s/e/0/1"]);
}

#[test]
fn a_node_that_something_is_done_for_elsewhere_works_for_nobody_else_meanwhile() {
    let mut f = Fixture::new();
    f.admit(with_delegate(plan("r", &["a"], 1), 0, "d", 8));
    f.settle();
    f.claim("d");
    f.admit(plan("s", &["a"], 1));
    f.settle();
    assert_eq!(f.offered(), Vec::<String>::new());
    assert_eq!(f.step().why["s"][0].message, "a works for run r");
}

#[test]
fn two_runs_that_need_each_others_nodes_as_delegates_both_end() {
    for barriers in [false, true] {
        let mut f = Fixture::new();
        let of = |run: &str, node: &str, delegate: &str| match barriers {
            true => drained(run, &[node, "c"], 1, delegate),
            false => with_delegate(plan(run, &[node, "c"], 2), 0, delegate, 8),
        };
        f.admit(of("r", "a", "b"));
        f.admit(of("s", "b", "a"));
        for _ in 0..40 {
            f.settle();
            for node in ["a", "b", "c"] {
                if f.world.offers(node).next().is_some() {
                    f.work(node, Outcome::Ok);
                }
            }
        }
        assert_eq!((f.phase("r"), f.phase("s")), (RunPhase::Succeeded, RunPhase::Succeeded), "barriers: {barriers}");
    }
}

#[test]
fn only_the_delegate_may_claim_and_nobody_learns_of_anothers_work() {
    let mut f = Fixture::new();
    f.admit(drained("r", &["a"], 1, "d"));
    f.settle();
    let attempt = f.world.offers("d").next().unwrap().clone();
    assert_eq!((attempt.for_node.as_str(), attempt.node.as_str()), ("a", "d"));
    for node in ["a", "x"] {
        let theirs = lockstep_apis::keys::Attempt { node: node.into(), ..attempt.clone() };
        assert_eq!(protocol::answer_claim(&f.world, &theirs, &by("one")), ClaimAnswer::NotYet);
        assert!(f.world.attempt(&theirs).is_none(), "{node} is told of the work of d");
        assert_eq!(protocol::work(&f.world, &theirs), None);
    }
    f.claim("d");
    // Claimed, it would be offered again to who holds it: to nobody else.
    let theirs = lockstep_apis::keys::Attempt { node: "x".into(), ..attempt };
    assert_eq!(protocol::answer_claim(&f.world, &theirs, &by("one")), ClaimAnswer::NotYet);
    assert_eq!(protocol::work(&f.world, &theirs), None);
}

#[test]
fn a_delegate_is_told_of_the_node_and_is_given_the_results_that_its_tasks_read() {
    let mut f = Fixture::new();
    let mut plan = with_delegate(with_barriers(plan("r", &["a"], 1), 2), 1, "d", 8);
    plan.nodes[0].addresses = vec!["10.0.0.1".into()];
    let mut task = plan.segments[0].tasks[0].clone();
    (task.index, task.id) = (7, "other".into());
    plan.segments[0].tasks.push(task);
    plan.segments[1].reads_results = vec!["t0".into()];
    f.admit(plan);
    f.settle();
    let attempt = f.claim("a");
    let result = |task| lockstep_apis::v1alpha::TaskReport {
        task,
        outcome: Outcome::Ok.into(),
        result: Some(lockstep_apis::v1alpha::Value::text("said")),
        ..Default::default()
    };
    let report = lockstep_apis::v1alpha::Report { tasks: vec![result(0), result(7)], ..Default::default() };
    f.commit(protocol::report(&attempt, &report, false)).unwrap();
    f.settle();
    let attempt = f.claim("d");
    let work = protocol::work(&f.world, &attempt).unwrap().work;
    assert_eq!((work.node_name.as_str(), work.node_addresses.as_slice()), ("a", &["10.0.0.1".to_owned()][..]));
    assert_eq!(work.delegate.unwrap().name, "d");
    assert_eq!(work.results.keys().collect::<Vec<_>>(), ["t0"]);
}

#[test]
fn a_silent_delegate_holds_its_place_until_it_is_released() {
    let mut f = Fixture::new();
    let mut plan = drained("r", &["a", "b"], 1, "d");
    plan.groups[0].max_failures = 2;
    f.admit(plan);
    f.settle();
    f.claim("d");
    f.settle();
    assert_eq!(f.step().why["r"][0].message, "d is at work for a");
    assert_eq!(outcome::held_nodes(f.world.run("r").unwrap()), ["d"]);
    f.commit(protocol::release(&f.world, "r", "d", "user/x", 1).unwrap()).unwrap();
    f.settle();
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Lost));
    assert_eq!(f.offered(), ["r/d/0/1"], "for b");
    assert_eq!(protocol::release(&f.world, "r", "b", "user/x", 1), Err(protocol::Refusal::NothingHeld));
}
