//! What a leader decides: from the world and the time, the commits that move all live Runs on. Pure; called whenever
//! something changed or `wake_at_ms` has come; start, failover and steady state are this one path.
//!
//! # What the caller guarantees
//!
//! - The world is complete up to the Term's revision: what former leaders wrote is in it. (Checked.)
//! - What this leader itself committed is in it: the world has reached the revision of each commit that succeeded before
//!   the next call. The commits of one step do not depend on each other and may be sent at once.
//! - No commit of an earlier step may still happen. After an *indeterminate* answer the same commit is sent again until
//!   the answer is definite, or the Term is given up. Every commit changes something that it compares, so that a copy
//!   which arrives late does nothing.
//! - After a *conflict* the world is complete up to the store's revision at that moment before the next call: what
//!   conflicted may have been a copy of the commit itself.
//!
//! Then the leader's knowledge of what only leaders write is exact, and comparing the Term guards the rules that span
//! Runs (locks, turns, tickets). What others write (claims, reports, gates, objects) each commit compares by itself.

mod admission;
mod closing;
mod lock_objects;
mod locks;
mod open;
mod rollout;
mod status;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::{
    commit::{Commit, Compare, Term},
    keys::{self, Key},
    v1alpha::{Cursor, GateReasonType, Waiting},
};

use crate::world::{Plan, RunState, World};

use locks::Standing;

pub use admission::{MAX_SNAPSHOT_BYTES, SnapshotTooLarge, admission, rejection};

/// Most compares of one commit: etcd takes 128, and the Term's and the cursor's are among them.
const MAX_COMPARES: usize = 100;

/// Most reasons kept for one Run.
const MAX_WAITING: usize = 20;

/// What a step decided.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Decisions, in no order. Each compares the Term.
    pub commits: Vec<Commit>,
    /// Runs to compile now: commit [`admission`] or [`rejection`] for each, and let the world reach one before making the
    /// next.
    pub admit: Vec<String>,
    /// Writes of Runs' statuses, for readers only.
    pub status: Vec<Commit>,
    /// When to call again though nothing changes.
    pub wake_at_ms: Option<u64>,
    /// By Run: what it waits for, the first 20.
    pub why: BTreeMap<String, Vec<Waiting>>,
}

/// Decides for all live Runs. Nothing is decided while the world is behind the Term, or shows another leader.
pub fn step(world: &World, term: Term, now_ms: u64) -> Step {
    let leads = world.leader().is_some_and(|(_, created)| *created == term.revision);
    if !leads || world.revision() < term.revision {
        return Step::default();
    }
    let mut deciding = Deciding::new(world, term, now_ms);
    deciding.close();
    deciding.forget_keys();
    deciding.let_go_of_holds();
    deciding.grant_locks();
    deciding.move_on();
    deciding.take_turns();
    deciding.explain_gates();
    deciding.write_statuses();
    deciding.write_locks();
    deciding.step
}

/// One step in the making.
struct Deciding<'w> {
    world: &'w World,
    term: Term,
    now_ms: u64,
    step: Step,
    /// Runs with a cursor and a snapshot that have not ended.
    active: Vec<Active<'w>>,
    /// The highest ticket given so far.
    ticket: u64,
    /// Locks' objects that a commit of this step writes or compares: nothing else may write them in it.
    touched: BTreeSet<Key>,
    /// Who stands at which lock now.
    standing: Standing<'w>,
}

/// A Run that may move.
struct Active<'w> {
    run: &'w RunState,
    plan: &'w Plan,
    /// As it is to be; what is stored if not `moved`.
    cursor: Cursor,
    moved: bool,
    /// Something was decided that must be committed before anything else is.
    settled: bool,
    waiting: Vec<Waiting>,
    /// What it was granted in this step, as it was seen: compared by the commit that moves it.
    granted: Vec<Compare>,
}

impl<'w> Deciding<'w> {
    fn new(world: &'w World, term: Term, now_ms: u64) -> Self {
        let (_, ticket) = world.highest();
        let mut deciding = Deciding {
            world,
            term,
            now_ms,
            step: Step::default(),
            active: Vec::new(),
            ticket,
            touched: BTreeSet::new(),
            standing: Standing::default(),
        };
        for run in world.live() {
            deciding.look_at(run);
        }
        deciding
    }

    fn look_at(&mut self, run: &'w RunState) {
        let Some(cursor) = run.cursor() else {
            if run.is_closed() {
                self.end_pending(run);
            } else {
                self.step.admit.push(run.uid().to_owned());
            }
            return;
        };
        if cursor.ended {
            return self.forget_ended(run);
        }
        match run.plan() {
            Some(plan) if plan.hash == cursor.snapshot => self.active.push(Active {
                run,
                plan,
                cursor: cursor.clone(),
                moved: false,
                settled: false,
                waiting: Vec::new(),
                granted: Vec::new(),
            }),
            _ => {
                let waiting =
                    waiting(format!("run/{}", run.uid()), "SnapshotMissing", "its snapshot is not complete here yet");
                self.step.why.insert(run.uid().to_owned(), vec![waiting]);
            }
        }
    }

    /// Says by whom a Run is kept that could go on.
    fn explain_gates(&mut self) {
        for active in &mut self.active {
            let gate = active.run.gate().filter(|_| !active.run.is_closed());
            for reason in gate.iter().flat_map(|gate| &gate.value.reasons) {
                let (word, message) = match reason.r#type() {
                    GateReasonType::AwaitingApproval => ("AwaitingApproval", reason.message.clone()),
                    _ => ("Paused", format!("paused by {}", reason.by)),
                };
                active.wait_for("gate".to_owned(), word, message);
            }
        }
    }

    /// A commit that is this leader's or nothing.
    fn commit(&self) -> Commit {
        Commit::new().when(self.term.compare())
    }

    fn wake_at(&mut self, at_ms: u64) {
        self.step.wake_at_ms = Some(self.step.wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }
}

impl Active<'_> {
    /// Whether it may take anything new in this step.
    fn may_move(&self) -> bool {
        !self.settled && self.run.gate_is_open()
    }

    fn wait_for(&mut self, on: String, reason: &str, message: impl Into<String>) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(waiting(on, reason, message));
        }
    }

    fn wait_behind(&mut self, on: String, reason: &str, message: impl Into<String>, behind: String) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(Waiting { behind, ..waiting(on, reason, message) });
        }
    }

    /// Whether it holds its locks.
    fn holds_locks(&self) -> bool {
        self.run.cursor().is_some_and(|cursor| cursor.granted)
    }

    /// Adds what every move depends on: the cursor and the open gate as they were seen. Not any open gate: a pause that
    /// was taken back meanwhile must not let a copy happen that conflicted before, with a ticket that others have now.
    fn guarded(&self, mut commit: Commit) -> Commit {
        commit.compares.extend(self.granted.iter().cloned());
        let commit = match self.run.cursor_revision() {
            Some(revision) => commit.when(Compare::ModRevision(keys::cursor(self.run.uid()), revision)),
            None => commit.when(Compare::Absent(keys::cursor(self.run.uid()))),
        };
        let gate = keys::gate(self.run.uid());
        commit.when(match self.run.gate() {
            Some(seen) => Compare::ModRevision(gate, seen.revision),
            None => Compare::Present(gate),
        })
    }
}

fn waiting(on: String, reason: &str, message: impl Into<String>) -> Waiting {
    Waiting { on, reason: reason.to_owned(), message: message.into(), behind: String::new() }
}

#[cfg(test)]
mod tests;
