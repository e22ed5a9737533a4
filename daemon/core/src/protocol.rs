//! The commits that servers make for nodes and admins, and what a granted claim is answered with. Knows the world as a
//! cache that may be old: each commit compares what it relies on, so that an old view costs a retry and nothing else.
//!
//! What the two sides promise each other:
//!
//! - A server calls these only for the node of the caller's certificate.
//! - An agent process never asks for an attempt that it was given before, and takes a `Work` only for a claim that it
//!   waits for. So a repeated offer, or a repeated answer, starts nothing.
//! - An agent says in its `Hello` what it has folders for. What else its node claimed with an earlier process is
//!   [`forgotten`]: it is offered again, and the agent, which alone knows that no folder is left, reports it as
//!   interrupted.

mod attaching;
mod delivery;
mod entering;
mod locking;

use std::collections::BTreeSet;

use lockstep_apis::{
    commit::{Commit, Compare, Operation, Revision},
    keys::{self, Attempt, AttemptKey},
    v1alpha::{Claim, Gate, GateReason, GateReasonType, Report, RunApproval, RunStatus, Verdict, VerdictType},
};
use prost::Message;
use thiserror::Error;

use crate::{
    outcome,
    world::{RunState, World},
};

pub use attaching::{attach, detach, is_later, left_over};
pub use delivery::{Delivery, Place, SealedValue, results_of_all, work};
pub use entering::{Entering, MAX_RUNS_OF_KEY, enter};
pub use locking::{acquire_lock, clear_lock, lock_holders, release_lock};
pub(crate) use locking::{excludes, held_by, written};

/// The message of a cancel by hand.
pub(crate) const CANCELLED: &str = "cancelled";

/// Why something was not done; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The Run has ended.
    #[error("the run has ended")]
    Ended,
    /// It is paused already.
    #[error("the run is paused already")]
    AlreadyPaused,
    /// Resume of what is not paused.
    #[error("the run is not paused")]
    NotPaused,
    /// Approve of what does not wait for it.
    #[error("the run does not wait for approval")]
    NotAwaiting,
    /// The book asks for a second person.
    #[error("the book asks for two persons: another one than who created the run must approve it")]
    OwnRun,
    /// Its gate is closed for good: there is nothing to cancel, pause or resume.
    #[error("the run is being stopped already")]
    AlreadyStopped,
    /// The node holds no place in the Run.
    #[error("the node holds no place in the run; `lockstep describe run` lists those that do")]
    NothingHeld,
    /// Another Run has the concurrency key, and its book's policy is `Refuse`.
    #[error("the run {run} has the concurrency key `{key}`; wait for it, or cancel it")]
    KeyHeld {
        /// The key.
        key: String,
        /// Who has it.
        run: String,
    },
    /// Another Run has the concurrency key, and is not the same.
    #[error("the run {run}, which has the concurrency key `{key}`, cannot be joined: it {why}")]
    CannotJoin {
        /// The key.
        key: String,
        /// Who has it.
        run: String,
        /// What it does otherwise.
        why: String,
    },
    /// Another admin holds the lock.
    #[error("{0}")]
    LockHeld(String),
    /// Release of a lock that its owner does not hold.
    #[error("{0} does not hold the lock; `lockstep locks` lists who does")]
    LockNotHeld(String),
    /// Clear of a lock that is not poisoned.
    #[error("the lock is not poisoned")]
    NotPoisoned,
    /// So many Runs have one key, or wait for it, that no more are taken.
    #[error("too many runs have the concurrency key `{0}`; cancel those that are not needed")]
    KeyFull(String),
    /// The cache does not know the Run (yet).
    #[error("no such run")]
    Unknown,
}

/// What to do about a node's request for an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimAnswer {
    /// Commit this. Done: answer with [`work`]. Conflict: let the cache catch up and judge again. Indeterminate: answer
    /// `again`.
    Commit(Commit),
    /// This process holds the claim already (an answer was lost): answer with [`work`].
    Granted,
    /// An earlier process of this node claimed it, or it was given up meanwhile: answer `refused`, and [`work`] beside it
    /// with no secret opened. An agent without a folder of the attempt reports it as
    /// [`crate::recovery::interrupted_all`].
    Forgotten,
    /// Not to be had: answer with this; the agent forgets the attempt.
    Refused(&'static str),
    /// The cache does not know the assignment yet: answer `again`.
    NotYet,
}

/// Judges a node's request for an attempt by what the cache knows.
pub fn answer_claim(world: &World, attempt: &Attempt, claim: &Claim) -> ClaimAnswer {
    let Some(run) = world.run(&attempt.run) else { return ClaimAnswer::NotYet };
    let Some(state) = run.attempt(attempt) else { return ClaimAnswer::NotYet };
    if state.report.is_some() {
        return ClaimAnswer::Refused("the attempt has ended");
    }
    if let Some(held) = &state.claim {
        // Under a verdict nothing may begin, but only a report gives the place back.
        return match held.value.instance == claim.instance && state.verdict.is_none() {
            true => ClaimAnswer::Granted,
            false => ClaimAnswer::Forgotten,
        };
    }
    if state.verdict.is_some() {
        return ClaimAnswer::Refused("the assignment was withdrawn");
    }
    let Some(assignment) = &state.assignment else { return ClaimAnswer::NotYet };
    if run.is_paused() {
        return ClaimAnswer::Refused("the run is paused");
    }
    if !run.gate_is_open() {
        return ClaimAnswer::Refused("the run is being stopped");
    }
    ClaimAnswer::Commit(self::claim(attempt, claim, assignment.revision))
}

/// Takes an assignment for its node: nobody has, it is as it was seen, no verdict is over it, the gate is open.
pub fn claim(attempt: &Attempt, claim: &Claim, assignment_revision: Revision) -> Commit {
    Commit::new()
        .when(Compare::ModRevision(AttemptKey::Assignment.of(attempt), assignment_revision))
        .when(Compare::Absent(AttemptKey::Verdict.of(attempt)))
        .when(Compare::Value(keys::gate(&attempt.run), Gate::default().encode_to_vec()))
        .create(AttemptKey::Claim.of(attempt), claim.encode_to_vec())
}

/// Stores how an attempt ended: claimed, and not reported before. `verdict_seen` is whether the cache knows a verdict
/// on it: then the report is kept as late.
///
/// Conflict: let the cache catch up; if the report is there (or the claim is gone with its Run), the agent may forget
/// it, else build the commit anew. Indeterminate: the same.
pub fn report(attempt: &Attempt, report: &Report, verdict_seen: bool) -> Commit {
    let verdict = AttemptKey::Verdict.of(attempt);
    let compare = if verdict_seen { Compare::Present(verdict) } else { Compare::Absent(verdict) };
    let report = Report { late: verdict_seen, ..report.clone() };
    Commit::new()
        .when(Compare::Present(AttemptKey::Claim.of(attempt)))
        .when(compare)
        .create(AttemptKey::Report.of(attempt), report.encode_to_vec())
}

/// Attempts that the node claimed with another process than `instance`, or that were given up meanwhile, and of which it
/// has no folder as far as this server was told (`holding`): to be offered again, so that the agent can say what became
/// of them.
pub fn forgotten<'w>(
    world: &'w World,
    node: &str,
    instance: &str,
    holding: &BTreeSet<Attempt>,
) -> impl Iterator<Item = &'w Attempt> {
    world.claimed(node).filter(move |attempt| {
        let state = world.attempt(attempt);
        let odd = state.is_some_and(|state| {
            let theirs = state.claim.as_ref().is_some_and(|claim| claim.value.instance != instance);
            theirs || state.verdict.is_some()
        });
        odd && !holding.contains(attempt)
    })
}

/// Gives a node's places in a Run free. The attempts' end is then `Lost`; a report that still comes is kept as late.
pub fn release(world: &World, run: &str, node: &str, by: &str, now_ms: u64) -> Result<Commit, Refusal> {
    let run = world.run(run).ok_or(Refusal::Unknown)?;
    let plan = run.plan().ok_or(Refusal::NothingHeld)?;
    let verdict = Verdict {
        r#type: VerdictType::Released.into(),
        at_ms: now_ms,
        by: by.to_owned(),
        message: format!("released by {by}"),
    };
    // Its own, and those that it has for others.
    let held = run.places().iter().filter(|(segment, of, _)| plan.doer_uid(*segment, *of) == node);
    let commit = held.fold(Commit::new(), |commit, &(segment, node, number)| {
        let attempt = run.attempt_of(plan, segment, node, number);
        let Some(state) = run.attempt(&attempt) else { return commit };
        let claim = AttemptKey::Claim.of(&attempt);
        let key = AttemptKey::Verdict.of(&attempt);
        let commit = commit
            .when(Compare::Present(AttemptKey::Assignment.of(&attempt)))
            .when(if state.claim.is_some() { Compare::Present(claim) } else { Compare::Absent(claim) })
            .when(Compare::Absent(AttemptKey::Report.of(&attempt)))
            .when(match &state.verdict {
                Some(lost) => Compare::ModRevision(key.clone(), lost.revision),
                None => Compare::Absent(key.clone()),
            });
        commit.put(key, verdict.encode_to_vec())
    });
    if commit.operations.is_empty() { Err(Refusal::NothingHeld) } else { Ok(commit) }
}

/// Closes a Run's gate for good: nothing is claimed after this commit, and what runs is asked to stop.
pub fn cancel(world: &World, run: &str, by: &str, now_ms: u64) -> Result<Commit, Refusal> {
    let run = going(world, run)?;
    if run.is_cancelled() {
        return Err(Refusal::AlreadyStopped);
    }
    Ok(close(run, reason(GateReasonType::Cancelled, by, now_ms, CANCELLED)))
}

/// Closes a Run's gate until it is resumed; what is claimed goes on.
pub fn pause(world: &World, run: &str, by: &str, now_ms: u64) -> Result<Commit, Refusal> {
    let run = going(world, run)?;
    if run.is_closed() {
        return Err(Refusal::AlreadyStopped);
    }
    if run.is_paused() {
        return Err(Refusal::AlreadyPaused);
    }
    Ok(close(run, reason(GateReasonType::Paused, by, now_ms, "paused")))
}

/// Opens a paused Run's gate.
pub fn resume(world: &World, run: &str) -> Result<Commit, Refusal> {
    let run = going(world, run)?;
    let gate = match run.gate() {
        _ if run.is_closed() => return Err(Refusal::AlreadyStopped),
        Some(gate) if run.is_paused() => gate,
        _ => return Err(Refusal::NotPaused),
    };
    let reasons = gate.value.reasons.iter().filter(|reason| reason.r#type() != GateReasonType::Paused);
    let open = Gate { reasons: reasons.cloned().collect() };
    let key = keys::gate(run.uid());
    Ok(Commit::new().when(Compare::ModRevision(key.clone(), gate.revision)).put(key, open.encode_to_vec()))
}

/// Opens the gate of a Run that waits for approval, and notes by whom.
pub fn approve(world: &World, run: &str, approval: RunApproval) -> Result<Commit, Refusal> {
    let run = going(world, run)?;
    let (Some(gate), Some(object)) = (run.gate(), run.object()) else { return Err(Refusal::NotAwaiting) };
    if run.is_closed() {
        return Err(Refusal::AlreadyStopped);
    }
    if !run.gate_has(GateReasonType::AwaitingApproval) {
        return Err(Refusal::NotAwaiting);
    }
    let origin = object.value.spec.as_ref().and_then(|spec| spec.origin.as_ref());
    let own = origin.is_some_and(|origin| origin.uid == approval.by_uid || origin.name == approval.by);
    let asked = run.plan().and_then(|plan| plan.snapshot.approval);
    if own && asked.is_none_or(|asked| asked.two_persons) {
        return Err(Refusal::OwnRun);
    }
    let key = keys::gate(run.uid());
    let reasons = gate.value.reasons.iter().filter(|reason| reason.r#type() != GateReasonType::AwaitingApproval);
    let open = Gate { reasons: reasons.cloned().collect() };
    let commit = Commit::new().when(Compare::ModRevision(key.clone(), gate.revision)).put(key, open.encode_to_vec());
    let status = object.value.status.clone().unwrap_or_default();
    Ok(outcome::write_status(commit, object, RunStatus { approval: Some(approval), ..status }))
}

/// Deletes a Run and all that is kept of it. It must have ended and hold no place.
pub fn remove(world: &World, run: &str) -> Result<Commit, Refusal> {
    let run = world.run(run).ok_or(Refusal::Unknown)?;
    let object = run.object().ok_or(Refusal::Unknown)?;
    let metadata = object.value.metadata.as_ref().ok_or(Refusal::Unknown)?;
    let key = keys::object("runs", &metadata.namespace, &metadata.name);
    let mut commit = Commit::new()
        .when(Compare::ModRevision(key.clone(), object.revision))
        .when(Compare::Absent(keys::cursor(run.uid())))
        .delete(key)
        .delete(keys::gate(run.uid()));
    let prefixes = [AttemptKey::Assignment, AttemptKey::Claim, AttemptKey::Report, AttemptKey::Verdict];
    let prefixes = prefixes.map(|kind| kind.run_prefix(run.uid())).into_iter();
    let prefixes = prefixes.chain([keys::snapshot_prefix(run.uid())]);
    commit.operations.extend(prefixes.map(Operation::DeletePrefix));
    Ok(commit)
}

fn going<'w>(world: &'w World, run: &str) -> Result<&'w RunState, Refusal> {
    let run = world.run(run).ok_or(Refusal::Unknown)?;
    let ended = run.has_ended() || run.cursor().is_some_and(|cursor| cursor.ended);
    if ended { Err(Refusal::Ended) } else { Ok(run) }
}

pub(crate) fn reason(kind: GateReasonType, by: &str, now_ms: u64, message: &str) -> GateReason {
    GateReason { r#type: kind.into(), by: by.to_owned(), at_ms: now_ms, message: message.to_owned() }
}

/// Adds a reason to the gate as it was seen. A Run that is not admitted yet gets its gate early; then it must still
/// have its object, so that no gate is left of a Run that is gone.
pub(crate) fn close(run: &RunState, reason: GateReason) -> Commit {
    let key = keys::gate(run.uid());
    let mut reasons = run.gate().map(|gate| gate.value.reasons.clone()).unwrap_or_default();
    reasons.push(reason);
    let commit = match (run.gate(), run.object()) {
        (Some(gate), _) => Commit::new().when(Compare::ModRevision(key.clone(), gate.revision)),
        (None, Some(object)) => {
            let metadata = object.value.metadata.clone().unwrap_or_default();
            let object_key = keys::object("runs", &metadata.namespace, &metadata.name);
            Commit::new().when(Compare::Absent(key.clone())).when(Compare::ModRevision(object_key, object.revision))
        }
        (None, None) => Commit::new().when(Compare::Absent(key.clone())),
    };
    commit.put(key, Gate { reasons }.encode_to_vec())
}

#[cfg(test)]
mod tests;
