//! What breaks, and how everything that can comes back.

use lockstep_apis::{
    commit::Compare,
    keys::AttemptKey,
    v1alpha::{Outcome, Report},
};

use super::{Cluster, Deed, Event, Purpose};
use crate::simulation::{books::node_uid, server::Server};

impl Cluster {
    pub(super) fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let next =
            if self.variant.stops_guards() { self.random.between(2_000, 9_000) } else { self.random.between(30, 500) };
        self.after(next, Event::Fault);
        let node = self.a_node();
        let server = self.random.below(self.servers.len());
        // Where guards are judged, nodes go and nothing else ends their work.
        let kind = if self.variant.stops_guards() { 10 } else { self.random.between(0, 11) };
        match kind {
            0 => self.crash_server(server),
            1 | 2 => {
                let until = self.now_ms + self.random.between(200, 6000);
                self.servers[server].paused_until = until;
            }
            3 => {
                let ms = if self.random.chance(200) { 30_000 } else { 3_000 };
                self.servers[server].clock_ms = self.random.between(0, 2 * ms) as i64 - ms as i64;
            }
            4 | 5 => {
                self.machines[node].agent = None;
                let back = self.random.between(10, 1500);
                self.after(back, Event::AgentUp(node));
            }
            6 | 7 => self.crash_executor(node),
            8 => self.pause_executor(node),
            9 => self.crash_machine(node),
            10 => {
                let (least, most) = if self.is_long { (8_000, 20_000) } else { (200, 8_000) };
                self.machines[node].cut_until = self.now_ms + self.random.between(least, most);
            }
            _ => self.forge_report(node),
        }
    }

    /// Any node, but more often one that works.
    fn a_node(&mut self) -> usize {
        let busy: Vec<usize> =
            (0..self.machines.len()).filter(|&node| !self.machines[node].executors.is_empty()).collect();
        if !busy.is_empty() && self.random.chance(700) {
            return *self.random.pick(&busy);
        }
        self.random.below(self.machines.len())
    }

    fn crash_server(&mut self, server: usize) {
        let epoch = self.servers[server].epoch;
        let clock_ms = self.servers[server].clock_ms;
        let drift = self.servers[server].drift_per_mille;
        self.servers[server] = Server { up: false, epoch, clock_ms, ..Server::new(drift) };
        let back = self.random.between(50, 3000);
        self.after(back, Event::ServerUp(server));
    }

    pub(super) fn server_up(&mut self, server: usize) {
        if self.servers[server].up {
            return;
        }
        self.servers[server].start(&self.store, self.variant);
        let epoch = self.servers[server].epoch;
        self.poll_after(server, 1);
        self.after(1, Event::LeaseKeep(server, epoch));
    }

    fn crash_executor(&mut self, node: usize) {
        let attempts: Vec<_> = self.machines[node].executors.keys().cloned().collect();
        if !attempts.is_empty() {
            let attempt = self.random.pick(&attempts).clone();
            let executor = self.machines[node].executors.remove(&attempt);
            // Its guard sees it at once.
            let (id, wait) = (executor.map_or(0, |executor| executor.id), self.random.between(1, 50));
            self.after(wait, Event::Guard(node, attempt, id));
        }
    }

    fn pause_executor(&mut self, node: usize) {
        let until = self.now_ms + self.random.between(100, 5000);
        for executor in self.machines[node].executors.values_mut() {
            executor.paused_until = until;
        }
    }

    fn crash_machine(&mut self, node: usize) {
        if !self.machines[node].up {
            return;
        }
        self.power_off(node);
        let back = self.random.between(100, 8000);
        self.after(back, Event::MachineUp(node));
    }

    fn power_off(&mut self, node: usize) {
        // Whoever brought the reboot about, it is one.
        let rebooted = self.machines[node].going_down();
        for (attempt, task) in self.machines[node].lose_power(&mut self.random) {
            self.log(&attempt, task, Deed::Killed);
        }
        for (attempt, task) in rebooted {
            self.log(&attempt, task, Deed::End(Outcome::Changed));
        }
    }

    pub(super) fn go_down(&mut self, node: usize, boot: u64) {
        if self.machines[node].boot == boot {
            self.crash_machine(node);
        }
    }

    pub(super) fn machine_up(&mut self, node: usize) {
        if self.machines[node].up || self.machines[node].gone {
            return;
        }
        self.machines[node].up = true;
        let agent = self.random.between(1, 100);
        self.after(agent, Event::AgentUp(node));
    }

    /// A node reports what it never claimed: restored from an old backup, or lying. Only as long as it did not claim:
    /// about its own work a node may lie, and nobody else can know better.
    fn forge_report(&mut self, node: usize) {
        let server = self.random.below(self.servers.len());
        if !self.servers[server].up {
            return;
        }
        let offered = self.servers[server].world.offers(&node_uid(node)).next().cloned();
        let Some(attempt) = offered else { return };
        let commit = lockstep_core::protocol::report(&attempt, &Report::default(), false);
        let commit = self.variant.of_report(commit).when(Compare::Absent(AttemptKey::Claim.of(&attempt)));
        self.send(server, commit, None, Purpose::Report(node, 0, attempt));
    }

    /// Nothing breaks any more; a node may stay away for good.
    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.healed_ms = self.now_ms;
        for server in 0..self.servers.len() {
            self.servers[server].paused_until = 0;
            self.server_up(server);
            self.poll_after(server, 1);
        }
        let lost = self.random.chance(120).then(|| self.random.below(self.machines.len()));
        for node in 0..self.machines.len() {
            if lost == Some(node) {
                self.power_off(node);
                self.machines[node].gone = true;
                continue;
            }
            self.machines[node].cut_until = 0;
            self.machines[node].executors.values_mut().for_each(|executor| executor.paused_until = 0);
            self.machine_up(node);
            self.after(5, Event::AgentUp(node));
        }
        self.after(100, Event::ResumeAll);
    }
}
