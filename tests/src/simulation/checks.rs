//! The outside judges. They know the store's history, the marks of the tasks and the books; they share no code with the
//! core that they judge.

mod blocks;
mod facts;
mod handlers;
mod history;
mod liveness;
mod marks;

use super::{Story, cluster::Cluster};
use facts::Facts;

/// Which promise is checked; the numbers are those of the design's list of invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// I8: no write of an earlier Term after a later one began.
    FencedLeadership,
    /// I10: a window never holds or executes on more nodes than its size.
    Window,
    /// I11: nobody begins a segment before all are through with the one before.
    Barrier,
    /// I12: nothing is claimed under a closed gate, and no window opens over too many failures.
    Gate,
    /// I13: each attempt starts a task at most once, and nobody has two live attempts.
    AtMostOnce,
    /// I14: what was cut is reported as interrupted, never guessed.
    Interrupted,
    /// I16: one end for each attempt, and it never changes.
    OneEnd,
    /// I17: after a cancel nothing is claimed, and the Run ends when what is claimed has ended.
    Cancel,
    /// Who begins a block does its `always`; only who failed in it rescues; and then nothing of its body is done.
    Blocks,
    /// What changed is followed by its handlers, whatever was cut, and nothing else is.
    Handlers,
    /// What a Run leaves out never begins.
    LeftOut,
    /// A task begins only after what it requires has ended well.
    Order,
    /// Conflicting locks exclude each other.
    Locks,
    /// A Run that failed left its locks poisoned, and only an admin lifts that.
    Poison,
    /// Two Runs with one concurrency key: as the policy of the later one says.
    Keys,
    /// A node works for one Run at a time.
    Turns,
    /// When nothing breaks any more, every Run ends and every node has a named end.
    Liveness,
    /// The product panicked.
    Panic,
}

/// An objection.
#[derive(Clone, Debug)]
pub struct Fault {
    /// By whom.
    pub checker: Checker,
    /// True time, milliseconds from the start.
    pub at_ms: u64,
    /// What is wrong.
    pub message: String,
}

pub(super) fn check(cluster: &Cluster) -> Story {
    let mut facts = Facts::new(cluster);
    history::check(&mut facts);
    marks::check(&mut facts);
    blocks::check(&mut facts);
    handlers::check(&mut facts);
    liveness::check(&mut facts);
    Story { seen: facts.seen(), faults: facts.faults }
}

pub(super) fn tell(cluster: &Cluster) -> Vec<String> {
    facts::tell(cluster)
}
