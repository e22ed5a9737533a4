//! When a node that is not heard loses its place: by a fence under `onNodeLost: AfterFence`, and by `onUnreachable` if it
//! has begun nothing. Knows the world and what this leader has seen itself, on a clock that never jumps; of wall clocks
//! nothing.
//!
//! A node that was connected when its Run was admitted, and goes before it claims anything of it, is unreachable like
//! one that was not: after [`UNREACHABLE_MS`] it ends as `onUnreachable` says. The verdict compares that there is no
//! claim, and a claim that there is no verdict; so nothing can have begun, whatever becomes of the node.
//!
//! # Fences
//!
//! A node kills its own work when no heartbeat was acknowledged for `fence_ms`, counted from when the last acknowledged
//! one was *sent*. Its server acknowledges only while the session's record certainly is in the store and no attempt of
//! the node is [`VerdictType::Fencing`]. So:
//!
//! 1. A node without a session for `fence_ms`, and for the timeout of a reboot that it has claimed, gets the verdict `Fencing`; the commit compares that it has none. Whoever
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
    v1alpha::{OnUnreachable, Verdict, VerdictType},
};
use prost::Message;

use crate::world::{AttemptState, Plan, RunState, World};

/// How far a clock's rate may be off: ten times what crystals and time daemons do.
pub const DRIFT_PER_MILLE: u64 = 10;

/// How long a node that has begun nothing is waited for, unless `onUnreachable: Wait`: servers and agents restart in
/// less, and agents find another server.
pub const UNREACHABLE_MS: u64 = 30_000;

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
#[derive(Clone, Debug)]
pub struct Sight {
    unreachable_ms: u64,
    away: BTreeMap<String, u64>,
    fencing: BTreeMap<Attempt, u64>,
}

impl Sight {
    /// A new leader, who has seen nothing. Nodes that have begun nothing are waited for `unreachable_ms`, which is
    /// [`UNREACHABLE_MS`] but in tests.
    pub fn new(unreachable_ms: u64) -> Self {
        Self { unreachable_ms, away: BTreeMap::new(), fencing: BTreeMap::new() }
    }

    /// Looks at all places of nodes that are not heard. `steady_ms` is of a clock that never jumps and counts while the
    /// machine sleeps (CLOCK_BOOTTIME); `now_ms`, the wall clock, is only written. Asks of the caller what
    /// [`crate::step::step`] asks.
    pub fn look(&mut self, world: &World, term: Term, steady_ms: u64, now_ms: u64) -> Due {
        let leads = world.leader().is_some_and(|(_, created)| *created == term.revision);
        if !leads || world.revision() < term.revision {
            return Due::default();
        }
        let places: Vec<Place<'_>> = world.live().flat_map(|run| places(world, run)).collect();
        let nodes: BTreeSet<&str> = places.iter().map(|place| place.attempt.node.as_str()).collect();
        self.away.retain(|node, _| nodes.contains(node.as_str()) && world.session(node).is_none());
        let fencing: BTreeSet<&Attempt> =
            places.iter().filter(|place| place.rule == Rule::Kill).map(|p| &p.attempt).collect();
        self.fencing.retain(|attempt, _| fencing.contains(attempt));
        let mut due = Due::default();
        let mut verdicts = Vec::new();
        for place in &places {
            let at_ms = self.due_at(world, place, steady_ms);
            if steady_ms >= at_ms {
                verdicts.push(place);
            } else {
                let left = at_ms - steady_ms;
                due.wake_in_ms = Some(due.wake_in_ms.map_or(left, |earlier| earlier.min(left)));
            }
        }
        for some in verdicts.chunks(MAX_VERDICTS) {
            let commit = Commit::new().when(term.compare());
            due.commits.push(some.iter().fold(commit, |commit, place| self.judge(place, commit, now_ms)));
        }
        due
    }

    /// When the next verdict on a place is due, by the steady clock.
    fn due_at(&mut self, world: &World, place: &Place<'_>, steady_ms: u64) -> u64 {
        if place.rule == Rule::Kill {
            let seen = *self.fencing.entry(place.attempt.clone()).or_insert(steady_ms);
            return seen + after_ms(place.fence_ms);
        }
        let since = *self.away.entry(place.attempt.node.clone()).or_insert(steady_ms);
        // A reboot is no loss before its timeout.
        since + self.patience_ms(place) + world.reboot_ms(&place.attempt.node)
    }

    fn patience_ms(&self, place: &Place<'_>) -> u64 {
        match place.rule {
            Rule::GiveUp(_) => self.unreachable_ms,
            Rule::Fence | Rule::Kill => place.fence_ms,
        }
    }

    /// Adds the verdict that is due, with all that it relies on.
    fn judge(&self, place: &Place<'_>, commit: Commit, now_ms: u64) -> Commit {
        let of = &place.attempt;
        let (claim, key) = (AttemptKey::Claim.of(of), AttemptKey::Verdict.of(of));
        let unheard = format!("not heard for {} s", self.patience_ms(place) / 1000);
        let (kind, message) = match (place.rule, place.state.claim.is_some()) {
            (Rule::Kill, _) => (VerdictType::Fenced, format!("{unheard}; its fence has passed")),
            (Rule::Fence, true) => {
                (VerdictType::Fencing, format!("{unheard}; its place is free when its fence has passed"))
            }
            // The claim compares that there is no verdict: nothing can have begun.
            (Rule::Fence, false) => (VerdictType::Fenced, format!("{unheard}, and it had not begun")),
            (Rule::GiveUp(VerdictType::Skipped), _) => {
                (VerdictType::Skipped, format!("{unheard}, and it had not begun; `onUnreachable: Skip`"))
            }
            (Rule::GiveUp(kind), _) => (kind, format!("{unheard}, and it had not begun; `onUnreachable: Wait` waits")),
        };
        let verdict = Verdict { r#type: kind.into(), at_ms: now_ms, by: "leader".into(), message };
        let commit = commit
            .when(if place.state.claim.is_some() { Compare::Present(claim) } else { Compare::Absent(claim) })
            .when(Compare::Present(AttemptKey::Assignment.of(of)))
            .when(Compare::Absent(AttemptKey::Report.of(of)))
            .when(match &place.state.verdict {
                Some(seen) => Compare::ModRevision(key.clone(), seen.revision),
                None => Compare::Absent(key.clone()),
            });
        let commit =
            if place.rule == Rule::Kill { commit } else { commit.when(Compare::Absent(keys::session(&of.node))) };
        commit.put(key, verdict.encode_to_vec())
    }
}

/// What happens to a place whose node is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Its node, which has begun nothing, ends with this verdict.
    GiveUp(VerdictType),
    /// After a fence its work is no longer kept alive; what had not begun loses its place.
    Fence,
    /// Is not kept alive any more: when its guard must have killed it, its place is free.
    Kill,
}

/// A place that is held by a node that is not heard, or that is being fenced.
struct Place<'w> {
    attempt: Attempt,
    state: &'w AttemptState,
    fence_ms: u64,
    rule: Rule,
}

fn places<'w>(world: &'w World, run: &'w RunState) -> impl Iterator<Item = Place<'w>> {
    run.plan().into_iter().flat_map(move |plan| {
        run.places().iter().filter_map(move |&(segment, node, number)| {
            let state = run.track(segment, node)?.attempt(number)?;
            let rule = rule(world, run, plan, segment, node, state)?;
            let attempt = run.attempt_of(plan, segment, node, number);
            Some(Place { attempt, state, fence_ms: plan.snapshot.fence_ms, rule })
        })
    })
}

/// `None`: the node is heard, or waited for until the Run's timeout.
fn rule(world: &World, run: &RunState, plan: &Plan, segment: u32, node: u32, state: &AttemptState) -> Option<Rule> {
    if state.verdict_type() == Some(VerdictType::Fencing) {
        return Some(Rule::Kill);
    }
    if world.session(plan.doer_uid(segment, node)).is_some() {
        return None;
    }
    if state.claim.is_none() && !run.has_begun(node) {
        let given_up = match plan.snapshot.on_unreachable() {
            // Its own tasks can be left out; what a delegate does for it cannot.
            OnUnreachable::Skip if plan.delegate(segment, node).is_none() => Some(VerdictType::Skipped),
            OnUnreachable::Skip | OnUnreachable::Fail => Some(VerdictType::Unreachable),
            OnUnreachable::Wait | OnUnreachable::Unspecified => None,
        };
        if given_up.is_some() {
            return given_up.map(Rule::GiveUp);
        }
    }
    (plan.snapshot.fence_ms > 0).then_some(Rule::Fence)
}

#[cfg(test)]
mod tests;
