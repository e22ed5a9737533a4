//! The simulated cluster: true time, a queue of what happens next, servers, machines, the network between them.
//! Everything follows from the seed.

mod deciding;
mod faults;
mod nodes;
mod serving;
mod sessions;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use lockstep_apis::{
    commit::{Commit, LeaseId, Revision},
    keys::{self, Attempt},
    v1alpha::{Outcome, Report, Work},
};
use lockstep_core::{
    fence,
    protocol::{self, Entering},
};
use prost::Message;

use super::{books::Book, machine::Machine, random::Random, server::Server, store::Store, variant::Variant};

/// True time at the start, in milliseconds since 1970: far from 0, so that clocks can go back.
pub(crate) const START_MS: u64 = 1_000_000_000;

/// How long a leader's lease lasts.
const LEASE_MS: u64 = 1500;

/// What is in the queue.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A server's watch brings something, or it has something to do.
    Poll(usize, u64),
    KeepAlive(usize, u64),
    LeaseCheck,
    /// A commit reaches the store.
    Request(Box<Request>),
    /// Its answer reaches the server.
    Answer(Box<Request>, Answer),
    /// A message from a node's agent process.
    ToServer(usize, usize, u64, Up),
    /// A message to a node's agent process.
    ToAgent(usize, u64, Down),
    AgentTick(usize, u64),
    Beat(usize, Attempt, u64, Beat),
    ChildEnds(usize, Attempt, u32, u64),
    /// The guard of an executor looks.
    Guard(usize, Attempt, u64),
    /// A server renews its lease, and looks for silent streams.
    LeaseKeep(usize, u64),
    /// A server's lease ends, unless it was renewed.
    LeaseEnd(LeaseId),
    Create(usize),
    ServerUp(usize),
    MachineUp(usize),
    /// A machine goes down by a task, if it is still in that boot.
    GoDown(usize, u64),
    AgentUp(usize),
    Fault,
    Admin,
    Heal,
    ResumeAll,
}

/// What an executor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Intend,
    /// Of the variant that writes too late.
    IntendLate(u32),
    Start(u32),
    /// Of a task that reboots, once that is noted.
    GoDown(u32),
    Done(u32, Outcome),
    Kill,
}

/// From an agent.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    /// The boot and the stream in it, and what is held.
    Hello(u64, u64, Vec<Attempt>),
    /// The stream, and when it was sent.
    Heartbeat(u64, u64),
    Claim(Attempt),
    Report(Attempt, Report),
}

/// To an agent.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Offer(Attempt),
    /// With the stream that it was asked over.
    Work(Attempt, Box<Work>, u64),
    /// The stream, when the heartbeat was sent, and what it does not keep alive.
    Acknowledged(u64, u64, Vec<Attempt>),
    Forgotten(Attempt, Box<Work>),
    Refused(Attempt),
    Stored(Attempt),
    Cancel(Attempt),
}

/// A commit on its way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) server: usize,
    pub(crate) epoch: u64,
    pub(crate) commit: Commit,
    /// The Term its author believes to have.
    pub(crate) term: Option<Revision>,
    pub(crate) purpose: Purpose,
    answered: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Purpose {
    Elect,
    Decide,
    Claim(usize, u64, Attempt),
    Report(usize, u64, Attempt),
    /// The record of a node's stream, under a lease.
    Session(usize, u64, LeaseId),
    Admin,
    Create(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Revision),
    /// With the store's revision at that moment.
    Conflict(Revision),
    Unknown,
}

/// Something that a task's process did, at the true time.
#[derive(Clone, Debug)]
pub(crate) struct Execution {
    pub(crate) at_ms: u64,
    pub(crate) attempt: Attempt,
    pub(crate) task: u32,
    pub(crate) what: Deed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Start,
    /// By itself.
    End(Outcome),
    Killed,
}

pub(crate) struct Cluster {
    pub(crate) random: Random,
    pub(crate) variant: Variant,
    pub(crate) now_ms: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    pub(crate) store: Store,
    /// (server, create revision of the leader key, when it expires)
    lease: Option<(usize, Revision, u64)>,
    /// When the servers' leases end.
    leases: BTreeMap<LeaseId, u64>,
    pub(crate) servers: Vec<Server>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) books: Vec<Book>,
    pub(crate) executions: Vec<Execution>,
    /// Runs that were refused, or joined to others.
    pub(crate) refused: BTreeSet<usize>,
    /// Nodes are away, and tasks go on, for longer than a fence takes.
    pub(crate) is_long: bool,
    /// While true, things break.
    pub(crate) faults: bool,
    pub(crate) healed_ms: u64,
    next_id: u64,
    pub(crate) handled: u64,
}

fn object_key(book: &Book) -> keys::Key {
    keys::object("runs", &book.snapshot.namespace, &book.snapshot.run_name)
}

impl Cluster {
    pub(crate) fn new(seed: u64, variant: Variant) -> Self {
        let mut random = Random::new(seed);
        let servers = random.between(1, 3) as usize;
        let nodes = random.between(1, 6) as usize;
        let runs = random.between(1, 8) as usize;
        // Blocks have dice of their own: most stories are without them.
        let mut dice = Random::new(!seed);
        let mut dice = dice.chance(300).then_some(dice);
        let books = (0..runs).map(|at| Book::random(&mut random, dice.as_mut(), at, nodes, START_MS));
        let mut books: Vec<Book> = books.collect();
        let mut tags = Random::new(seed ^ 0x7a65_7467_0000_0000);
        if tags.chance(200) {
            books.iter_mut().for_each(|book| book.leave_out(&mut tags));
        }
        let mut order = Random::new(seed ^ 0x6f72_6465_7200_0000);
        if order.chance(200) {
            books.iter_mut().for_each(|book| book.set_free(&mut order));
        }
        // So have reboots.
        let mut dice = Random::new(seed.rotate_left(32) ^ !seed);
        if dice.chance(300) {
            books.iter_mut().for_each(|book| book.add_reboots(&mut dice));
        }
        let fence_ms = random.chance(200).then(|| random.between(500, 2000));
        let fence_ms = variant.fence_ms().or(fence_ms);
        if let Some(fence_ms) = fence_ms {
            books.iter_mut().for_each(|book| book.set_fence(fence_ms));
        }
        let drift = fence::DRIFT_PER_MILLE;
        let mut drift = || random.between(0, 2 * drift) as i64 - drift as i64;
        let servers: Vec<Server> = (0..servers).map(|_| Server::new(drift())).collect();
        let machines: Vec<Machine> = (0..nodes).map(|_| Machine::new(drift())).collect();
        let mut cluster = Cluster {
            random,
            variant,
            now_ms: START_MS,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            store: Store::default(),
            lease: None,
            leases: BTreeMap::new(),
            servers,
            machines,
            books,
            executions: Vec::new(),
            refused: BTreeSet::new(),
            is_long: fence_ms.is_some(),
            faults: true,
            healed_ms: 0,
            next_id: 1,
            handled: 0,
        };
        cluster.begin();
        cluster
    }

    fn begin(&mut self) {
        for server in 0..self.servers.len() {
            self.poll_after(server, 1);
            self.after(1, Event::LeaseKeep(server, 0));
        }
        for node in 0..self.machines.len() {
            self.after(1 + node as u64, Event::AgentUp(node));
        }
        for book in 0..self.books.len() {
            let at = self.books[book].created_ms;
            self.at(at, Event::Create(book));
        }
        self.after(100, Event::Fault);
        self.after(700, Event::Admin);
        let (least, most) = if self.is_long { (15_000, 35_000) } else { (3_000, 16_000) };
        let heal = self.random.between(least, most);
        self.after(heal, Event::Heal);
    }

    /// Goes on until every Run has ended and every node that is there has reported, or the time is up.
    pub(crate) fn run(&mut self) {
        let longest = self.books.iter().map(|book| book.snapshot.timeout_ms).max().unwrap_or_default();
        let limit_ms = START_MS + longest + 90_000;
        while let Some(Reverse((at_ms, sequence))) = self.queue.pop() {
            let Some(event) = self.events.remove(&sequence) else { continue };
            if at_ms > limit_ms || (self.handled.is_multiple_of(64) && self.is_over()) {
                return;
            }
            self.now_ms = at_ms;
            self.handled += 1;
            self.handle(event);
        }
    }

    /// Nothing more is to be expected.
    fn is_over(&self) -> bool {
        !self.faults
            && self.now_ms > self.healed_ms + 1000
            && self.store.is_quiet_or_done(self.machines.iter().any(|machine| machine.gone), self.now_ms)
            && self.books.iter().enumerate().all(|(at, book)| self.has_ended(book) || self.is_refused(at))
            && self.machines.iter().all(|machine| machine.gone || machine.disk.is_empty())
    }

    pub(crate) fn has_ended(&self, book: &Book) -> bool {
        use lockstep_apis::v1alpha::{Run, RunPhase};
        let run = self.store.get(&object_key(book)).and_then(|entry| Run::decode(entry.value.as_slice()).ok());
        let phase = run.and_then(|run| run.status).map(|status| status.phase());
        matches!(phase, Some(RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled))
    }

    fn handle(&mut self, event: Event) {
        if let Some(until) = self.deferred(&event) {
            return self.at(until, event);
        }
        match event {
            Event::Poll(server, epoch) => self.poll(server, epoch),
            Event::KeepAlive(server, epoch) => self.keep_alive(server, epoch),
            Event::LeaseCheck => self.check_lease(),
            Event::Request(request) => self.carry_out(*request),
            Event::Answer(request, answer) => self.answered(*request, answer),
            Event::ToServer(server, node, instance, message) => self.serve(server, node, instance, message),
            Event::ToAgent(node, instance, message) => self.hear(node, instance, message),
            Event::AgentTick(node, instance) => self.agent_tick(node, instance),
            Event::Beat(node, attempt, executor, beat) => self.beat(node, &attempt, executor, beat),
            Event::ChildEnds(node, attempt, task, child) => self.child_ends(node, &attempt, task, child),
            Event::Guard(node, attempt, executor) => self.guard(node, &attempt, executor),
            Event::LeaseKeep(server, epoch) => self.keep_lease(server, epoch),
            Event::LeaseEnd(lease) => self.end_lease(lease),
            Event::Create(book) => self.create(book),
            Event::ServerUp(server) => self.server_up(server),
            Event::MachineUp(node) => self.machine_up(node),
            Event::GoDown(node, boot) => self.go_down(node, boot),
            Event::AgentUp(node) => self.agent_up(node),
            Event::Fault => self.fault(),
            Event::Admin => self.admin(),
            Event::Heal => self.heal(),
            Event::ResumeAll => self.resume_all(),
        }
    }

    /// Until when a stopped process does nothing.
    fn deferred(&self, event: &Event) -> Option<u64> {
        let until = match event {
            Event::Poll(server, _)
            | Event::KeepAlive(server, _)
            | Event::LeaseKeep(server, _)
            | Event::ToServer(server, ..) => self.servers[*server].paused_until,
            Event::Answer(request, _) => self.servers[request.server].paused_until,
            Event::Beat(node, attempt, id, _) => {
                let executor = self.machines[*node].executors.get(attempt).filter(|executor| executor.id == *id);
                executor.map_or(0, |executor| executor.paused_until)
            }
            _ => 0,
        };
        (until > self.now_ms).then_some(until)
    }

    pub(crate) fn at(&mut self, at_ms: u64, event: Event) {
        self.sequence += 1;
        self.events.insert(self.sequence, event);
        self.queue.push(Reverse((at_ms, self.sequence)));
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now_ms + ms, event);
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A chance that counts only while things break.
    pub(crate) fn mishap(&mut self, per_mille: u64) -> bool {
        self.faults && self.random.chance(per_mille)
    }

    /// How long a message takes.
    pub(crate) fn latency(&mut self) -> u64 {
        if self.mishap(15) { self.random.between(200, 4000) } else { self.random.between(1, 12) }
    }

    /// Sends a commit to the store. Its answer may be lost, or come long before it happens.
    pub(crate) fn send(&mut self, server: usize, commit: Commit, term: Option<Revision>, purpose: Purpose) {
        let request = Request { server, epoch: self.servers[server].epoch, commit, term, purpose, answered: true };
        let latency = self.latency();
        if self.mishap(40) {
            // The client gives up waiting, whatever becomes of the request.
            self.after(500, Event::Answer(Box::new(request.clone()), Answer::Unknown));
            if self.random.chance(600) {
                let late = latency + self.random.between(0, 3000);
                self.after(late, Event::Request(Box::new(Request { answered: false, ..request })));
            }
            return;
        }
        self.after(latency, Event::Request(Box::new(request)));
    }

    fn carry_out(&mut self, request: Request) {
        let done = self.store.commit(&request.commit, request.term, self.now_ms);
        if let Some(revision) = done {
            if request.purpose == Purpose::Elect {
                self.lease = Some((request.server, revision, self.now_ms + LEASE_MS));
                self.after(LEASE_MS, Event::LeaseCheck);
            }
            self.notify_all();
        }
        if request.answered {
            let latency = self.latency();
            let answer = done.map_or(Answer::Conflict(self.store.revision), Answer::Done);
            self.after(latency, Event::Answer(Box::new(request), answer));
        }
    }

    /// Every server's watch has something to bring, sooner or later.
    fn notify_all(&mut self) {
        for server in 0..self.servers.len() {
            let lag = if self.mishap(40) { self.random.between(100, 2500) } else { self.random.between(1, 12) };
            self.poll_after(server, lag);
        }
    }

    pub(crate) fn poll_after(&mut self, server: usize, ms: u64) {
        let of = &mut self.servers[server];
        if of.up && !of.polling {
            of.polling = true;
            let epoch = of.epoch;
            self.after(ms, Event::Poll(server, epoch));
        }
    }

    /// Nobody made it, and nobody will: another Run had its key.
    pub(crate) fn is_refused(&self, book: usize) -> bool {
        self.refused.contains(&book) && self.store.get(&object_key(&self.books[book])).is_none()
    }

    /// A user makes a Run through any server, and asks again when no answer comes.
    fn create(&mut self, book: usize) {
        if self.store.get(&object_key(&self.books[book])).is_some() || self.refused.contains(&book) {
            return;
        }
        self.after(3000, Event::Create(book));
        let server = self.random.below(self.servers.len());
        if !self.servers[server].up {
            return;
        }
        let run = &self.books[book].run;
        match protocol::enter(&self.servers[server].world, run, 0, "user/admin", self.now_ms) {
            Ok(Entering::Enter(commit)) => {
                let commit = commit.create(object_key(&self.books[book]), run.encode_to_vec());
                let commit = self.variant.of_create(commit);
                self.send(server, commit, None, Purpose::Create(book));
            }
            Ok(Entering::Join(_)) | Err(_) => {
                self.refused.insert(book);
            }
        }
    }

    fn check_lease(&mut self) {
        let Some((_, revision, expires)) = self.lease else { return };
        if expires > self.now_ms {
            return self.at(expires, Event::LeaseCheck);
        }
        self.lease = None;
        if self.store.get(&keys::leader()).is_some_and(|entry| entry.create_revision == revision) {
            self.store.expire_leader(self.now_ms);
            self.notify_all();
        }
    }

    fn keep_alive(&mut self, server: usize, epoch: u64) {
        let of = &self.servers[server];
        let Some(term) = of.term.filter(|_| of.up && of.epoch == epoch) else { return };
        let lost = self.mishap(100);
        if let Some((holder, revision, expires)) = &mut self.lease
            && (*holder, *revision) == (server, term.revision)
            && !lost
        {
            *expires = self.now_ms + LEASE_MS;
        }
        self.after(500, Event::KeepAlive(server, epoch));
    }
}
