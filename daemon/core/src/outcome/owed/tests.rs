//! What is owed after which reports.

use lockstep_apis::v1alpha::{CompiledTask, OnInterrupt, Outcome, Report, Snapshot, TaskReport};

use super::{before, owed, owed_names};
use crate::{
    fixture::{Fixture, plan, with_barriers},
    protocol,
};

const HANDLER: u32 = 9;

/// Two segments of one task each that notifies the handler.
fn notifying() -> Snapshot {
    let mut plan = with_barriers(plan("r", &["a"], 1), 2);
    for segment in &mut plan.segments {
        segment.tasks[0].notify = vec![HANDLER];
        let name = "restart".to_owned();
        segment.tasks.push(CompiledTask { index: HANDLER, handler: true, name, ..segment.tasks[0].clone() });
        segment.tasks[1].notify.clear();
    }
    plan
}

fn ends(f: &mut Fixture, ends: &[(u32, Outcome)]) {
    let attempt = f.claim("a");
    let task = |&(task, outcome): &(u32, Outcome)| TaskReport { task, outcome: outcome.into(), ..Default::default() };
    let report = Report { tasks: ends.iter().map(task).collect(), ..Default::default() };
    f.commit(protocol::report(&attempt, &report, false)).unwrap();
    f.settle();
}

fn names(f: &Fixture) -> Vec<String> {
    let run = f.world.run("r").unwrap();
    owed_names(run, run.plan().unwrap(), 0)
}

#[test]
fn a_handler_is_owed_from_its_notification_until_it_ended_well() {
    use Outcome::{Changed, Failed, Interrupted, Ok, Skipped};
    for (first, expected) in [
        (vec![(0, Ok)], false),
        (vec![(0, Changed), (HANDLER, Changed)], false),
        (vec![(0, Changed), (HANDLER, Skipped)], false),
        (vec![(0, Changed), (HANDLER, Failed)], true),
        (vec![(0, Changed), (HANDLER, Interrupted)], true),
        (vec![(0, Interrupted)], true),
    ] {
        let mut f = Fixture::new();
        f.admit(notifying());
        f.settle();
        ends(&mut f, &first);
        assert_eq!(names(&f), vec!["restart"; usize::from(expected)], "{first:?}");
    }
}

#[test]
fn what_was_owed_at_the_beginning_is_left_until_it_is_done() {
    let mut plan = notifying();
    plan.nodes[0].owed = vec![HANDLER];
    let mut f = Fixture::new();
    f.admit(plan);
    f.settle();
    let attempt = f.world.offers("a").next().unwrap().clone();
    assert_eq!(protocol::work(&f.world, &attempt).unwrap().work.owed, [HANDLER]);
    assert_eq!(names(&f), ["restart"]);
    ends(&mut f, &[(0, Outcome::Ok), (HANDLER, Outcome::Changed)]);
    let run = f.world.run("r").unwrap();
    assert!(owed(run, run.plan().unwrap(), 0).is_empty());
    assert!(before(run, run.plan().unwrap(), 0, 1).is_empty());
    let attempt = f.world.offers("a").next().unwrap().clone();
    assert!(protocol::work(&f.world, &attempt).unwrap().work.owed.is_empty());
}

#[test]
fn what_was_cut_notifies_though_the_next_attempt_finds_nothing_to_change() {
    let mut plan = notifying();
    plan.segments.iter_mut().for_each(|segment| {
        segment.tasks.iter_mut().for_each(|task| task.on_interrupt = OnInterrupt::Rerun.into());
    });
    let mut f = Fixture::new();
    f.admit(plan);
    f.settle();
    ends(&mut f, &[(0, Outcome::Interrupted)]);
    let attempt = f.world.offers("a").next().unwrap().clone();
    assert_eq!(attempt.attempt, 2);
    assert_eq!(protocol::work(&f.world, &attempt).unwrap().work.owed, [HANDLER], "it may have changed something");
    ends(&mut f, &[(0, Outcome::Ok), (HANDLER, Outcome::Failed)]);
    assert_eq!(names(&f), ["restart"]);
}
