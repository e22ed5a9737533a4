//! Serving nodes and admins from a cache that may be old.

use lockstep_apis::{
    commit::Commit,
    keys::Attempt,
    timestamp,
    v1alpha::{Claim, LockHold, LockMode, Metadata, RunApproval},
};
use lockstep_core::protocol::{self, ClaimAnswer};

use super::{Answer, Cluster, Down, Event, Purpose, Request, Up};
use crate::simulation::{books::node_uid, variant::Variant};

/// Where all is that the simulation makes.
const NAMESPACE: &str = "sim";

fn lock_metadata(name: &str) -> Metadata {
    Metadata { name: name.into(), namespace: NAMESPACE.into(), ..Default::default() }
}

fn approval() -> RunApproval {
    RunApproval { by: "user/admin".into(), by_uid: "admin".into(), ..Default::default() }
}

impl Cluster {
    /// Offers and cancels to every stream.
    pub(super) fn offer_all(&mut self, server: usize) {
        let nodes: Vec<usize> = self.servers[server].streams.keys().copied().collect();
        for node in nodes {
            self.offer(server, node);
        }
    }

    fn offer(&mut self, server: usize, node: usize) {
        let of = &self.servers[server];
        let Some(stream) = of.streams.get(&node) else { return };
        let (uid, instance) = (node_uid(node), stream.instance);
        let offers = of.world.offers(&uid);
        let process = instance.to_string();
        let forgotten = protocol::forgotten(&of.world, &uid, &process, &stream.holding);
        let mut messages: Vec<Down> = offers.chain(forgotten).cloned().map(Down::Offer).collect();
        messages.extend(of.world.cancels(&uid).map(|(attempt, _)| Down::Cancel(attempt.clone())));
        for message in messages {
            self.tell_agent(node, instance, message);
        }
    }

    /// A message to an agent: late, twice, out of order or never.
    pub(super) fn tell_agent(&mut self, node: usize, instance: u64, message: Down) {
        if self.machines[node].cut_until > self.now_ms || self.mishap(20) {
            return;
        }
        if self.mishap(30) {
            let latency = self.latency();
            self.after(latency, Event::ToAgent(node, instance, message.clone()));
        }
        let latency = self.latency();
        self.after(latency, Event::ToAgent(node, instance, message));
    }

    /// A message from an agent arrives.
    pub(super) fn serve(&mut self, server: usize, node: usize, instance: u64, message: Up) {
        if !self.servers[server].up {
            return;
        }
        match message {
            Up::Hello(boot, stream, holding) => {
                self.greet(server, node, instance, (boot, stream), holding);
                self.offer(server, node);
            }
            Up::Heartbeat(stream, sent_ms) => self.acknowledge(server, node, stream, sent_ms),
            Up::Claim(attempt) => self.serve_claim(server, node, instance, attempt),
            Up::Report(attempt, report) => {
                let state = self.servers[server].world.attempt(&attempt);
                if state.is_some_and(|state| state.report.is_some()) {
                    return self.tell_agent(node, instance, Down::Stored(attempt));
                }
                let verdict_seen = state.is_some_and(|state| state.verdict.is_some());
                let commit = protocol::report(&attempt, &report, verdict_seen);
                let commit = self.variant.of_report(commit);
                self.send(server, commit, None, Purpose::Report(node, instance, attempt));
            }
        }
    }

    fn serve_claim(&mut self, server: usize, node: usize, instance: u64, attempt: Attempt) {
        let claim = Claim { instance: instance.to_string(), at_ms: self.now_ms, ..Default::default() };
        let world = &self.servers[server].world;
        let mut answer = protocol::answer_claim(world, &attempt, &claim);
        if let (Variant::GateNotCompared, ClaimAnswer::Refused(_), Some(state)) =
            (self.variant, &answer, world.attempt(&attempt))
            && let (Some(assignment), None, None) = (&state.assignment, &state.claim, &state.verdict)
        {
            answer = ClaimAnswer::Commit(protocol::claim(&attempt, &claim, assignment.revision));
        }
        match answer {
            ClaimAnswer::Commit(commit) => {
                let commit = self.variant.of_claim(commit);
                self.send(server, commit, None, Purpose::Claim(node, instance, attempt));
            }
            // Granted long ago, perhaps: a node may have been given up since.
            ClaimAnswer::Granted if self.is_fenceable(server, &attempt) && !self.counts(server, node) => {}
            ClaimAnswer::Granted => self.give(server, node, instance, attempt),
            ClaimAnswer::Forgotten => self.send_work(server, node, instance, attempt, Down::Forgotten),
            ClaimAnswer::Refused(_) => self.tell_agent(node, instance, Down::Refused(attempt)),
            ClaimAnswer::NotYet => {}
        }
    }

    fn is_fenceable(&self, server: usize, attempt: &Attempt) -> bool {
        let plan = self.servers[server].world.run(&attempt.run).and_then(|run| run.plan());
        plan.is_none_or(|plan| plan.snapshot.fence_ms > 0)
    }

    fn give(&mut self, server: usize, node: usize, instance: u64, attempt: Attempt) {
        let stream = self.servers[server].streams.get(&node).map_or(0, |stream| stream.session.attached_boot_ms);
        self.send_work(server, node, instance, attempt, |attempt, work| Down::Work(attempt, work, stream));
    }

    fn send_work(
        &mut self,
        server: usize,
        node: usize,
        instance: u64,
        attempt: Attempt,
        message: impl FnOnce(Attempt, Box<lockstep_apis::v1alpha::Work>) -> Down,
    ) {
        if let Some(delivery) = protocol::work(&self.servers[server].world, &attempt) {
            self.tell_agent(node, instance, message(attempt, Box::new(delivery.work)));
        }
    }

    /// The answer to a claim's or a report's commit.
    pub(super) fn answered_node(&mut self, request: Request, answer: Answer) {
        let server = request.server;
        match (request.purpose, answer) {
            (Purpose::Claim(node, instance, attempt), Answer::Done(_)) => {
                self.give(server, node, instance, attempt);
            }
            (Purpose::Session(node, stream, lease), answer) => self.recorded(server, node, stream, lease, answer),
            (Purpose::Report(node, instance, attempt), Answer::Done(_)) => {
                self.tell_agent(node, instance, Down::Stored(attempt));
            }
            // The agent asks again; by then the cache may know why.
            _ => {}
        }
    }

    /// An admin cancels, pauses, resumes or releases, through any server.
    pub(super) fn admin(&mut self) {
        if !self.faults || self.variant.stops_guards() {
            return;
        }
        let next = self.random.between(200, 2500);
        self.after(next, Event::Admin);
        let server = self.random.below(self.servers.len());
        if !self.servers[server].up {
            return;
        }
        let book = self.random.below(self.books.len());
        let (run, clock_ms) = (self.books[book].snapshot.run_uid.clone(), self.now_ms);
        let world = &self.servers[server].world;
        let lock = *self.random.pick(&["l1", "l2"]);
        let commit = match self.random.between(0, 23) {
            15 | 16 => {
                let hold = self.a_hold();
                let world = &self.servers[server].world;
                protocol::acquire_lock(world, lock_metadata(lock), hold)
            }
            17 => protocol::release_lock(world, NAMESPACE, lock, "u1"),
            18 | 19 => protocol::clear_lock(world, NAMESPACE, lock),
            20..=23 => protocol::approve(world, &run, approval()),
            0 => protocol::cancel(world, &run, "user/admin", clock_ms),
            1..=4 => protocol::pause(world, &run, "user/admin", clock_ms),
            5..=12 => protocol::resume(world, &run),
            _ => {
                let held = world.run(&run).and_then(|run| Some((run.plan()?, *run.places().first()?)));
                let node = held.map(|(plan, (segment, node, _))| plan.doer_uid(segment, node).to_owned());
                let node = node.unwrap_or_default();
                protocol::release(world, &run, &node, "user/admin", clock_ms)
            }
        };
        if let Ok(commit) = commit {
            self.send(server, commit, None, Purpose::Admin);
        }
    }

    fn a_hold(&mut self) -> LockHold {
        let owner = *self.random.pick(&["u1", "u2"]);
        let mode = *self.random.pick(&[LockMode::Read, LockMode::Write]);
        LockHold {
            owner: owner.into(),
            owner_uid: owner.into(),
            mode: mode.into(),
            reason: "simulated".into(),
            since: None,
            until: Some(timestamp::from_ms(self.now_ms + self.random.between(300, 4000))),
        }
    }

    /// After the faults nobody leaves a Run paused or unapproved, or a lock held or poisoned.
    pub(super) fn resume_all(&mut self) {
        let commits: Vec<Commit> = {
            let world = &self.servers[0].world;
            let runs = || self.books.iter().map(|book| book.snapshot.run_uid.as_str());
            let resumed = runs().filter_map(|run| protocol::resume(world, run).ok());
            let approved = runs().filter_map(|run| protocol::approve(world, run, approval()).ok());
            let cleared = ["l1", "l2"].into_iter().filter_map(|lock| protocol::clear_lock(world, NAMESPACE, lock).ok());
            let owned = ["l1", "l2"].into_iter().flat_map(|lock| ["u1", "u2"].map(|owner| (lock, owner)));
            let released = owned.filter_map(|(lock, owner)| protocol::release_lock(world, NAMESPACE, lock, owner).ok());
            resumed.chain(approved).chain(cleared).chain(released).collect()
        };
        for commit in commits {
            self.send(0, commit, None, Purpose::Admin);
        }
        self.after(500, Event::ResumeAll);
    }
}
