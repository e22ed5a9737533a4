//! Who failed in a block waits for nobody in it, and nobody waits for it there.

use lockstep_apis::v1alpha::{
    BlockPart, CompiledBlock, CompiledTask, Outcome, Report, RunPhase, Snapshot, TaskReport, Within,
};

use crate::{
    fixture::{Fixture, plan, with_barriers},
    protocol,
    world::NodeEnd,
};

const RESCUE: u32 = 10;

/// A block over three segments with a rescue, and in the last segment a task behind it.
fn guarded(nodes: &[&str]) -> Snapshot {
    let mut plan = with_barriers(plan("r", nodes, nodes.len()), 3);
    let within = |part: BlockPart| vec![Within { block: 0, part: part.into() }];
    for (at, segment) in plan.segments.iter_mut().enumerate() {
        let template = segment.tasks[0].clone();
        segment.tasks[0].within = within(BlockPart::Body);
        segment.tasks.push(CompiledTask { index: RESCUE, within: within(BlockPart::Rescue), ..template.clone() });
        let block = CompiledBlock { rescues: true, begun: at > 0, goes_on: at < 2, ..Default::default() };
        segment.blocks.push(block);
        if at == 2 {
            segment.tasks.push(CompiledTask { index: 20, ..template });
        }
    }
    plan
}

impl Fixture {
    /// `node` claims, and reports these ends.
    fn ends(&mut self, node: &str, ends: &[(u32, Outcome)]) {
        let attempt = self.claim(node);
        let task =
            |&(task, outcome): &(u32, Outcome)| TaskReport { task, outcome: outcome.into(), ..Default::default() };
        let report = Report { tasks: ends.iter().map(task).collect(), ..Default::default() };
        self.commit(protocol::report(&attempt, &report, false)).unwrap();
        self.settle();
    }
}

#[test]
fn who_was_rescued_passes_the_barriers_of_the_block_and_goes_on_behind_it() {
    let mut f = Fixture::new();
    f.admit(guarded(&["a", "b"]));
    f.settle();
    f.ends("a", &[(0, Outcome::Failed), (RESCUE, Outcome::Changed)]);
    assert_eq!(f.offered(), ["r/b/0/1"], "not before b is through, too");
    f.ends("b", &[(0, Outcome::Ok)]);
    assert_eq!(f.offered(), ["r/b/1/1"], "a has left the block");
    f.ends("b", &[(1, Outcome::Ok)]);
    assert_eq!(f.offered(), ["r/a/2/1", "r/b/2/1"]);
    let attempt = f.world.offers("a").next().unwrap().clone();
    assert_eq!(protocol::work(&f.world, &attempt).unwrap().work.left_blocks, [0]);
    f.ends("a", &[(20, Outcome::Ok)]);
    f.ends("b", &[(2, Outcome::Ok), (20, Outcome::Ok)]);
    assert_eq!((f.phase("r"), f.end_of("r", "a")), (RunPhase::Succeeded, Some(NodeEnd::Changed)));
}

#[test]
fn when_all_have_left_the_block_its_barriers_are_none() {
    let mut f = Fixture::new();
    f.admit(guarded(&["a"]));
    f.settle();
    f.ends("a", &[(0, Outcome::Failed), (RESCUE, Outcome::Ok)]);
    assert_eq!(f.offered(), ["r/a/2/1"]);
    f.ends("a", &[(20, Outcome::Ok)]);
    assert_eq!(f.phase("r"), RunPhase::Succeeded);
}

#[test]
fn a_failure_that_no_rescue_ended_well_for_stops_the_run() {
    let mut f = Fixture::new();
    f.admit(guarded(&["a", "b"]));
    f.settle();
    f.ends("a", &[(0, Outcome::Failed), (RESCUE, Outcome::Failed)]);
    assert!(f.offered().is_empty());
    assert_eq!((f.phase("r"), f.end_of("r", "a")), (RunPhase::Failed, Some(NodeEnd::Failed)));
}

#[test]
fn a_rescue_that_was_cut_is_tried_again_and_the_failure_is_known() {
    let mut f = Fixture::new();
    f.admit(guarded(&["a"]));
    f.settle();
    f.ends("a", &[(0, Outcome::Failed), (RESCUE, Outcome::Interrupted)]);
    assert_eq!(f.offered(), ["r/a/0/2"]);
    let attempt = f.world.offers("a").next().unwrap().clone();
    let known = protocol::work(&f.world, &attempt).unwrap().work.known;
    assert_eq!(known.iter().map(|report| (report.task, report.outcome())).collect::<Vec<_>>(), [(0, Outcome::Failed)]);
    f.ends("a", &[(RESCUE, Outcome::Ok)]);
    assert_eq!(f.offered(), ["r/a/2/1"]);
}
