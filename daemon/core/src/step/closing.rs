//! Ends: early ends of nodes, limits that close a gate, what a closed gate means for what is assigned, and the end of a
//! Run. Everything here happens whether or not the Run may move.

use lockstep_apis::{
    commit::{Commit, Compare, MAX_OPERATIONS},
    keys::{self, AttemptKey},
    v1alpha::{GateReason, GateReasonType, OnFailure, Verdict, VerdictType},
};
use prost::Message;

use super::{Active, Deciding, MAX_COMPARES, rollout::is_through, waiting};
use crate::{
    outcome, protocol,
    world::{RunState, Stage, early_verdict},
};

/// Who writes verdicts and closes gates on its own.
const BY_LEADER: &str = "leader";

impl<'w> Deciding<'w> {
    /// Cancelled before it was admitted.
    pub(super) fn end_pending(&mut self, run: &'w RunState) {
        let (Some(object), Some(gate)) = (run.object(), run.gate()) else { return };
        let status = outcome::status(run, &[], self.now_ms, true);
        let commit = self
            .commit()
            .when(Compare::Absent(keys::cursor(run.uid())))
            .when(Compare::ModRevision(keys::gate(run.uid()), gate.revision));
        self.step.commits.push(outcome::write_status(commit, object, status));
    }

    /// Ended, and kept only for places that are held.
    pub(super) fn forget_ended(&mut self, run: &'w RunState) {
        let (Some(revision), Some(plan)) = (run.cursor_revision(), run.plan()) else { return };
        let key = keys::cursor(run.uid());
        let places = run.places();
        if !places.is_empty() {
            let reasons = places.iter().map(|(segment, node, _)| {
                let name = plan.doer_name(*segment, *node);
                let message = format!("{name} has not reported; `lockstep release` gives its place free");
                waiting(format!("node/{name}"), "PlaceHeld", message)
            });
            self.step.why.insert(run.uid().to_owned(), reasons.take(super::MAX_WAITING).collect());
        }
        let stored = run.object().and_then(|object| object.value.status.as_ref()).map(|status| status.held_nodes.len());
        let held = outcome::held_nodes(run).len();
        if !places.is_empty() && stored.is_none_or(|stored| stored == held) {
            return;
        }
        let mut commit = self.commit().when(Compare::ModRevision(key.clone(), revision));
        if let Some(object) = run.object() {
            commit = outcome::write_status(commit, object, outcome::status(run, &[], self.now_ms, true));
        }
        self.step.commits.push(if places.is_empty() { commit.delete(key) } else { commit });
    }

    pub(super) fn close(&mut self) {
        for at in 0..self.active.len() {
            self.write_early_ends(at);
            self.close_gate(at);
            if self.active[at].run.is_closed() && !self.active[at].settled {
                self.end_attempts(at);
                if self.active[at].run.open().is_empty() {
                    self.end(at);
                }
                self.active[at].settled = true;
            }
        }
    }

    /// Nodes that were cordoned or down at admission end before any other.
    fn write_early_ends(&mut self, at: usize) {
        let active = &self.active[at];
        let (run, plan) = (active.run, active.plan);
        let due = plan.snapshot.nodes.iter().enumerate().filter_map(|(node, of)| {
            let (verdict, message) = early_verdict(of.early())?;
            let segment = plan.first_segment(node as u32)?;
            run.stop(node as u32).is_none().then_some((segment, node as u32, verdict, message))
        });
        let due: Vec<_> = due.collect();
        for some in due.chunks(MAX_COMPARES - 1) {
            let commit = some.iter().fold(self.commit(), |commit, &(segment, node, verdict, message)| {
                let key = AttemptKey::Verdict.of(&run.attempt_of(plan, segment, node, 0));
                commit.create(key, self.verdict(verdict, message).encode_to_vec())
            });
            self.step.commits.push(commit);
        }
        // Failures among them count before a window opens.
        self.active[at].settled |= !due.is_empty();
    }

    fn verdict(&self, kind: VerdictType, message: &str) -> Verdict {
        Verdict { r#type: kind.into(), at_ms: self.now_ms, by: BY_LEADER.into(), message: message.into() }
    }

    /// Closes the gate at the Run's timeout, or when too many nodes failed.
    fn close_gate(&mut self, at: usize) {
        let active = &self.active[at];
        let deadline_ms = deadline_ms(active);
        let timed_out = active.run.gate_has(GateReasonType::TimedOut);
        if !timed_out && self.now_ms < deadline_ms {
            self.wake_at(deadline_ms);
        }
        let active = &self.active[at];
        let reason = if !timed_out && self.now_ms >= deadline_ms && !is_through(active) {
            Some((GateReasonType::TimedOut, "the run's timeout has passed".to_owned()))
        } else if active.run.is_closed() {
            None
        } else {
            exceeded(active, active.cursor.group).map(|message| (GateReasonType::Failed, message))
        };
        if let Some((kind, message)) = reason {
            self.close_with(at, protocol::reason(kind, BY_LEADER, self.now_ms, &message));
        }
    }

    /// Closes the gate; nothing else is decided for the Run in this step.
    pub(super) fn close_with(&mut self, at: usize, reason: GateReason) {
        let active = &mut self.active[at];
        active.settled = true;
        let mut commit = protocol::close(active.run, reason);
        commit.compares.push(self.term.compare());
        self.step.commits.push(commit);
    }

    /// Under a closed gate: what is not claimed is withdrawn, what is claimed is waited for until the Run's timeout.
    fn end_attempts(&mut self, at: usize) {
        let active = &self.active[at];
        let (run, plan) = (active.run, active.plan);
        let lost_at_ms = lost_at_ms(active, self.now_ms);
        let lose = lost_at_ms.is_some_and(|at_ms| self.now_ms >= at_ms);
        let mut verdicts = Vec::new();
        let mut claimed = Vec::new();
        for &(segment, node) in run.open() {
            let Some(attempt) = run.track(segment, node).and_then(|track| track.last()) else { continue };
            let of = run.attempt_of(plan, segment, node, attempt.number);
            match run.stage(segment, node) {
                Stage::Assigned => {
                    let verdict =
                        self.verdict(VerdictType::Withdrawn, "the run was stopped before the node claimed it");
                    verdicts.push((of, verdict, false));
                }
                Stage::Claimed if lose => {
                    let verdict = self.verdict(VerdictType::Lost, "not reported before the run's timeout");
                    verdicts.push((of, verdict, true));
                }
                _ => claimed.push(plan.doer_name(segment, node)),
            }
        }
        for some in verdicts.chunks((MAX_COMPARES - 1) / 3) {
            let commit = some.iter().fold(self.commit(), |commit, (attempt, verdict, claimed)| {
                let claim = AttemptKey::Claim.of(attempt);
                commit
                    .when(if *claimed { Compare::Present(claim) } else { Compare::Absent(claim) })
                    .when(Compare::Absent(AttemptKey::Report.of(attempt)))
                    .create(AttemptKey::Verdict.of(attempt), verdict.encode_to_vec())
            });
            self.step.commits.push(commit);
        }
        if let (Some(at_ms), false) = (lost_at_ms, lose || claimed.is_empty()) {
            self.wake_at(at_ms);
        }
        for name in claimed {
            self.active[at].wait_for(
                format!("node/{name}"),
                "Working",
                format!("{name} has not reported what it claimed"),
            );
        }
    }

    /// The Run ends: its status, and its cursor unless places are held.
    pub(super) fn end(&mut self, at: usize) {
        self.active[at].settled = true;
        let poisoned = match self.poisoned_by(at) {
            Some(poisoned) => poisoned,
            // Somebody else writes one of its locks in this step: in the next.
            None => return,
        };
        let active = &self.active[at];
        let (run, cursor) = (active.run, keys::cursor(active.run.uid()));
        let (Some(cursor_revision), Some(gate)) = (run.cursor_revision(), run.gate()) else { return };
        let ended = lockstep_apis::v1alpha::Cursor { ended: true, ..active.cursor.clone() };
        let mut commit = Commit::new()
            .when(self.term.compare())
            .when(Compare::ModRevision(cursor.clone(), cursor_revision))
            .when(Compare::ModRevision(keys::gate(run.uid()), gate.revision));
        if let Some(object) = run.object() {
            commit = outcome::write_status(commit, object, outcome::status(run, &[], self.now_ms, true));
        }
        commit.compares.extend(poisoned.compares);
        commit.operations.extend(poisoned.operations);
        commit = match run.places().is_empty() {
            true => commit.delete(cursor),
            false => commit.put(cursor, ended.encode_to_vec()),
        };
        // Half of a commit: the caller may add events to it.
        let leftovers = run.leftover_chunks().into_iter().take(MAX_OPERATIONS / 2);
        self.step.commits.push(leftovers.fold(commit, Commit::delete));
    }
}

/// Why the gate must close now, for failures up to this group. Under `FinishWindow` that is judged when the window is
/// done.
fn exceeded(active: &Active<'_>, group: u32) -> Option<String> {
    (0..=group).find_map(|at| {
        let of = active.plan.group(at)?;
        // A window that is past has been judged.
        let judged = at < group || of.on_failure() != OnFailure::FinishWindow;
        if judged && active.cursor.ticket != 0 { limit_message(active, at) } else { None }
    })
}

/// The message of a group in which more nodes failed than may.
pub(super) fn limit_message(active: &Active<'_>, group: u32) -> Option<String> {
    let (of, failures) = (active.plan.group(group)?, active.run.failures(group));
    let nodes = if failures == 1 { "node" } else { "nodes" };
    (failures > of.max_failures).then(|| format!("{failures} {nodes} failed, and at most {} may", of.max_failures))
}

/// When the Run's timeout comes.
fn deadline_ms(active: &Active<'_>) -> u64 {
    let snapshot = &active.plan.snapshot;
    snapshot.created_ms.saturating_add(snapshot.timeout_ms)
}

/// When what is claimed and unreported becomes Lost. `None`: the Run has not timed out.
fn lost_at_ms(active: &Active<'_>, now_ms: u64) -> Option<u64> {
    let reasons = &active.run.gate()?.value.reasons;
    let timed_out = reasons.iter().find(|reason| reason.r#type() == GateReasonType::TimedOut)?;
    // A time of close that lies ahead was given by a clock that was wrong, then or now.
    let from_ms = if timed_out.at_ms > now_ms { deadline_ms(active) } else { timed_out.at_ms };
    Some(from_ms.saturating_add(active.plan.snapshot.grace_ms))
}
