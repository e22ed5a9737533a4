//! Lockstep with one thing broken on purpose: what the checkers are checked with. The product itself is whole; the
//! simulator leaves out on the way to the store, or on a node, what the variant is about.

use lockstep_apis::{
    commit::{Commit, Compare},
    keys::{self, AttemptKey},
};

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
    /// A leader steps again though a commit of the last step may still happen, or has happened unseen.
    StepDespiteDoubt,
}

impl Variant {
    /// All that are broken.
    pub const BROKEN: [Variant; 7] = [
        Variant::NoTermCompare,
        Variant::ClaimWithoutCompare,
        Variant::ReportWithoutClaim,
        Variant::WindowFreedOnLost,
        Variant::GateNotCompared,
        Variant::JournalAfterExec,
        Variant::StepDespiteDoubt,
    ];

    pub(crate) fn of_leader(self, mut commit: Commit) -> Commit {
        if self == Variant::NoTermCompare {
            let leader = keys::leader();
            commit.compares.retain(|compare| !matches!(compare, Compare::CreateRevision(key, _) if *key == leader));
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
