//! Locks: granted all or nothing, in order of priority, then admission; nobody overtakes an earlier waiter that it
//! conflicts with. Held by every granted Run that has a cursor.

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::{LockMode, LockRequest};

use super::Deciding;

/// Who stands at a lock: holders, and waiters that were looked at.
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

impl<'w> Deciding<'w> {
    pub(super) fn grant_locks(&mut self) {
        let mut queues: BTreeMap<(&'w str, &'w str), Queue<'w>> = BTreeMap::new();
        for run in self.world.live().filter(|run| run.cursor().is_some_and(|cursor| cursor.granted)) {
            let Some(plan) = run.plan() else { continue };
            for lock in &plan.snapshot.locks {
                queues
                    .entry((&plan.snapshot.namespace, &lock.name))
                    .or_default()
                    .stand(lock.mode(), &plan.snapshot.run_name);
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

    fn grant(&mut self, at: usize, queues: &mut BTreeMap<(&'w str, &'w str), Queue<'w>>) {
        let snapshot = &self.active[at].plan.snapshot;
        let key = |lock: &'w LockRequest| (snapshot.namespace.as_str(), lock.name.as_str());
        let conflicts: Vec<(&'w LockRequest, &'w str)> = snapshot
            .locks
            .iter()
            .filter_map(|lock| Some((lock, queues.get(&key(lock))?.conflict(lock.mode())?)))
            .collect();
        for lock in &snapshot.locks {
            queues.entry(key(lock)).or_default().stand(lock.mode(), &snapshot.run_name);
        }
        let active = &mut self.active[at];
        for (lock, holder) in &conflicts {
            let message = format!("run {holder} holds the lock {} or waited for it earlier", lock.name);
            active.wait_for(format!("lock/{}", lock.name), "LockHeld", message);
        }
        if conflicts.is_empty() {
            active.cursor.granted = true;
            active.moved = true;
        }
    }
}
