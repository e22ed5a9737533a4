//! What the store says about one node in one segment: its attempts, and what they come to.
//! Knows records; not windows, not other nodes.

use std::{collections::BTreeSet, sync::Arc};

use lockstep_apis::{
    commit::Revision,
    v1alpha::{
        Assignment, Claim, CompiledTask, EarlyEnd, OnInterrupt, Outcome, Report, Segment, TaskReport, Verdict,
        VerdictType,
    },
};

use crate::course::Course;

/// Most attempts of one segment on one node. A node that is cut off so often while it works is broken, and a segment
/// that is begun without end would hold up its window until the Run's timeout.
pub const MAX_ATTEMPTS: u32 = 10;

/// A record with the revision at which it was last written.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    /// The record.
    pub value: T,
    /// Its mod revision.
    pub revision: Revision,
}

/// One attempt, as far as the store knows it.
#[derive(Clone, Debug, Default)]
pub struct AttemptState {
    /// From 1; 0 holds only a verdict.
    pub number: u32,
    /// Made by the leader.
    pub assignment: Option<Stored<Arc<Assignment>>>,
    /// Made by the node.
    pub claim: Option<Stored<Claim>>,
    /// Made by the node.
    pub report: Option<Stored<Arc<Report>>>,
    /// Made by the leader, or by an admin who released the place.
    pub verdict: Option<Stored<Verdict>>,
    /// What the report comes to; kept because it is asked for at every step.
    pub(crate) ending: Option<Ending>,
}

/// What a report comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The node is through with the segment, or stops.
    Final(NodeEnd),
    /// It was cut off, and everything that may have run may run again.
    Rerun,
}

/// How a node ends, in a segment or in a Run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeEnd {
    /// All tasks ended well and nothing changed.
    Ok,
    /// All tasks ended well and something changed.
    Changed,
    /// A task failed.
    Failed,
    /// It was cordoned, or not connected and the Run skips such nodes.
    Skipped,
    /// It was not connected, and the Run fails such nodes.
    Unreachable,
    /// It claimed and did not report before the Run's timeout, before an admin released its place, or before its fence.
    Lost,
    /// The Run was stopped before the node was through.
    Cancelled,
    /// A task was cut off and must not run again.
    Interrupted,
}

impl NodeEnd {
    /// Whether the node goes on to the next segment.
    pub fn goes_on(self) -> bool {
        matches!(self, NodeEnd::Ok | NodeEnd::Changed)
    }

    /// Whether it counts against `maxFailures`.
    pub fn fails(self) -> bool {
        matches!(self, NodeEnd::Failed | NodeEnd::Unreachable | NodeEnd::Lost | NodeEnd::Interrupted)
    }

    /// The word in `RunNode.state`.
    pub fn word(self) -> &'static str {
        match self {
            NodeEnd::Ok => "Ok",
            NodeEnd::Changed => "Changed",
            NodeEnd::Failed => "Failed",
            NodeEnd::Skipped => "Skipped",
            NodeEnd::Unreachable => "Unreachable",
            NodeEnd::Lost => "Lost",
            NodeEnd::Cancelled => "Cancelled",
            NodeEnd::Interrupted => "Interrupted",
        }
    }
}

/// Where a node is in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is in the store.
    Unassigned,
    /// The last attempt waits for the node's claim.
    Assigned,
    /// The last attempt is claimed and not reported.
    Claimed,
    /// The last attempt was cut off; another one is due.
    Rerun,
    /// Nothing follows.
    Ended(NodeEnd),
}

impl AttemptState {
    /// Whether it takes a place in a window: from the assignment until report, withdrawal, release, a fence that has
    /// passed, or its node's end before it began.
    pub fn holds_place(&self) -> bool {
        use VerdictType::{Fenced, Released};
        let is_free = self.never_began() || matches!(self.verdict_type(), Some(Released | Fenced));
        self.assignment.is_some() && self.report.is_none() && !is_free
    }

    /// Whether a verdict, which compared that there was no claim, keeps there from ever being one.
    fn never_began(&self) -> bool {
        use VerdictType::{Skipped, Unreachable, Withdrawn};
        matches!(self.verdict_type(), Some(Withdrawn | Skipped | Unreachable))
    }

    /// Whether the node was given up under `onNodeLost: AfterFence`: no server keeps its work alive any more.
    pub fn is_fenced(&self) -> bool {
        matches!(self.verdict_type(), Some(VerdictType::Fencing | VerdictType::Fenced))
    }

    /// Whether the node may have work of it: assigned, not taken back before it began, not reported.
    pub fn outstanding(&self) -> bool {
        self.assignment.is_some() && self.report.is_none() && !self.never_began()
    }

    /// The verdict's type, if there is one.
    pub fn verdict_type(&self) -> Option<VerdictType> {
        self.verdict.as_ref().map(|verdict| verdict.value.r#type())
    }

    /// The report, if it counts: one that came after a verdict does not.
    pub fn counted_report(&self) -> Option<&Arc<Report>> {
        self.report.as_ref().map(|report| &report.value).filter(|report| !report.late && self.verdict.is_none())
    }

    fn stage(&self) -> Stage {
        if let Some(verdict) = self.verdict_type() {
            return Stage::Ended(match verdict {
                VerdictType::Skipped => NodeEnd::Skipped,
                VerdictType::Unreachable => NodeEnd::Unreachable,
                VerdictType::Lost | VerdictType::Released | VerdictType::Fencing | VerdictType::Fenced => NodeEnd::Lost,
                VerdictType::Withdrawn | VerdictType::Unspecified => NodeEnd::Cancelled,
            });
        }
        match (self.ending, &self.claim, &self.assignment) {
            (Some(Ending::Final(end)), ..) => Stage::Ended(end),
            (Some(Ending::Rerun), ..) => Stage::Rerun,
            (None, Some(_), _) => Stage::Claimed,
            (None, None, Some(_)) => Stage::Assigned,
            (None, None, None) => Stage::Unassigned,
        }
    }
}

/// The attempts of one node in one segment.
#[derive(Clone, Debug, Default)]
pub struct Track {
    /// In order of number.
    pub attempts: Vec<AttemptState>,
}

impl Track {
    /// Where the node is.
    pub fn stage(&self) -> Stage {
        self.attempts.last().map_or(Stage::Unassigned, AttemptState::stage)
    }

    /// The last attempt.
    pub fn last(&self) -> Option<&AttemptState> {
        self.attempts.last()
    }

    /// An attempt by its number.
    pub fn attempt(&self, number: u32) -> Option<&AttemptState> {
        self.attempts.iter().find(|attempt| attempt.number == number)
    }

    /// The attempt of a number; made if there is none.
    pub(crate) fn attempt_mut(&mut self, number: u32) -> &mut AttemptState {
        let at = self.attempts.partition_point(|attempt| attempt.number < number);
        if self.attempts.get(at).is_none_or(|attempt| attempt.number != number) {
            self.attempts.insert(at, AttemptState { number, ..Default::default() });
        }
        &mut self.attempts[at]
    }

    /// Reports of the tasks that are known to have ended, over all attempts; the last report of a task counts.
    pub fn known(&self) -> Vec<TaskReport> {
        let mut known: Vec<TaskReport> = Vec::new();
        for attempt in &self.attempts {
            let Some(report) = attempt.counted_report() else { continue };
            for task in report.tasks.iter().filter(|task| is_known(task.outcome())) {
                known.retain(|earlier| earlier.task != task.task);
                known.push(task.clone());
            }
        }
        known.sort_by_key(|report| report.task);
        known
    }
}

/// What a report comes to for this segment, by an attempt of this assignment; and the blocks that the node left in it
/// for good.
pub(crate) fn ending(
    segment: &Segment,
    assignment: &Assignment,
    report: &Report,
    attempt: u32,
) -> (Ending, BTreeSet<u32>) {
    let mut course = Course::new(&segment.tasks, &segment.blocks, &assignment.left_blocks).owing(&assignment.owed);
    let ending = through(&mut course, segment, assignment, report, attempt);
    (ending, course.left_behind().collect())
}

fn through(
    course: &mut Course<'_>,
    segment: &Segment,
    assignment: &Assignment,
    report: &Report,
    attempt: u32,
) -> Ending {
    if !report.error.is_empty() {
        return Ending::Final(NodeEnd::Failed);
    }
    // The report has the last word on a task.
    let ends = || report.tasks.iter().chain(&assignment.known);
    let has_ended = |report: &&TaskReport| is_known(report.outcome()) || report.outcome() == Outcome::Cancelled;
    let end_of = |task: &CompiledTask| ends().find(|report| report.task == task.index).filter(has_ended);
    let is_complete = course.resume(end_of).is_none();
    // What a cancel left undone stays so.
    if ends().any(|task| task.outcome() == Outcome::Cancelled) {
        let failed = course.fall().is_some_and(|fall| fall.outcome == Outcome::Failed);
        return Ending::Final(if failed { NodeEnd::Failed } else { NodeEnd::Cancelled });
    }
    let may_rerun = |index: u32| {
        segment
            .tasks
            .iter()
            .find(|task| task.index == index)
            .is_some_and(|task| task.on_interrupt() == OnInterrupt::Rerun)
    };
    let interrupted =
        || report.tasks.iter().filter(|task| matches!(task.outcome(), Outcome::Interrupted | Outcome::Lost));
    if interrupted().any(|task| !may_rerun(task.task)) {
        return Ending::Final(NodeEnd::Interrupted);
    }
    if is_complete {
        let changed = ends().any(|task| task.outcome() == Outcome::Changed);
        return Ending::Final(match (course.fall(), changed) {
            (Some(_), _) => NodeEnd::Failed,
            (None, true) => NodeEnd::Changed,
            (None, false) => NodeEnd::Ok,
        });
    }
    // What is missing did not start, or may run again.
    if attempt < MAX_ATTEMPTS { Ending::Rerun } else { Ending::Final(NodeEnd::Interrupted) }
}

/// A failure is an end, too: a block may have gone on after it.
fn is_known(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Ok | Outcome::Changed | Outcome::Skipped | Outcome::Unpredicted | Outcome::Failed)
}

/// The verdict that an early end is.
pub(crate) fn early_verdict(early: EarlyEnd) -> Option<(VerdictType, &'static str)> {
    match early {
        EarlyEnd::Unspecified => None,
        EarlyEnd::Cordoned => Some((VerdictType::Skipped, "cordoned when the run was admitted")),
        EarlyEnd::UnreachableSkipped => {
            Some((VerdictType::Skipped, "not connected when the run was admitted; `onUnreachable: Skip`"))
        }
        EarlyEnd::UnreachableFailed => {
            Some((VerdictType::Unreachable, "not connected when the run was admitted; `onUnreachable: Fail`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::{BlockPart, CompiledBlock, CompiledTask, Within};

    fn segment() -> Segment {
        let task = |index, on: OnInterrupt| CompiledTask { index, on_interrupt: on.into(), ..Default::default() };
        Segment { tasks: vec![task(0, OnInterrupt::Rerun), task(1, OnInterrupt::Fail)], ..Default::default() }
    }

    /// A block of a task that may be cut, one that rescues, one of always; then one after it.
    fn block() -> Segment {
        let task = |index, part: Option<BlockPart>| {
            let within = part.map(|part| Within { block: 0, part: part.into() }).into_iter().collect();
            CompiledTask { index, within, on_interrupt: OnInterrupt::Rerun.into(), ..Default::default() }
        };
        let parts = [Some(BlockPart::Body), Some(BlockPart::Rescue), Some(BlockPart::Always), None];
        let blocks = vec![CompiledBlock { rescues: true, ..Default::default() }];
        let tasks = parts.into_iter().enumerate().map(|(at, part)| task(at as u32, part)).collect();
        Segment { tasks, blocks, ..Default::default() }
    }

    fn ending_of(segment: &Segment, known: Vec<TaskReport>, report: &Report, attempt: u32) -> Ending {
        ending(segment, &Assignment { known, ..Default::default() }, report, attempt).0
    }

    fn report(outcomes: &[(u32, Outcome)]) -> Report {
        let task =
            |&(task, outcome): &(u32, Outcome)| TaskReport { task, outcome: outcome.into(), ..Default::default() };
        Report { tasks: outcomes.iter().map(task).collect(), ..Default::default() }
    }

    #[test]
    fn a_report_comes_to_what_its_tasks_say() {
        use {NodeEnd as N, Outcome as O};
        let table = [
            (vec![(0, O::Ok), (1, O::Skipped)], Ending::Final(N::Ok)),
            (vec![(0, O::Ok), (1, O::Changed)], Ending::Final(N::Changed)),
            (vec![(0, O::Changed), (1, O::Failed)], Ending::Final(N::Failed)),
            (vec![(0, O::Changed), (1, O::Cancelled)], Ending::Final(N::Cancelled)),
            (vec![(0, O::Interrupted)], Ending::Rerun),
            (vec![(0, O::Ok), (1, O::Interrupted)], Ending::Final(N::Interrupted)),
            (vec![(0, O::Interrupted), (1, O::Interrupted)], Ending::Final(N::Interrupted)),
            // The executor died between two tasks: nothing that may have run is open.
            (vec![(0, O::Ok)], Ending::Rerun),
        ];
        for (outcomes, expected) in table {
            assert_eq!(ending_of(&segment(), Vec::new(), &report(&outcomes), 1), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn what_earlier_attempts_ended_completes_a_later_report() {
        let known = report(&[(0, Outcome::Changed)]).tasks;
        let ended = ending_of(&segment(), known, &report(&[(1, Outcome::Ok)]), 2);
        assert_eq!(ended, Ending::Final(NodeEnd::Changed));
    }

    #[test]
    fn an_ignored_failure_lets_the_node_go_on_and_is_not_done_again() {
        let mut ignored = report(&[(0, Outcome::Failed)]);
        ignored.tasks[0].ignored = true;
        let both = Report { tasks: [ignored.tasks.clone(), report(&[(1, Outcome::Ok)]).tasks].concat(), ..report(&[]) };
        assert_eq!(ending_of(&segment(), Vec::new(), &both, 1), Ending::Final(NodeEnd::Ok));
        assert_eq!(
            ending_of(&segment(), ignored.tasks.clone(), &report(&[(1, Outcome::Changed)]), 2),
            Ending::Final(NodeEnd::Changed)
        );
        assert!(is_known(ignored.tasks[0].outcome()));
    }

    #[test]
    fn a_segment_is_not_begun_for_ever() {
        let cut = report(&[(0, Outcome::Interrupted)]);
        assert_eq!(ending_of(&segment(), Vec::new(), &cut, MAX_ATTEMPTS), Ending::Final(NodeEnd::Interrupted));
    }

    #[test]
    fn only_what_was_not_rescued_fails_the_node() {
        use {NodeEnd as N, Outcome as O};
        let table = [
            (vec![(0, O::Ok), (2, O::Ok), (3, O::Ok)], Ending::Final(N::Ok)),
            (vec![(0, O::Failed), (1, O::Ok), (2, O::Changed), (3, O::Ok)], Ending::Final(N::Changed)),
            (vec![(0, O::Failed), (1, O::Failed), (2, O::Ok)], Ending::Final(N::Failed)),
            (vec![(0, O::Ok), (2, O::Failed)], Ending::Final(N::Failed)),
            (vec![(0, O::Cancelled), (2, O::Ok)], Ending::Final(N::Cancelled)),
            (vec![(0, O::Cancelled)], Ending::Final(N::Cancelled)),
            // Cut off on the way to its end.
            (vec![(0, O::Failed)], Ending::Rerun),
            (vec![(0, O::Failed), (1, O::Interrupted)], Ending::Rerun),
            (vec![(0, O::Failed), (1, O::Failed), (2, O::Interrupted)], Ending::Rerun),
            (vec![(0, O::Ok), (2, O::Ok)], Ending::Rerun),
        ];
        for (outcomes, expected) in table {
            assert_eq!(ending_of(&block(), Vec::new(), &report(&outcomes), 1), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn a_failure_of_an_earlier_attempt_is_still_rescued() {
        let known = report(&[(0, Outcome::Failed)]).tasks;
        let rest = report(&[(1, Outcome::Ok), (2, Outcome::Ok), (3, Outcome::Ok)]);
        assert_eq!(ending_of(&block(), known, &rest, 2), Ending::Final(NodeEnd::Ok));
    }

    #[test]
    fn who_fails_in_a_block_that_goes_on_has_left_it() {
        let mut segment = block();
        segment.tasks.truncate(3);
        segment.blocks[0].goes_on = true;
        let rescued = report(&[(0, Outcome::Failed), (1, Outcome::Ok), (2, Outcome::Ok)]);
        let ended = ending(&segment, &Assignment::default(), &rescued, 1);
        assert_eq!(ended, (Ending::Final(NodeEnd::Ok), BTreeSet::from([0])));
        let ended = ending(&segment, &Assignment::default(), &report(&[(0, Outcome::Ok)]), 1);
        assert_eq!(ended, (Ending::Final(NodeEnd::Ok), BTreeSet::new()));
    }

    #[test]
    fn only_lost_and_fencing_keep_the_place_among_verdicts() {
        use VerdictType as V;
        let table = [
            (V::Withdrawn, false),
            (V::Released, false),
            (V::Fenced, false),
            (V::Skipped, false),
            (V::Unreachable, false),
            (V::Lost, true),
            (V::Fencing, true),
        ];
        for (verdict, held) in table {
            let attempt = AttemptState {
                number: 1,
                assignment: Some(Stored { value: Arc::default(), revision: 1 }),
                verdict: Some(Stored { value: Verdict { r#type: verdict.into(), ..Default::default() }, revision: 2 }),
                ..Default::default()
            };
            assert_eq!(attempt.holds_place(), held, "{verdict:?}");
        }
    }
}
