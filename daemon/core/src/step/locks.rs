//! Locks and concurrency keys: granted all or nothing, in one order of all that wait; nobody overtakes an earlier waiter
//! that it conflicts with. Held by every granted Run that has a cursor, and locks by admins.
//!
//! The order is total, so that no circle of Runs waits for one another: priority, then admission; but a Run that asks for
//! a lock in mode `Clean` passes nobody of its namespace and is passed by nobody.

use std::collections::BTreeMap;

use lockstep_apis::{
    commit::Compare,
    keys,
    v1alpha::{ConcurrencyRecord, LockMode, LockUse, Snapshot},
};
use prost::Message;

use super::Deciding;
use crate::protocol::{excludes, held_by};

/// What Runs wait for one another over: namespace, and what of it.
type Held<'w> = (&'w str, Thing<'w>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing<'w> {
    Lock(&'w str),
    /// Always excluding.
    Concurrency(&'w str),
}

/// Who stands where, in order: holders, then waiters that were looked at.
pub(super) type Standing<'w> = BTreeMap<Held<'w>, Queue<'w>>;

/// Those who stand at one of them.
#[derive(Default)]
pub(super) struct Queue<'w> {
    holders: Vec<(&'w str, LockMode)>,
    waiters: Vec<(&'w str, LockMode)>,
    /// The first that shares, and the first that excludes: what all others meet.
    reader: Option<&'w str>,
    writer: Option<&'w str>,
}

impl<'w> Queue<'w> {
    /// Who is in the way of the mode.
    fn conflict(&self, mode: LockMode) -> Option<&'w str> {
        match mode {
            LockMode::Read => self.writer,
            LockMode::Write | LockMode::Clean | LockMode::Unspecified => self.writer.or(self.reader),
        }
    }

    fn stand(&mut self, mode: LockMode, run: &'w str, holds: bool) {
        match mode {
            LockMode::Read => self.reader.get_or_insert(run),
            LockMode::Write | LockMode::Clean | LockMode::Unspecified => self.writer.get_or_insert(run),
        };
        let of = if holds { &mut self.holders } else { &mut self.waiters };
        of.push((run, mode));
    }

    /// As readers see them.
    pub(super) fn uses(&self) -> (Vec<LockUse>, Vec<LockUse>) {
        let shown = |of: &[(&str, LockMode)]| {
            let uses = of.iter().map(|(run, mode)| LockUse { run: (*run).to_owned(), mode: (*mode).into() });
            uses.take(super::MAX_WAITING).collect()
        };
        (shown(&self.holders), shown(&self.waiters))
    }
}

/// All that a Run asks for.
fn wanted(snapshot: &Snapshot) -> impl Iterator<Item = (Held<'_>, LockMode)> {
    let namespace = snapshot.namespace.as_str();
    let locks = snapshot.locks.iter().map(move |lock| ((namespace, Thing::Lock(&lock.name)), lock.mode_or_default()));
    let key = Some(snapshot.concurrency_key.as_str()).filter(|key| !key.is_empty());
    locks.chain(key.map(|key| ((namespace, Thing::Concurrency(key)), LockMode::Write)))
}

fn is_clean(snapshot: &Snapshot) -> bool {
    snapshot.locks.iter().any(|lock| lock.mode() == LockMode::Clean)
}

impl<'w> Deciding<'w> {
    /// Takes Runs that are through out of the records of their concurrency keys.
    pub(super) fn forget_keys(&mut self) {
        for (key, record) in self.world.concurrency_keys() {
            let live = |uid: &&String| self.world.run(uid).is_some_and(|run| run.is_live());
            let left: Vec<String> = record.value.runs.iter().filter(live).cloned().collect();
            if left.len() == record.value.runs.len() {
                continue;
            }
            let commit = self.commit().when(Compare::ModRevision(key.clone(), record.revision));
            self.step.commits.push(match left.is_empty() {
                true => commit.delete(key.clone()),
                false => commit.put(key.clone(), ConcurrencyRecord { runs: left }.encode_to_vec()),
            });
        }
    }

    pub(super) fn grant_locks(&mut self) {
        let mut standing = Standing::default();
        for run in self.world.live().filter(|run| run.cursor().is_some_and(|cursor| cursor.granted)) {
            let Some(plan) = run.plan() else { continue };
            for (held, mode) in wanted(&plan.snapshot) {
                standing.entry(held).or_default().stand(mode, &plan.snapshot.run_name, true);
            }
        }
        for at in self.waiters() {
            self.grant(at, &mut standing);
        }
        self.standing = standing;
    }

    /// Who waits, in the order in which they are looked at.
    fn waiters(&self) -> Vec<usize> {
        let waits = |&at: &usize| !self.active[at].cursor.granted && self.active[at].may_move();
        let mut waiters: Vec<usize> = (0..self.active.len()).filter(waits).collect();
        waiters.sort_by_key(|&at| self.active[at].cursor.admission);
        // Each Clean is an era of its own, and begins another one for those behind it.
        let mut eras: BTreeMap<&str, u32> = BTreeMap::new();
        let mut order = Vec::with_capacity(waiters.len());
        for at in waiters {
            let snapshot = &self.active[at].plan.snapshot;
            let era = eras.entry(&snapshot.namespace).or_default();
            let own = *era + u32::from(is_clean(snapshot));
            *era += 2 * u32::from(is_clean(snapshot));
            let cursor = &self.active[at].cursor;
            order.push(((own, std::cmp::Reverse(cursor.priority), cursor.admission), at));
        }
        order.sort_unstable_by_key(|(place, _)| *place);
        order.into_iter().map(|(_, at)| at).collect()
    }

    fn grant(&mut self, at: usize, standing: &mut Standing<'w>) {
        let snapshot = &self.active[at].plan.snapshot;
        let conflicts: Vec<(Thing<'w>, &'w str)> =
            wanted(snapshot).filter_map(|(held, mode)| Some((held.1, standing.get(&held)?.conflict(mode)?))).collect();
        for (held, mode) in wanted(snapshot) {
            standing.entry(held).or_default().stand(mode, &snapshot.run_name, false);
        }
        let free = self.wait_for_admins(at);
        let active = &mut self.active[at];
        for (thing, holder) in &conflicts {
            match thing {
                Thing::Lock(name) => {
                    let message = format!("run {holder} holds the lock {name} or waited for it earlier");
                    active.wait_behind(format!("lock/{name}"), "LockHeld", message, format!("run/{holder}"));
                }
                Thing::Concurrency(key) => {
                    let message = format!("run {holder} has the concurrency key `{key}` or waited for it earlier");
                    let on = format!("run/{holder}");
                    active.wait_behind(on.clone(), "ConcurrencyKey", message, on);
                }
            }
        }
        if conflicts.is_empty() && free {
            active.cursor.granted = true;
            active.moved = true;
            self.compare_locks(at);
        }
    }

    /// What admins hold, and what is poisoned. Returns whether nothing is in the way.
    fn wait_for_admins(&mut self, at: usize) -> bool {
        let world = self.world;
        let active = &mut self.active[at];
        let snapshot = &active.plan.snapshot;
        let mut free = true;
        for lock in &snapshot.locks {
            let Some(status) = world.lock(&snapshot.namespace, &lock.name).and_then(|lock| lock.value.status.as_ref())
            else {
                continue;
            };
            let on = format!("lock/{}", lock.name);
            if let Some(poison) = &status.poison {
                free = false;
                let message = format!(
                    "the lock {} is poisoned since run {} failed; mend what it left, then `lockstep locks clear {}`",
                    lock.name, poison.run, lock.name
                );
                active.wait_behind(on.clone(), "LockPoisoned", message, format!("run/{}", poison.run));
            }
            for hold in status.holds.iter().filter(|hold| excludes(hold.mode(), lock.mode_or_default())) {
                free = false;
                let message = held_by(&lock.name, hold);
                active.wait_behind(on.clone(), "LockHeld", message, format!("user/{}", hold.owner));
            }
        }
        free
    }

    /// Admins write the locks' objects: what was granted holds only if they have not.
    fn compare_locks(&mut self, at: usize) {
        let snapshot = &self.active[at].plan.snapshot;
        for lock in &snapshot.locks {
            let key = keys::object("locks", &snapshot.namespace, &lock.name);
            self.active[at].granted.push(match self.world.lock(&snapshot.namespace, &lock.name) {
                Some(stored) => Compare::ModRevision(key.clone(), stored.revision),
                None => Compare::Absent(key.clone()),
            });
            self.touched.insert(key);
        }
    }
}
