//! What is known when all is over: books, and for each attempt when what happened to it.

use std::collections::BTreeMap;

use lockstep_apis::{
    keys::{self, Attempt},
    v1alpha::{
        Assignment, Cursor, EarlyEnd, Gate, GateReasonType, LockMode, LockStatus, OnInterrupt, Outcome, Report, Run,
        TaskReport, VerdictType,
    },
};
use prost::Message;

use super::{Checker, Fault};
use crate::simulation::{
    Seen,
    books::{Book, Guard},
    cluster::{Cluster, Deed, START_MS},
    store::Change,
};

/// One attempt's records, with the true time of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// Who does it; the node that it is for, unless it is delegated.
    pub(super) doer: usize,
    pub(super) assigned: Option<(u64, Assignment)>,
    pub(super) claimed: Option<u64>,
    pub(super) report: Option<(u64, Report)>,
    pub(super) verdict: Option<(u64, VerdictType)>,
    /// When an admin freed the place: from then on it is not counted.
    pub(super) released: Option<u64>,
}

impl Life {
    pub(super) fn holds_place(&self) -> bool {
        use VerdictType::{Fenced, Released, Skipped, Unreachable, Withdrawn};
        let freed = matches!(self.verdict, Some((_, Withdrawn | Released | Fenced | Skipped | Unreachable)));
        self.assigned.is_some() && self.report.is_none() && !freed
    }

    /// When it was over, by report or verdict.
    pub(super) fn over(&self) -> Option<u64> {
        let report = self.report.as_ref().map(|(at, _)| *at);
        let verdict = self.verdict.as_ref().map(|(at, _)| *at);
        report.into_iter().chain(verdict).min()
    }
}

/// What the store holds of one Run, while its history is replayed.
#[derive(Clone, Debug, Default)]
pub(super) struct RunFacts {
    pub(super) cursor: Option<Cursor>,
    pub(super) gate: Option<Gate>,
    pub(super) object: Option<Run>,
    pub(super) ended: Option<u64>,
    /// By (segment, node that it is for, attempt).
    pub(super) lives: BTreeMap<(u32, usize, u32), Life>,
}

pub(super) struct Facts<'c> {
    pub(super) cluster: &'c Cluster,
    pub(super) runs: Vec<RunFacts>,
    /// By name, as far as the history is replayed.
    pub(super) locks: BTreeMap<String, LockStatus>,
    /// Runs that failed in the commit that is replayed, and held their locks.
    pub(super) failing: Vec<usize>,
    /// What admins did, and what was left poisoned.
    pub(super) acquired: u64,
    pub(super) poisoned: u64,
    pub(super) faults: Vec<Fault>,
}

impl<'c> Facts<'c> {
    pub(super) fn new(cluster: &'c Cluster) -> Self {
        Facts {
            cluster,
            runs: vec![RunFacts::default(); cluster.books.len()],
            locks: BTreeMap::new(),
            failing: Vec::new(),
            acquired: 0,
            poisoned: 0,
            faults: Vec::new(),
        }
    }

    pub(super) fn object(&mut self, checker: Checker, at_ms: u64, message: impl Into<String>) {
        self.faults.push(Fault { checker, at_ms: at_ms - START_MS, message: message.into() });
    }

    /// What happened, once the history is replayed.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = Seen { commits: self.cluster.store.history.len() as u64, ..Seen::default() };
        for change in self.cluster.store.history.iter().flat_map(|committed| &committed.changes) {
            let Change::Put(entry) = change else { continue };
            seen.terms += u64::from(entry.key == keys::leader());
        }
        for mark in &self.cluster.executions {
            seen.starts += u64::from(mark.what == Deed::Start);
            let book = &self.cluster.books[run_index(&mark.attempt.run)];
            seen.free += u64::from(mark.what == Deed::Start && book.is_free(mark.attempt.segment, mark.task));
            seen.cut += u64::from(mark.what == Deed::Killed);
            seen.reboots +=
                u64::from(mark.what == Deed::Start && self.book(run_index(&mark.attempt.run)).reboots(mark.task));
        }
        seen.refused = (0..self.runs.len()).filter(|&run| self.cluster.is_refused(run)).count() as u64;
        (seen.acquired, seen.poisoned) = (self.acquired, self.poisoned);
        for run in &self.runs {
            let status = run.object.as_ref().and_then(|object| object.status.as_ref());
            seen.approved += u64::from(status.is_some_and(|status| status.approval.is_some()));
            let reasons = run.gate.iter().flat_map(|gate| &gate.reasons);
            seen.replaced += reasons.filter(|reason| reason.message.starts_with("replaced by")).count() as u64;
            seen.closed += u64::from(run.gate.as_ref().is_some_and(|gate| !gate.reasons.is_empty()));
            for ((_, node, number), life) in &run.lives {
                let verdict = life.verdict.map(|(_, verdict)| verdict);
                seen.reruns += u64::from(*number > 1);
                seen.delegated += u64::from(life.claimed.is_some() && life.doer != *node);
                let is_given_up =
                    matches!(verdict, Some(VerdictType::Skipped | VerdictType::Unreachable)) && *number > 0;
                seen.given_up += u64::from(is_given_up);
                seen.withdrawn += u64::from(verdict == Some(VerdictType::Withdrawn));
                seen.lost += u64::from(verdict == Some(VerdictType::Lost));
                seen.fenced += u64::from(verdict == Some(VerdictType::Fenced) && life.claimed.is_some());
                seen.released += u64::from(life.released.is_some());
                let tasks = life.report.iter().flat_map(|(_, report)| &report.tasks);
                seen.left_out += tasks.filter(|task| task.outcome() == Outcome::Skipped).count() as u64;
                seen.late += u64::from(life.report.as_ref().is_some_and(|(_, report)| report.late));
            }
        }
        seen
    }

    pub(super) fn run_named(&self, name: &str) -> usize {
        let named = |book: &Book| book.snapshot.run_name == name;
        self.cluster.books.iter().position(named).expect("every Run has a book")
    }

    pub(super) fn book(&self, run: usize) -> &'c Book {
        &self.cluster.books[run]
    }
}

pub(super) fn run_index(uid: &str) -> usize {
    uid[1..].parse().expect("runs are named r0, r1, …")
}

pub(super) fn node_index(uid: &str) -> usize {
    uid[1..].parse().expect("nodes are named n0, n1, …")
}

impl Book {
    pub(super) fn group_of(&self, segment: u32) -> usize {
        let groups = self.snapshot.groups.iter();
        let mut groups = groups.enumerate();
        groups
            .find(|(_, group)| (group.first_segment..group.first_segment + group.segment_count).contains(&segment))
            .map(|(at, _)| at)
            .expect("every segment is in a group")
    }

    pub(super) fn window_of(&self, group: usize, node: usize) -> Option<usize> {
        self.snapshot.groups[group].windows.iter().position(|window| window.nodes.contains(&(node as u32)))
    }

    pub(super) fn takes_part(&self, segment: u32, node: usize) -> bool {
        let of = &self.snapshot.segments[segment as usize];
        of.all_of_window || of.nodes.contains(&(node as u32))
    }

    /// Who does the segment for a node.
    pub(super) fn doer(&self, segment: u32, node: usize) -> usize {
        let of = &self.snapshot.segments[segment as usize];
        let beside = of.nodes.iter().position(|&member| member as usize == node);
        beside.and_then(|at| of.delegates.get(at)).map_or(node, |&delegate| delegate as usize)
    }

    pub(super) fn is_early(&self, node: usize) -> bool {
        self.snapshot.nodes[node].early() != EarlyEnd::Unspecified
    }

    pub(super) fn locks_against(&self, other: &Book) -> bool {
        self.snapshot.locks.iter().any(|mine| {
            other.snapshot.locks.iter().any(|theirs| {
                mine.name == theirs.name && (mine.mode() != LockMode::Read || theirs.mode() != LockMode::Read)
            })
        })
    }

    /// Whether both have the same concurrency key.
    pub(super) fn shares_key(&self, other: &Book) -> bool {
        !self.snapshot.concurrency_key.is_empty() && self.snapshot.concurrency_key == other.snapshot.concurrency_key
    }

    pub(super) fn must_not_rerun(&self, segment: u32, task: u32) -> bool {
        let tasks = &self.snapshot.segments[segment as usize].tasks;
        tasks.iter().any(|of| of.index == task && of.on_interrupt() != OnInterrupt::Rerun)
    }
}

/// What a node's ends in a segment come to, by the words of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Well,
    Failed,
    Cancelled,
    /// Something that is due has no end.
    Unfinished,
}

/// What tasks come to that are done one after another.
fn in_turn(tasks: &[u32], ends: &impl Fn(u32) -> Option<Outcome>) -> Came {
    for task in tasks {
        match ends(*task) {
            None | Some(Outcome::Interrupted) => return Came::Unfinished,
            Some(Outcome::Failed) => return Came::Failed,
            Some(Outcome::Cancelled) => return Came::Cancelled,
            Some(_) => {}
        }
    }
    Came::Well
}

/// What tasks come to that are done beside each other.
fn beside(tasks: &[u32], ends: &impl Fn(u32) -> Option<Outcome>) -> Came {
    let ends: Vec<Option<Outcome>> = tasks.iter().map(|task| ends(*task)).collect();
    if ends.contains(&Some(Outcome::Failed)) {
        Came::Failed
    } else if ends.contains(&Some(Outcome::Cancelled)) {
        Came::Cancelled
    } else if ends.iter().any(|end| end.is_none_or(|end| end == Outcome::Interrupted)) {
        Came::Unfinished
    } else {
        Came::Well
    }
}

impl Book {
    /// The block that some of a segment's tasks are in.
    pub(super) fn guard_of(&self, segment: u32) -> Option<&Guard> {
        self.guards.iter().find(|guard| (guard.first..=guard.last).contains(&segment))
    }

    /// Whether all of a segment's tasks are in its block.
    pub(super) fn is_guarded_whole(&self, segment: u32) -> bool {
        let guard = self.guard_of(segment);
        let tasks = &self.snapshot.segments[segment as usize].tasks;
        guard.is_some_and(|guard| {
            let all = || guard.body.iter().chain(&guard.rescue).chain(&guard.always);
            tasks.iter().all(|task| all().any(|index| *index == task.index))
        })
    }

    /// What a node's ends in a segment come to; `left`: it failed in the segment's block before.
    /// `owed`: handlers that the node's assignment says it owes.
    pub(super) fn came_to(
        &self,
        segment: u32,
        (left, owed): (bool, &[u32]),
        reported: impl Fn(u32) -> Option<Outcome>,
    ) -> Came {
        // A handler that nothing called is no task.
        let ends = |task: u32| match self.handlers.iter().find(|handler| handler.index == task) {
            Some(handler) if !owed.contains(&task) => {
                let mut by = handler.notified_by.iter();
                let called = by.any(|task| reported(*task) == Some(Outcome::Changed));
                if called { reported(task) } else { Some(Outcome::Skipped) }
            }
            _ => reported(task),
        };
        let tasks: Vec<u32> = self.snapshot.segments[segment as usize].tasks.iter().map(|task| task.index).collect();
        let of = &self.snapshot.segments[segment as usize].tasks;
        let together = of.iter().filter(|task| task.together != 0).count();
        if together > 0 {
            let all = beside(&tasks[..together], &ends);
            return if all == Came::Well { in_turn(&tasks[together..], &ends) } else { all };
        }
        let Some(guard) = self.guard_of(segment) else { return in_turn(&tasks, &ends) };
        let outside = |task: &u32| ![&guard.body, &guard.rescue, &guard.always].iter().any(|part| part.contains(task));
        let begin = tasks.iter().position(|task| !outside(task)).unwrap_or(tasks.len());
        let before = in_turn(&tasks[..begin], &ends);
        if before != Came::Well {
            return before;
        }
        let after: Vec<u32> = tasks[begin..].iter().copied().filter(outside).collect();
        if left {
            return in_turn(&after, &ends);
        }
        let body: Vec<u32> = tasks.iter().copied().filter(|task| guard.body.contains(task)).collect();
        let body = in_turn(&body, &ends);
        let mut block = body;
        if body == Came::Failed && !guard.rescue.is_empty() {
            block = in_turn(&guard.rescue, &ends);
        }
        if block == Came::Unfinished || block == Came::Cancelled {
            return block;
        }
        if segment == guard.last || body != Came::Well {
            let always = in_turn(&guard.always, &ends);
            if always == Came::Unfinished || block == Came::Well {
                block = always;
            }
        }
        if block == Came::Well { in_turn(&after, &ends) } else { block }
    }
}

impl RunFacts {
    /// Whether the node's end in a segment, as known at a time, keeps it from going on; and whether it is a failure.
    pub(super) fn stopped(&self, book: &Book, segment: u32, node: usize, at_ms: u64) -> Option<bool> {
        let lives = self.lives.range((segment, node, 0)..=(segment, node, u32::MAX));
        for (&(_, _, number), life) in lives {
            if let Some((_, verdict)) = life.verdict.filter(|(at, _)| *at <= at_ms) {
                return Some(!matches!(verdict, VerdictType::Skipped | VerdictType::Withdrawn));
            }
            let Some((_, report)) = life.report.as_ref().filter(|(at, report)| *at <= at_ms && !report.late) else {
                continue;
            };
            let mut cut = report.tasks.iter().filter(|task| task.outcome() == Outcome::Interrupted);
            let fatal = cut.any(|task| book.must_not_rerun(segment, task.task));
            let known: Vec<&TaskReport> = life.assigned.iter().flat_map(|(_, assignment)| &assignment.known).collect();
            let ends = |task: u32| {
                let mut all = report.tasks.iter().chain(known.iter().copied());
                all.find(|report| report.task == task).map(TaskReport::outcome)
            };
            let left = self.left(book, segment, node, at_ms);
            let owed = life.assigned.as_ref().map_or(&[][..], |(_, assignment)| &assignment.owed);
            match book.came_to(segment, (left, owed), ends) {
                Came::Failed => return Some(true),
                Came::Cancelled => return Some(false),
                Came::Unfinished if fatal || number >= 10 => return Some(true),
                Came::Unfinished | Came::Well => {}
            }
        }
        None
    }

    /// Whether the node failed in the block that a segment is of, in an earlier one, as known at a time.
    pub(super) fn left(&self, book: &Book, segment: u32, node: usize, at_ms: u64) -> bool {
        let Some(guard) = book.guard_of(segment) else { return false };
        let mut lives = (guard.first..segment)
            .flat_map(|earlier| self.lives.range((earlier, node, 1)..=(earlier, node, u32::MAX)))
            .filter_map(|(_, life)| life.report.as_ref())
            .filter(|(at, report)| *at <= at_ms && !report.late);
        lives.any(|(_, report)| {
            report.tasks.iter().any(|task| guard.body.contains(&task.task) && task.outcome() == Outcome::Failed)
        })
    }

    /// Whether the node will do nothing more of the segment, as known at a time.
    pub(super) fn through(&self, book: &Book, segment: u32, node: usize, at_ms: u64) -> bool {
        if book.is_early(node) || (0..=segment).any(|earlier| self.stopped(book, earlier, node, at_ms).is_some()) {
            return true;
        }
        if self.left(book, segment, node, at_ms) && book.is_guarded_whole(segment) {
            return true;
        }
        let mut lives = self.lives.range((segment, node, 1)..=(segment, node, u32::MAX));
        let last = lives.next_back();
        last.is_some_and(|(_, life)| life.over().is_some_and(|over| over <= at_ms))
    }

    /// Failures of a group, as known at a time.
    pub(super) fn failures(&self, book: &Book, group: usize, at_ms: u64) -> u32 {
        let of = &book.snapshot.groups[group];
        let segments = || of.first_segment..of.first_segment + of.segment_count;
        let nodes = of.windows.iter().flat_map(|window| &window.nodes);
        let failed = |node: usize| segments().any(|segment| self.stopped(book, segment, node, at_ms) == Some(true));
        nodes.filter(|&&node| failed(node as usize)).count() as u32
    }

    /// It is there, and may still do something or hold something.
    pub(super) fn is_live(&self) -> bool {
        self.object.is_some() && (self.ended.is_none() || self.cursor.is_some())
    }

    /// What it does is asked to stop.
    pub(super) fn is_stopped(&self) -> bool {
        let mut reasons = self.gate.iter().flat_map(|gate| &gate.reasons);
        reasons.any(|reason| matches!(reason.r#type(), GateReasonType::Cancelled | GateReasonType::TimedOut))
    }

    pub(super) fn places(&self) -> impl Iterator<Item = (&(u32, usize, u32), &Life)> {
        self.lives.iter().filter(|(_, life)| life.holds_place())
    }
}

/// The story in lines.
pub(super) fn tell(cluster: &Cluster) -> Vec<String> {
    let mut lines: Vec<(u64, String)> = Vec::new();
    for committed in &cluster.store.history {
        let term = committed.term.map(|term| format!(" term {term}")).unwrap_or_default();
        for change in &committed.changes {
            let text = match change {
                Change::Put(entry) => format!("put {} {}", entry.key, value_text(entry)),
                Change::Delete(key) => format!("delete {key}"),
            };
            lines.push((committed.at_ms, format!("@{}{term} {text}", committed.revision)));
        }
    }
    for execution in &cluster.executions {
        let Attempt { run, segment, for_node, node, attempt } = &execution.attempt;
        let text =
            format!("    {run}/{segment}/{for_node}/{node}/{attempt} task {} {:?}", execution.task, execution.what);
        lines.push((execution.at_ms, text));
    }
    lines.sort_by_key(|(at, _)| *at);
    let books = cluster.books.iter().map(|book| format!("{:?}", book.snapshot));
    books.chain(lines.into_iter().map(|(at, text)| format!("{:>7} {text}", at - START_MS))).collect()
}

fn value_text(entry: &lockstep_apis::commit::Entry) -> String {
    use keys::{AttemptKey, Parsed};
    let bytes = entry.value.as_slice();
    let text = match keys::parse(&entry.key) {
        Some(Parsed::Gate { .. }) => Gate::decode(bytes).map(|value| format!("{value:?}")),
        Some(Parsed::Cursor { .. }) => Cursor::decode(bytes).map(|value| format!("{value:?}")),
        Some(Parsed::Object { kind, .. }) if kind == "locks" => {
            lockstep_apis::v1alpha::Lock::decode(bytes).map(|value| format!("{:?}", value.status))
        }
        Some(Parsed::Object { .. }) => Run::decode(bytes).map(|value| format!("{:?}", value.status)),
        Some(Parsed::Attempt { kind: AttemptKey::Report, .. }) => Report::decode(bytes).map(|value| {
            let tasks: Vec<_> = value.tasks.iter().map(|task| (task.task, task.outcome())).collect();
            format!("late {} {tasks:?} {}", value.late, value.error)
        }),
        Some(Parsed::Attempt { kind: AttemptKey::Verdict, .. }) => {
            lockstep_apis::v1alpha::Verdict::decode(bytes).map(|value| format!("{:?}", value.r#type()))
        }
        Some(Parsed::Attempt { kind: AttemptKey::Claim, .. }) => {
            lockstep_apis::v1alpha::Claim::decode(bytes).map(|value| value.instance)
        }
        _ => Ok(String::new()),
    };
    text.unwrap_or_default()
}
