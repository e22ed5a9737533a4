//! Locks and concurrency keys: granted all or nothing, in order of priority, then admission; nobody overtakes an earlier
//! waiter that it conflicts with. Held by every granted Run that has a cursor.

use std::collections::BTreeMap;

use lockstep_apis::{
    commit::Compare,
    v1alpha::{ConcurrencyRecord, LockMode, Snapshot},
};
use prost::Message;

use super::Deciding;

/// What Runs wait for one another over: namespace, and what of it.
type Held<'w> = (&'w str, Thing<'w>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing<'w> {
    Lock(&'w str),
    /// Always excluding.
    Concurrency(&'w str),
}

/// Who stands at one of them: holders, and waiters that were looked at.
#[derive(Default)]
struct Queue<'w> {
    /// The name of a Run that shares it.
    reader: Option<&'w str>,
    /// The name of the Run that excludes others.
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

    fn stand(&mut self, mode: LockMode, run: &'w str) {
        match mode {
            LockMode::Read => self.reader.get_or_insert(run),
            LockMode::Write | LockMode::Clean | LockMode::Unspecified => self.writer.get_or_insert(run),
        };
    }
}

/// All that a Run asks for.
fn wanted(snapshot: &Snapshot) -> impl Iterator<Item = (Held<'_>, LockMode)> {
    let namespace = snapshot.namespace.as_str();
    let locks = snapshot.locks.iter().map(move |lock| ((namespace, Thing::Lock(&lock.name)), lock.mode()));
    let key = Some(snapshot.concurrency_key.as_str()).filter(|key| !key.is_empty());
    locks.chain(key.map(|key| ((namespace, Thing::Concurrency(key)), LockMode::Write)))
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
        let mut queues: BTreeMap<Held<'w>, Queue<'w>> = BTreeMap::new();
        for run in self.world.live().filter(|run| run.cursor().is_some_and(|cursor| cursor.granted)) {
            let Some(plan) = run.plan() else { continue };
            for (held, mode) in wanted(&plan.snapshot) {
                queues.entry(held).or_default().stand(mode, &plan.snapshot.run_name);
            }
        }
        let mut waiters: Vec<usize> = (0..self.active.len())
            .filter(|&at| !self.active[at].cursor.granted && self.active[at].may_move())
            .collect();
        waiters.sort_by_key(|&at| {
            let cursor = &self.active[at].cursor;
            (std::cmp::Reverse(cursor.priority), cursor.admission)
        });
        for at in waiters {
            self.grant(at, &mut queues);
        }
    }

    fn grant(&mut self, at: usize, queues: &mut BTreeMap<Held<'w>, Queue<'w>>) {
        let snapshot = &self.active[at].plan.snapshot;
        let conflicts: Vec<(Thing<'w>, &'w str)> =
            wanted(snapshot).filter_map(|(held, mode)| Some((held.1, queues.get(&held)?.conflict(mode)?))).collect();
        for (held, mode) in wanted(snapshot) {
            queues.entry(held).or_default().stand(mode, &snapshot.run_name);
        }
        let active = &mut self.active[at];
        for (thing, holder) in &conflicts {
            match thing {
                Thing::Lock(name) => {
                    let message = format!("run {holder} holds the lock {name} or waited for it earlier");
                    active.wait_for(format!("lock/{name}"), "LockHeld", message);
                }
                Thing::Concurrency(key) => {
                    let message = format!("run {holder} has the concurrency key `{key}` or waited for it earlier");
                    active.wait_for(format!("run/{holder}"), "ConcurrencyKey", message);
                }
            }
        }
        if conflicts.is_empty() {
            active.cursor.granted = true;
            active.moved = true;
        }
    }
}
