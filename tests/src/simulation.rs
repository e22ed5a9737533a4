//! Lockstep's core in a world that breaks: one seed, one story, judged from outside.
//!
//! The product's own `step`, `protocol` and `recovery` run on a store in memory, between servers with old caches, agents
//! with journals, executors and a network, while everything crashes, pauses, loses, repeats and reorders. Tasks leave
//! marks in one log at the true time; checkers that share no code with the core read that log and the store's history.

mod books;
mod checks;
mod cluster;
mod machine;
mod random;
mod server;
mod store;
mod variant;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use checks::{Checker, Fault};
pub use variant::Variant;

use cluster::Cluster;

/// What came of one seed.
#[derive(Debug)]
pub struct Story {
    /// What the checkers object to.
    pub faults: Vec<Fault>,
    /// What happened in it.
    pub seen: Seen,
}

/// What happened, counted: a story in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Commits.
    pub commits: u64,
    /// Leaderships.
    pub terms: u64,
    /// Tasks that were started.
    pub starts: u64,
    /// Tasks that were killed or cut off.
    pub cut: u64,
    /// Attempts after the first.
    pub reruns: u64,
    /// Attempts that were claimed by another node than the one that they are for.
    pub delegated: u64,
    /// Nodes that went before they began, and were given up.
    pub given_up: u64,
    /// Assignments that were withdrawn.
    pub withdrawn: u64,
    /// Attempts that became Lost.
    pub lost: u64,
    /// Claimed places that a fence gave free.
    pub fenced: u64,
    /// Places that an admin gave free.
    pub released: u64,
    /// Reports that came after a verdict.
    pub late: u64,
    /// Tasks that a Run left out, on each node.
    pub left_out: u64,
    /// Tasks that were started in no order but that of what they require.
    pub free: u64,
    /// Gates that closed.
    pub closed: u64,
    /// Runs that were refused, or joined to others.
    pub refused: u64,
    /// Runs that gave way to others.
    pub replaced: u64,
    /// Locks that admins acquired.
    pub acquired: u64,
    /// Locks that failed Runs left poisoned.
    pub poisoned: u64,
    /// Runs that were approved.
    pub approved: u64,
    /// Machines that went down by a task.
    pub reboots: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Seen) {
        self.commits += other.commits;
        self.terms += other.terms;
        self.starts += other.starts;
        self.cut += other.cut;
        self.reruns += other.reruns;
        self.delegated += other.delegated;
        self.given_up += other.given_up;
        self.withdrawn += other.withdrawn;
        self.lost += other.lost;
        self.fenced += other.fenced;
        self.released += other.released;
        self.late += other.late;
        self.left_out += other.left_out;
        self.free += other.free;
        self.closed += other.closed;
        self.refused += other.refused;
        self.replaced += other.replaced;
        self.acquired += other.acquired;
        self.poisoned += other.poisoned;
        self.approved += other.approved;
        self.reboots += other.reboots;
    }
}

/// Plays one seed and judges it. A panic of the product is a fault, too.
pub fn play(seed: u64, variant: Variant) -> Story {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut cluster = Cluster::new(seed, variant);
        cluster.run();
        checks::check(&cluster)
    }));
    played.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let fault = Fault { checker: Checker::Panic, at_ms: 0, message: message.unwrap_or_default() };
        Story { faults: vec![fault], seen: Seen::default() }
    })
}

/// The story of a seed in lines: every commit and every mark, in order of time.
pub fn tell(seed: u64, variant: Variant) -> Vec<String> {
    let mut cluster = Cluster::new(seed, variant);
    cluster.run();
    checks::tell(&cluster)
}
