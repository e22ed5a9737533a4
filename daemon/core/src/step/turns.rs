//! Turns and assignments: a node works for one Run at a time. Queues are not stored: they follow from the cursors (who
//! asked when), the snapshots (for which nodes) and the attempts (who began).

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::{
    commit::Commit,
    keys::{self, AttemptKey},
    v1alpha::Assignment,
};
use prost::Message;

use super::{Active, Deciding, MAX_COMPARES, open::Open};
use crate::{
    outcome::owed,
    world::{Plan, RunState, Stage},
};

/// Most assignments of one commit: each is compared to be absent, beside Term, cursor and gate; the cursor may be
/// written in it, too.
const MAX_ASSIGNMENTS: usize = MAX_COMPARES - 4;

/// By node uid: the Run that has the node, or that is next. The name is for people.
type Heads<'w> = BTreeMap<&'w str, Head<'w>>;

#[derive(Clone, Copy)]
struct Head<'w> {
    uid: &'w str,
    name: &'w str,
    holds: bool,
}

impl<'w> Deciding<'w> {
    /// Gives nodes their turns, and assigns.
    pub(super) fn take_turns(&mut self) {
        let queueing =
            self.world.live().filter(|run| run.cursor().is_some() && run.plan().is_some_and(|plan| plan.queues()));
        // Nobody stands in the way of a Run that is alone.
        let mut heads = if queueing.take(2).count() > 1 { Some(self.holders()) } else { None };
        let mut order: Vec<usize> = (0..self.active.len())
            .filter(|&at| {
                let active = &self.active[at];
                active.may_move() && active.cursor.granted && active.cursor.ticket != 0
            })
            .collect();
        order.sort_by_key(|&at| {
            let cursor = &self.active[at].cursor;
            (std::cmp::Reverse(cursor.priority), cursor.ticket)
        });
        for at in order {
            let ready = self.active[at].take_turn(heads.as_mut());
            self.assign(at, &ready);
        }
        self.write_cursors();
    }

    /// Nodes that work for a Run, or that a Run keeps.
    fn holders(&self) -> Heads<'w> {
        let mut heads = Heads::new();
        for run in self.world.live() {
            let (Some(plan), Some(cursor)) = (run.plan(), run.cursor()) else { continue };
            if !plan.queues() {
                continue;
            }
            let head = Head { uid: run.uid(), name: &plan.snapshot.run_name, holds: true };
            for (segment, node, _) in run.places() {
                heads.insert(plan.doer_uid(*segment, *node), head);
                // What is done elsewhere for a node is done to it, as long as somebody may be at it.
                if matches!(run.stage(*segment, *node), Stage::Assigned | Stage::Claimed) {
                    heads.insert(plan.uid(*node), head);
                }
            }
            if cursor.ended || cursor.ticket == 0 || run.is_closed() {
                continue;
            }
            let Some(window) = plan.window(cursor.group, cursor.window) else { continue };
            let open = Open::new(run, plan, cursor.group, cursor.segment, window, cursor.ticket);
            for &node in window.nodes.iter().filter(|&&node| open.keeps(node)) {
                open.asked_for(node, |uid, _| {
                    heads.insert(uid, head);
                });
            }
        }
        heads
    }

    /// Assigns the open segment to nodes, as many as the window has room for.
    fn assign(&mut self, at: usize, ready: &[u32]) {
        let active = &mut self.active[at];
        let (run, plan) = (active.run, active.plan);
        let Some(group) = plan.group(active.cursor.group) else { return };
        let Some(window) = plan.window(active.cursor.group, active.cursor.window) else { return };
        // A window of no size is one of all its nodes.
        let size = if window.size == 0 { window.nodes.len() } else { window.size as usize };
        let segment = group.first_segment + active.cursor.segment;
        let delegated = plan.segment(segment).filter(|segment| !segment.delegates.is_empty());
        let room = match delegated {
            // Nobody in the window works meanwhile, unless one is being fenced.
            Some(_) if run.window_places().next().is_none() => ready.len(),
            _ => size.saturating_sub(run.window_places().count()),
        };
        if room < ready.len() {
            for (_, node, _) in run.window_places().take(super::MAX_WAITING) {
                let name = plan.name(*node);
                active.wait_for(format!("node/{name}"), "PlaceHeld", format!("{name} holds a place of the window"));
            }
        }
        let mut throttled = Throttled::new(run, plan, delegated.map(|segment| segment.throttle));
        let due: Vec<(u32, u32)> = ready
            .iter()
            .take(room)
            .filter(|&&node| throttled.takes(plan.doer_uid(segment, node)))
            .filter_map(|&node| Some((node, next_attempt(run, segment, node)?)))
            .collect();
        for some in due.chunks(MAX_ASSIGNMENTS - self.active[at].granted.len()) {
            let mut commit = self.active[at].guarded(self.commit());
            if self.active[at].moved {
                commit = self.active[at].write_cursor(commit);
            }
            let commit = some.iter().fold(commit, |commit, &(node, attempt)| {
                let assignment = Assignment {
                    ticket: self.active[at].cursor.ticket,
                    created_ms: self.now_ms,
                    known: run.track(segment, node).map(|track| track.known()).unwrap_or_default(),
                    left_blocks: run.left_blocks(node),
                    owed: owed::before(run, plan, node, segment),
                    ..Default::default()
                };
                let key = AttemptKey::Assignment.of(&run.attempt_of(plan, segment, node, attempt));
                commit.create(key, assignment.encode_to_vec())
            });
            self.step.commits.push(commit);
            // The others compare the cursor as it then is: in the next step.
            if std::mem::take(&mut self.active[at].moved) {
                self.active[at].settled = true;
                break;
            }
        }
    }

    /// Cursors that moved without an assignment.
    fn write_cursors(&mut self) {
        for at in 0..self.active.len() {
            let active = &self.active[at];
            if active.moved && active.may_move() {
                let commit = active.write_cursor(active.guarded(self.commit()));
                self.step.commits.push(commit);
            }
        }
    }
}

impl<'w> Active<'w> {
    fn write_cursor(&self, commit: Commit) -> Commit {
        commit.put(keys::cursor(self.run.uid()), self.cursor.encode_to_vec())
    }

    /// Stands in the queues of the open window's nodes, if there are any. Returns those to be assigned now.
    fn take_turn(&mut self, heads: Option<&mut Heads<'w>>) -> Vec<u32> {
        let (run, plan) = (self.run, self.plan);
        let cursor = self.cursor.clone();
        let (Some(group), Some(window)) = (plan.group(cursor.group), plan.window(cursor.group, cursor.window)) else {
            return Vec::new();
        };
        let open = Open::new(run, plan, cursor.group, cursor.segment, window, cursor.ticket);
        let due = |&&node: &&u32| {
            let stage = run.stage(open.segment, node);
            run.does(plan, open.segment, node)
                && run.stop(node).is_none()
                && matches!(stage, Stage::Unassigned | Stage::Rerun)
        };
        let Some(heads) = heads.filter(|_| plan.queues()) else {
            self.explain_open(&open);
            return window.nodes.iter().filter(due).copied().collect();
        };
        let mine = Head { uid: run.uid(), name: &plan.snapshot.run_name, holds: false };
        let mut blocked = Vec::new();
        let mut seen = BTreeSet::new();
        for &node in window.nodes.iter().filter(|&&node| open.needs(node)) {
            open.asked_for(node, |uid, name| {
                let head = *heads.entry(uid).or_insert(mine);
                if head.uid != mine.uid && seen.insert(uid) {
                    blocked.push((name, head));
                }
            });
        }
        for (name, head) in blocked.iter().take(super::MAX_WAITING) {
            let verb = if head.holds { "works for" } else { "is next for" };
            let message = format!("{name} {verb} run {}", head.name);
            self.wait_behind(format!("node/{name}"), "NodeBusy", message, format!("run/{}", head.name));
        }
        self.explain_open(&open);
        let together = group.segment_count > 1;
        if together && !blocked.is_empty() {
            return Vec::new();
        }
        let heads_mine = |uid: &str| heads.get(uid).is_some_and(|head| head.uid == run.uid());
        let is_mine = |node: &&u32| heads_mine(plan.uid(**node)) && heads_mine(plan.doer_uid(open.segment, **node));
        window.nodes.iter().filter(due).filter(is_mine).copied().collect()
    }

    /// Says what the open attempts wait for.
    fn explain_open(&mut self, open: &Open<'_>) {
        for &(segment, node) in open.run.open().iter().take(super::MAX_WAITING) {
            let name = open.plan.doer_name(segment, node);
            let whose = match open.plan.delegate(segment, node) {
                Some(_) => format!(" for {}", open.plan.name(node)),
                None => String::new(),
            };
            let (reason, message) = match open.run.stage(segment, node) {
                Stage::Claimed => ("Working", format!("{name} is at work{whose}")),
                _ => ("Unclaimed", format!("{name} has not taken its work{whose} yet")),
            };
            self.wait_for(format!("node/{name}"), reason, message);
        }
    }
}

fn next_attempt(run: &RunState, segment: u32, node: u32) -> Option<u32> {
    match run.stage(segment, node) {
        Stage::Unassigned => Some(1),
        Stage::Rerun => Some(run.track(segment, node)?.last()?.number + 1),
        Stage::Assigned | Stage::Claimed | Stage::Ended(_) => None,
    }
}

/// How much each delegate of a Run may still take.
struct Throttled<'w> {
    limit: Option<u32>,
    taken: BTreeMap<&'w str, u32>,
}

impl<'w> Throttled<'w> {
    /// Counts what the Run's delegates hold. Without a limit nothing is counted.
    fn new(run: &'w RunState, plan: &'w Plan, limit: Option<u32>) -> Self {
        let mut taken = BTreeMap::new();
        if limit.is_some() {
            for (segment, node, _) in run.places() {
                *taken.entry(plan.doer_uid(*segment, *node)).or_default() += 1;
            }
        }
        Throttled { limit, taken }
    }

    /// Whether the node takes one more; then it is counted.
    fn takes(&mut self, doer: &'w str) -> bool {
        let Some(limit) = self.limit else { return true };
        let taken = self.taken.entry(doer).or_default();
        let takes = *taken < limit.max(1);
        *taken += u32::from(takes);
        takes
    }
}
