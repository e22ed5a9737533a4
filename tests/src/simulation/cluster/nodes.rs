//! Agents and executors, by the rules that the protocol asks of them.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::{
    keys::Attempt,
    v1alpha::{Outcome, Report},
};
use lockstep_core::{
    fence,
    recovery::{self, Judgement},
};

use super::{Beat, Cluster, Deed, Down, Event, Execution, Up};
use crate::simulation::{
    machine::{Agent, Child, Executor, Folder},
    variant::Variant,
};

impl Cluster {
    pub(super) fn agent_up(&mut self, node: usize) {
        if !self.machines[node].up || self.machines[node].agent.is_some() {
            return;
        }
        let instance = self.id();
        self.machines[node].agent =
            Some(Agent { instance, server: None, stream: 0, pending: BTreeMap::new(), taken: BTreeSet::new() });
        self.agent_tick(node, instance);
    }

    /// What an agent does now and then: keeps its stream, looks at its folders, asks again.
    pub(super) fn agent_tick(&mut self, node: usize, instance: u64) {
        let servers: Vec<(bool, u64)> = self.servers.iter().map(|server| (server.up, server.epoch)).collect();
        let machine = &mut self.machines[node];
        let boot_ms = machine.boot_ms(self.now_ms);
        let Some(agent) = machine.agent.as_mut().filter(|agent| agent.instance == instance) else { return };
        if agent.server.is_some_and(|(server, epoch)| servers[server] != (true, epoch)) {
            agent.server = None;
        }
        if agent.server.is_none() || self.random.chance(if self.faults { 50 } else { 0 }) {
            let up: Vec<usize> = (0..servers.len()).filter(|&server| servers[server].0).collect();
            agent.server = (!up.is_empty()).then(|| *self.random.pick(&up)).map(|server| (server, servers[server].1));
            agent.stream = boot_ms;
            agent.pending.values_mut().for_each(|sent_ms| *sent_ms = boot_ms);
        }
        let (stream, boot) = (agent.stream, machine.boot);
        let holding: Vec<Attempt> = machine.disk.keys().cloned().collect();
        let pending: Vec<Attempt> = agent.pending.keys().cloned().collect();
        self.tell_server(node, Up::Hello(boot, stream, holding.clone()));
        self.tell_server(node, Up::Heartbeat(stream, boot_ms));
        for attempt in pending {
            self.tell_server(node, Up::Claim(attempt));
        }
        for attempt in holding {
            self.look_at(node, &attempt);
        }
        let next = self.random.between(100, 300);
        self.after(next, Event::AgentTick(node, instance));
    }

    /// Looks at a folder and does what its journal asks for.
    fn look_at(&mut self, node: usize, attempt: &Attempt) {
        let alive = self.machines[node].executors.contains_key(attempt);
        if !alive {
            self.kill_child(node, attempt);
        }
        let machine = &self.machines[node];
        let Some(folder) = machine.disk.get(attempt) else { return };
        match recovery::judge(&folder.work, &folder.records, &machine.boot_id(), alive, self.now_ms) {
            Judgement::Working => {}
            Judgement::NotStarted if folder.fenced => {
                self.tell_server(node, Up::Report(attempt.clone(), Report::default()));
            }
            Judgement::NotStarted => self.start_executor(node, attempt),
            Judgement::Ended(report) => self.tell_server(node, Up::Report(attempt.clone(), report)),
        }
    }

    fn start_executor(&mut self, node: usize, attempt: &Attempt) {
        let id = self.id();
        self.machines[node].executors.insert(attempt.clone(), Executor { id, paused_until: 0 });
        self.after(1, Event::Beat(node, attempt.clone(), id, Beat::Intend));
        self.guard(node, attempt, id);
    }

    /// The guard looks, by the machine's clock: kills what is not kept alive, or what its executor left.
    pub(super) fn guard(&mut self, node: usize, attempt: &Attempt, id: u64) {
        if self.variant.stops_guards() {
            return;
        }
        let machine = &mut self.machines[node];
        let boot_ms = machine.boot_ms(self.now_ms);
        let Some(folder) = machine.disk.get_mut(attempt).filter(|folder| folder.work.fence_ms > 0) else { return };
        let end_ms = folder.renewed_ms + folder.work.fence_ms;
        let is_alive = machine.executors.get(attempt).is_some_and(|executor| executor.id == id);
        if is_alive && boot_ms < end_ms {
            // Its clock may be slow.
            let wait = (end_ms - boot_ms) * (1000 + fence::DRIFT_PER_MILLE) / 1000 + self.random.between(1, 50);
            return self.after(wait, Event::Guard(node, attempt.clone(), id));
        }
        if is_alive {
            folder.fenced = true;
            machine.executors.remove(attempt);
        }
        if !machine.executors.contains_key(attempt) {
            self.kill_child(node, attempt);
        }
    }

    /// A message to the server of the agent's stream: late, twice, out of order or never.
    fn tell_server(&mut self, node: usize, message: Up) {
        let machine = &self.machines[node];
        let Some(agent) = machine.agent.as_ref() else { return };
        let (Some((server, _)), instance) = (agent.server, agent.instance) else { return };
        if machine.cut_until > self.now_ms || self.mishap(20) {
            return;
        }
        if self.mishap(30) {
            let latency = self.latency();
            self.after(latency, Event::ToServer(server, node, instance, message.clone()));
        }
        let latency = self.latency();
        self.after(latency, Event::ToServer(server, node, instance, message));
    }

    /// A message reaches the agent process that it was for.
    pub(super) fn hear(&mut self, node: usize, instance: u64, message: Down) {
        let machine = &mut self.machines[node];
        let boot_ms = machine.boot_ms(self.now_ms);
        let Some(agent) = machine.agent.as_mut().filter(|agent| agent.instance == instance) else { return };
        match message {
            Down::Offer(attempt) => {
                if !agent.taken.contains(&attempt) && !machine.disk.contains_key(&attempt) {
                    agent.pending.entry(attempt.clone()).or_insert(boot_ms);
                    self.tell_server(node, Up::Claim(attempt));
                }
            }
            // What an old stream still says is heard, to be harsh; of what may be fenced a real agent never hears it.
            Down::Work(_, work, stream) if work.fence_ms > 0 && stream != agent.stream => {}
            Down::Work(attempt, mut work, _) => {
                if self.variant == Variant::LeftForgotten {
                    work.left_blocks.clear();
                }
                if self.variant == Variant::OwedForgotten {
                    work.owed.clear();
                }
                if self.variant == Variant::LeftOutDone {
                    work.tasks.iter_mut().for_each(|task| task.left_out.clear());
                }
                if self.variant == Variant::OrderForgotten {
                    work.tasks.iter_mut().for_each(|task| task.after.clear());
                }
                if let Some(sent_ms) = agent.pending.remove(&attempt)
                    && agent.taken.insert(attempt.clone())
                {
                    machine.make_folder(&attempt, *work, sent_ms);
                    self.start_executor(node, &attempt);
                }
            }
            Down::Acknowledged(stream, sent_ms, fenced) if stream == agent.stream => {
                let kept = machine.disk.iter_mut().filter(|(attempt, _)| !fenced.contains(attempt));
                for folder in kept.map(|(_, folder)| folder) {
                    folder.renewed_ms = folder.renewed_ms.max(sent_ms);
                }
            }
            Down::Acknowledged(..) => {}
            Down::Forgotten(attempt, work) => {
                let waits = agent.pending.remove(&attempt).is_some();
                if waits && agent.taken.insert(attempt.clone()) {
                    // No folder is left: kept on disk like any end, until it is stored.
                    machine.make_folder(&attempt, *work, boot_ms);
                    let report = recovery::interrupted_all(&machine.disk[&attempt].work, self.now_ms);
                    let folder = machine.disk.get_mut(&attempt).expect("made above");
                    folder.records.clear();
                    folder.write(lockstep_apis::v1alpha::journal_record::Record::Finished(
                        lockstep_apis::v1alpha::JournalFinished { report: Some(report) },
                    ));
                    folder.synced = 1;
                    self.look_at(node, &attempt);
                }
            }
            Down::Refused(attempt) => {
                agent.pending.remove(&attempt);
            }
            Down::Stored(attempt) => {
                if !machine.executors.contains_key(&attempt) {
                    agent.taken.insert(attempt.clone());
                    machine.disk.remove(&attempt);
                }
            }
            Down::Cancel(attempt) => self.cancel_attempt(node, &attempt),
        }
    }

    fn cancel_attempt(&mut self, node: usize, attempt: &Attempt) {
        let Some(folder) = self.machines[node].disk.get_mut(attempt) else { return };
        if std::mem::replace(&mut folder.cancelled, true) {
            return;
        }
        let grace_ms = folder.work.grace_ms;
        if let Some(executor) = self.machines[node].executors.get(attempt) {
            let id = executor.id;
            let wait = self.random.between(1, grace_ms);
            self.after(wait, Event::Beat(node, attempt.clone(), id, Beat::Kill));
        }
    }

    /// One thing that an executor does. It may die before each.
    pub(super) fn beat(&mut self, node: usize, attempt: &Attempt, id: u64, beat: Beat) {
        let reboots = matches!(beat, Beat::Start(task) if self.reboots(attempt, task));
        let machine = &mut self.machines[node];
        if machine.executors.get(attempt).is_none_or(|executor| executor.id != id) {
            return;
        }
        let Some(folder) = machine.disk.get_mut(attempt) else { return };
        let late = self.variant == Variant::JournalAfterExec;
        let mut ended_badly = true;
        let next = match beat {
            Beat::Intend => match folder.next_task() {
                None if folder.is_free() && folder.is_at_work() => return,
                None => return self.finish(node, attempt),
                Some(task) if folder.cancelled && !folder.is_ending() => {
                    folder.done(task, Outcome::Cancelled);
                    Beat::Intend
                }
                Some(task) if folder.leaves_out(task) => {
                    folder.done(task, Outcome::Skipped);
                    Beat::Intend
                }
                Some(task) => {
                    ended_badly = false;
                    if !late {
                        folder.intend(task, self.now_ms);
                    }
                    Beat::Start(task)
                }
            },
            Beat::Start(task) if folder.cancelled && (folder.is_free() || !folder.is_ending()) => {
                folder.done(task, Outcome::Cancelled);
                Beat::Intend
            }
            Beat::Start(task) if reboots => return self.note_reboot(node, attempt, id, task),
            Beat::GoDown(task) => {
                self.log(attempt, task, Deed::Start);
                let (boot, wait) = (self.machines[node].boot, self.random.between(1, 500));
                return self.after(wait, Event::GoDown(node, boot));
            }
            Beat::Start(task) => {
                let goes_on = folder.is_free() && !late;
                self.start_child(node, attempt, id, task);
                if !goes_on {
                    return;
                }
                ended_badly = false;
                Beat::Intend
            }
            Beat::IntendLate(task) => return folder.intend(task, self.now_ms),
            Beat::Done(task, outcome) => {
                folder.done(task, outcome);
                ended_badly = outcome == Outcome::Failed;
                Beat::Intend
            }
            Beat::Kill => {
                // What is always done has its own time.
                let children = machine.children.range((attempt.clone(), 0)..=(attempt.clone(), u32::MAX));
                let children: Vec<u32> = children.map(|((_, task), _)| *task).collect();
                if children.is_empty() || (folder.is_ending() && !folder.is_free()) {
                    return;
                }
                children.iter().for_each(|task| folder.done(*task, Outcome::Cancelled));
                self.kill_child(node, attempt);
                Beat::Intend
            }
        };
        let is_over = |folder: &Folder| folder.next_task().is_none() && !(folder.is_free() && folder.is_at_work());
        if ended_badly && self.machines[node].disk.get(attempt).is_some_and(is_over) {
            return self.finish(node, attempt);
        }
        let wait = self.random.between(0, 3);
        self.after(wait, Event::Beat(node, attempt.clone(), id, next));
    }

    fn reboots(&self, attempt: &Attempt, task: u32) -> bool {
        self.books.iter().any(|book| book.snapshot.run_uid == attempt.run && book.reboots(task))
    }

    /// From here on the next boot counts, or the timeout.
    fn note_reboot(&mut self, node: usize, attempt: &Attempt, id: u64, task: u32) {
        let now_ms = self.now_ms;
        if self.variant != Variant::RebootNotNoted
            && let Some(folder) = self.machines[node].disk.get_mut(attempt)
        {
            let timeout_ms = folder.work.tasks.iter().find(|of| of.index == task).map_or(0, |task| task.timeout_ms);
            folder.reboot(task, now_ms, timeout_ms);
        }
        let wait = self.random.between(0, 3);
        self.after(wait, Event::Beat(node, attempt.clone(), id, Beat::GoDown(task)));
    }

    fn start_child(&mut self, node: usize, attempt: &Attempt, executor: u64, task: u32) {
        let book = self.books.iter().find(|book| book.snapshot.run_uid == attempt.run).expect("every Run has a book");
        let (outcome, takes_ms) = book.ends(&attempt.for_node, task);
        let is_same = |of: &Attempt| (&of.run, &of.for_node) == (&attempt.run, &attempt.for_node);
        let is_done =
            |mark: &Execution| mark.task == task && mark.what == Deed::End(Outcome::Changed) && is_same(&mark.attempt);
        // What was changed by an attempt that was cut needs no change.
        let outcome = if self.executions.iter().any(is_done) { Outcome::Ok } else { outcome };
        let id = self.id();
        self.machines[node].children.insert((attempt.clone(), task), Child { id, outcome });
        self.log(attempt, task, Deed::Start);
        self.after(takes_ms, Event::ChildEnds(node, attempt.clone(), task, id));
        if self.variant == Variant::JournalAfterExec {
            let wait = self.random.between(1, 20);
            self.after(wait, Event::Beat(node, attempt.clone(), executor, Beat::IntendLate(task)));
        }
    }

    pub(super) fn child_ends(&mut self, node: usize, attempt: &Attempt, task: u32, id: u64) {
        let machine = &mut self.machines[node];
        let place = (attempt.clone(), task);
        if machine.children.get(&place).is_none_or(|child| child.id != id) {
            return;
        }
        let child = machine.children.remove(&place).expect("seen above");
        let executor = machine.executors.get(attempt).map(|executor| executor.id);
        self.log(attempt, task, Deed::End(child.outcome));
        if let Some(executor) = executor {
            let wait = self.random.between(0, 3);
            self.after(wait, Event::Beat(node, attempt.clone(), executor, Beat::Done(task, child.outcome)));
        }
    }

    fn finish(&mut self, node: usize, attempt: &Attempt) {
        let machine = &mut self.machines[node];
        machine.executors.remove(attempt);
        if let Some(folder) = machine.disk.get_mut(attempt) {
            folder.finish();
        }
        if machine.agent.is_some() {
            self.look_at(node, attempt);
        }
    }

    fn kill_child(&mut self, node: usize, attempt: &Attempt) {
        for task in self.machines[node].at_work(attempt) {
            self.machines[node].children.remove(&(attempt.clone(), task));
            self.log(attempt, task, Deed::Killed);
        }
    }

    pub(super) fn log(&mut self, attempt: &Attempt, task: u32, what: Deed) {
        self.executions.push(Execution { at_ms: self.now_ms, attempt: attempt.clone(), task, what });
    }
}
