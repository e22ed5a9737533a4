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
    /// Commits that happened.
    pub commits: usize,
    /// Tasks that were started.
    pub starts: usize,
    /// Events that were handled.
    pub events: u64,
    /// True milliseconds that passed.
    pub took_ms: u64,
}

/// Plays one seed and judges it. A panic of the product is a fault, too.
pub fn play(seed: u64, variant: Variant) -> Story {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut cluster = Cluster::new(seed, variant);
        cluster.run();
        Story {
            faults: checks::check(&cluster),
            commits: cluster.store.history.len(),
            starts: cluster.executions.iter().filter(|execution| execution.what == cluster::Deed::Start).count(),
            events: cluster.handled,
            took_ms: cluster.now_ms - cluster::START_MS,
        }
    }));
    played.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let fault = Fault { checker: Checker::Panic, at_ms: 0, message: message.unwrap_or_default() };
        Story { faults: vec![fault], commits: 0, starts: 0, events: 0, took_ms: 0 }
    })
}

/// The story of a seed in lines: every commit and every mark, in order of time.
pub fn tell(seed: u64, variant: Variant) -> Vec<String> {
    let mut cluster = Cluster::new(seed, variant);
    cluster.run();
    checks::tell(&cluster)
}
