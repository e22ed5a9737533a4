//! Fences: when a node that is not heard loses its place under `onNodeLost: AfterFence`. Knows the world and what this
//! leader has seen itself, on a clock that never jumps; of wall clocks nothing.
//!
//! A node kills its own work when no heartbeat was acknowledged for `fence_ms`, counted from when the last acknowledged
//! one was *sent*. Its server acknowledges only while the session's record certainly is in the store and no attempt of
//! the node is [`VerdictType::Fencing`]. So:
//!
//! 1. A node without a session for `fence_ms` gets the verdict `Fencing`; the commit compares that it has none. Whoever
//!    serves it later has seen the verdict, and acknowledges nothing for the attempt: what was acknowledged last was sent
//!    before the verdict.
//! 2. [`after_ms`] later, counted from when this leader first saw the verdict, the work is dead, and the verdict becomes
//!    `Fenced`: the place is free. Another leader counts anew.
//!
//! Assumptions: clocks run within [`DRIFT_PER_MILLE`] of true time while both wait; the node's guard runs. A guard that
//! is stopped, or a virtual machine that is paused, breaks the bound: who cannot have that says `Wait`.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::{
    commit::{Commit, Compare, Term},
    keys::{self, Attempt, AttemptKey},
    v1alpha::{Verdict, VerdictType},
};
use prost::Message;

use crate::world::{AttemptState, RunState, World};

/// How far a clock's rate may be off: ten times what crystals and time daemons do.
pub const DRIFT_PER_MILLE: u64 = 10;

/// For a guard to wake and to kill on a busy machine.
const KILL_MS: u64 = 5_000;

/// Most verdicts of one commit: each compares up to five keys.
const MAX_VERDICTS: usize = 19;

/// How long after `Fencing` was seen the node's work is dead, by the leader's clock. Both clocks may be off, each to
/// its side.
pub fn after_ms(fence_ms: u64) -> u64 {
    fence_ms + (fence_ms * 2 * DRIFT_PER_MILLE).div_ceil(1000) + KILL_MS
}

/// What is to be written now, and when to look again.
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// Verdicts. Each commit compares the Term.
    pub commits: Vec<Commit>,
    /// From now, though nothing changes.
    pub wake_in_ms: Option<u64>,
}

/// What a leader has seen itself in its Term: since when nodes have no session, and attempts are being fenced.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    away: BTreeMap<String, u64>,
    fencing: BTreeMap<Attempt, u64>,
}

impl Sight {
    /// A new leader, who has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at all places under `AfterFence`. `steady_ms` is of a clock that never jumps and counts while the machine
    /// sleeps (CLOCK_BOOTTIME); `now_ms`, the wall clock, is only written. Asks of the caller what [`crate::step::step`]
    /// asks.
    pub fn look(&mut self, world: &World, term: Term, steady_ms: u64, now_ms: u64) -> Due {
        let leads = world.leader().is_some_and(|(_, created)| *created == term.revision);
        if !leads || world.revision() < term.revision {
            return Due::default();
        }
        let places: Vec<Place<'_>> = world.live().flat_map(places).collect();
        let nodes: BTreeSet<&str> = places.iter().map(|place| place.attempt.node.as_str()).collect();
        self.away.retain(|node, _| nodes.contains(node.as_str()) && world.session(node).is_none());
        let fencing: BTreeSet<&Attempt> =
            places.iter().filter(|place| place.is_fencing()).map(|p| &p.attempt).collect();
        self.fencing.retain(|attempt, _| fencing.contains(attempt));
        let mut due = Due::default();
        let mut verdicts = Vec::new();
        for place in &places {
            let Some(at_ms) = self.due_at(world, place, steady_ms) else { continue };
            if steady_ms >= at_ms {
                verdicts.push(place);
            } else {
                let left = at_ms - steady_ms;
                due.wake_in_ms = Some(due.wake_in_ms.map_or(left, |earlier| earlier.min(left)));
            }
        }
        for some in verdicts.chunks(MAX_VERDICTS) {
            let commit = Commit::new().when(term.compare());
            due.commits.push(some.iter().fold(commit, |commit, place| place.judge(commit, now_ms)));
        }
        due
    }

    /// When the next verdict on a place is due, by the steady clock. `None`: its node is heard.
    fn due_at(&mut self, world: &World, place: &Place<'_>, steady_ms: u64) -> Option<u64> {
        if place.is_fencing() {
            let seen = *self.fencing.entry(place.attempt.clone()).or_insert(steady_ms);
            return Some(seen + after_ms(place.fence_ms));
        }
        if world.session(&place.attempt.node).is_some() {
            return None;
        }
        let since = *self.away.entry(place.attempt.node.clone()).or_insert(steady_ms);
        Some(since + place.fence_ms)
    }
}

/// A place that is held under `AfterFence`.
struct Place<'w> {
    attempt: Attempt,
    state: &'w AttemptState,
    fence_ms: u64,
}

fn places(run: &RunState) -> impl Iterator<Item = Place<'_>> {
    let fenced = run.plan().filter(|plan| plan.snapshot.fence_ms > 0);
    fenced.into_iter().flat_map(move |plan| {
        run.places().iter().filter_map(move |&(segment, node, number)| {
            let attempt = run.attempt_of(plan, segment, node, number);
            let state = run.attempt(&attempt)?;
            Some(Place { attempt, state, fence_ms: plan.snapshot.fence_ms })
        })
    })
}

impl Place<'_> {
    fn is_fencing(&self) -> bool {
        self.state.verdict_type() == Some(VerdictType::Fencing)
    }

    /// Adds the verdict that is due, with all that it relies on.
    fn judge(&self, commit: Commit, now_ms: u64) -> Commit {
        let (claim, key) = (AttemptKey::Claim.of(&self.attempt), AttemptKey::Verdict.of(&self.attempt));
        let unheard = format!("not heard for {} s", self.fence_ms / 1000);
        let (kind, message) = if self.is_fencing() {
            (VerdictType::Fenced, format!("{unheard}; its fence has passed"))
        } else if self.state.claim.is_some() {
            (VerdictType::Fencing, format!("{unheard}; its place is free when its fence has passed"))
        } else {
            // The claim compares that there is no verdict: nothing can have begun.
            (VerdictType::Fenced, format!("{unheard}, and it had not begun"))
        };
        let verdict = Verdict { r#type: kind.into(), at_ms: now_ms, by: "leader".into(), message };
        let commit = commit
            .when(if self.state.claim.is_some() { Compare::Present(claim) } else { Compare::Absent(claim) })
            .when(Compare::Present(AttemptKey::Assignment.of(&self.attempt)))
            .when(Compare::Absent(AttemptKey::Report.of(&self.attempt)))
            .when(match &self.state.verdict {
                Some(seen) => Compare::ModRevision(key.clone(), seen.revision),
                None => Compare::Absent(key.clone()),
            });
        let commit =
            if self.is_fencing() { commit } else { commit.when(Compare::Absent(keys::session(&self.attempt.node))) };
        commit.put(key, verdict.encode_to_vec())
    }
}

#[cfg(test)]
mod tests;
