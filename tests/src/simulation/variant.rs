//! Lockstep with one thing broken on purpose: what the checkers are checked with. The product itself is whole; the
//! simulator leaves out on the way to the store, or on a node, what the variant is about.

use lockstep_apis::{
    commit::{Commit, Compare, Operation},
    keys::{self, AttemptKey},
};

use super::server::UNREACHABLE_MS;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Whole,
    /// A leader's writes do not compare its Term.
    NoTermCompare,
    /// A claim compares only the gate: neither that nobody claimed, nor the assignment, nor verdicts.
    ClaimWithoutCompare,
    /// A report does not compare that there is a claim.
    ReportWithoutClaim,
    /// The leader takes a place for free once its attempt is Lost.
    WindowFreedOnLost,
    /// A claim does not compare the gate.
    GateNotCompared,
    /// An executor writes what it intends only after it has begun.
    JournalAfterExec,
    /// Guards are stopped, under `onNodeLost: AfterFence` in every book: what the documents say must not be.
    GuardStopped,
    /// Guards are stopped, and every book says `Wait`: nothing depends on them.
    GuardStoppedUnderWait,
    /// A server acknowledges heartbeats though its session's record may be gone, and so for attempts that were given up
    /// meanwhile. Under `AfterFence` in every book.
    AcknowledgedInDoubt,
    /// A leader steps again though a commit of the last step may still happen, or has happened unseen.
    StepDespiteDoubt,
    /// A create does not compare who has its concurrency key.
    KeyNotCompared,
    /// The leader lets a Run begin though another one has its concurrency key.
    KeyNotWaitedFor,
    /// The leader's writes do not compare the locks that admins write.
    LockNotCompared,
    /// A Run that fails leaves no poison.
    NoPoison,
    /// A leader waits for nodes that have begun nothing, whatever the book says.
    NeverGivenUp,
    /// A node is not told which handlers it owes.
    OwedForgotten,
    /// A node is not told which blocks it left.
    LeftForgotten,
    /// A node is not told which tasks the Run leaves out.
    LeftOutDone,
    /// A node is not told which tasks wait for which.
    OrderForgotten,
    /// A node reboots without noting it.
    RebootNotNoted,
}

fn is_lock(key: &keys::Key) -> bool {
    matches!(keys::parse(key), Some(keys::Parsed::Object { kind, .. }) if kind == "locks")
}

impl Variant {
    /// All that are broken.
    pub const BROKEN: [Variant; 15] = [
        Variant::NoTermCompare,
        Variant::ClaimWithoutCompare,
        Variant::ReportWithoutClaim,
        Variant::WindowFreedOnLost,
        Variant::GateNotCompared,
        Variant::JournalAfterExec,
        Variant::StepDespiteDoubt,
        Variant::KeyNotCompared,
        Variant::KeyNotWaitedFor,
        Variant::LockNotCompared,
        Variant::NoPoison,
        Variant::LeftForgotten,
        Variant::LeftOutDone,
        Variant::OrderForgotten,
        Variant::RebootNotNoted,
    ];

    /// The fence that every book has in it, in milliseconds; 0: `Wait`. `None`: as the book says.
    pub(crate) fn fence_ms(self) -> Option<u64> {
        match self {
            Variant::GuardStopped | Variant::AcknowledgedInDoubt => Some(500),
            Variant::GuardStoppedUnderWait => Some(0),
            _ => None,
        }
    }

    /// How long a leader waits for a node that has begun nothing.
    pub(crate) fn unreachable_ms(self) -> u64 {
        if self == Variant::NeverGivenUp { u64::MAX / 2 } else { UNREACHABLE_MS }
    }

    pub(crate) fn stops_guards(self) -> bool {
        matches!(self, Variant::GuardStopped | Variant::GuardStoppedUnderWait)
    }

    pub(crate) fn of_leader(self, mut commit: Commit) -> Commit {
        if self == Variant::LockNotCompared {
            commit.compares.retain(|compare| match compare {
                Compare::Absent(key) | Compare::ModRevision(key, _) => !is_lock(key),
                _ => true,
            });
        }
        if self == Variant::NoPoison && commit.operations.len() > 1 {
            commit.operations.retain(|operation| !matches!(operation, Operation::Put { key, .. } if is_lock(key)));
        }
        if self == Variant::NoTermCompare {
            let leader = keys::leader();
            commit.compares.retain(|compare| !matches!(compare, Compare::CreateRevision(key, _) if *key == leader));
        }
        commit
    }

    pub(crate) fn of_create(self, mut commit: Commit) -> Commit {
        if self == Variant::KeyNotCompared {
            let is_key = |key: &keys::Key| matches!(keys::parse(key), Some(keys::Parsed::Concurrency { .. }));
            commit.compares.retain(|compare| match compare {
                Compare::Absent(key) | Compare::ModRevision(key, _) => !is_key(key),
                _ => true,
            });
        }
        commit
    }

    pub(crate) fn of_claim(self, mut commit: Commit) -> Commit {
        let is_gate = |compare: &Compare| matches!(compare, Compare::Value(..));
        match self {
            Variant::ClaimWithoutCompare => commit.compares.retain(is_gate),
            Variant::GateNotCompared => commit.compares.retain(|compare| !is_gate(compare)),
            _ => {}
        }
        commit
    }

    pub(crate) fn of_report(self, mut commit: Commit) -> Commit {
        if self == Variant::ReportWithoutClaim {
            let claims = AttemptKey::Claim.prefix();
            let is_claim = |key: &keys::Key| key.as_str().starts_with(claims.as_str());
            commit.compares.retain(|compare| !matches!(compare, Compare::Present(key) if is_claim(key)));
        }
        commit
    }
}
