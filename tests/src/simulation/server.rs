//! A server: a watch cache that lags, streams of agents, and perhaps the belief to lead. It answers nodes and admins
//! with the product's own protocol, and decides with the product's own step.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::{
    commit::{Entry, LeaseId, Revision, Term},
    keys::{self, Attempt, AttemptKey, Parsed},
    v1alpha::{Session, Verdict, VerdictType},
};
use lockstep_core::{fence::Sight, world::World};
use prost::Message;

use super::{
    machine::drifted,
    store::{Change, Committed, Store},
    variant::Variant,
};

/// How long a leader waits for a node that has begun nothing.
pub(crate) const UNREACHABLE_MS: u64 = 1500;

/// An agent's stream, as its server sees it.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) instance: u64,
    pub(crate) holding: BTreeSet<Attempt>,
    /// Its record.
    pub(crate) session: Session,
    /// The lease under which that was written, and the revision.
    pub(crate) recorded: Option<(LeaseId, Revision)>,
    /// Being written.
    pub(crate) recording: bool,
    pub(crate) heard_ms: u64,
}

pub(crate) struct Server {
    pub(crate) up: bool,
    /// Counts its processes: answers for an earlier one are nobody's.
    pub(crate) epoch: u64,
    pub(crate) world: World,
    /// Commits of the history that are folded in.
    pub(crate) seen: usize,
    pub(crate) polling: bool,
    pub(crate) paused_until: u64,
    /// Wall clock less the true time.
    pub(crate) clock_ms: i64,
    /// How much too fast its steady clock is.
    pub(crate) drift_per_mille: i64,
    pub(crate) lease: Option<LeaseId>,
    /// Until when that certainly is in the store, by the steady clock.
    pub(crate) sure_until_ms: u64,
    pub(crate) sight: Sight,
    pub(crate) streams: BTreeMap<usize, Stream>,
    pub(crate) term: Option<Term>,
    pub(crate) electing: bool,
    /// Decisions that have no definite answer yet.
    pub(crate) in_flight: usize,
    /// The store's revision when a decision last happened or conflicted.
    pub(crate) behind: Revision,
}

impl Server {
    pub(crate) fn new(drift_per_mille: i64) -> Self {
        Server {
            drift_per_mille,
            lease: None,
            sure_until_ms: 0,
            sight: Sight::new(UNREACHABLE_MS),
            up: true,
            epoch: 0,
            world: World::new(),
            seen: 0,
            polling: false,
            paused_until: 0,
            clock_ms: 0,
            streams: BTreeMap::new(),
            term: None,
            electing: false,
            in_flight: 0,
            behind: 0,
        }
    }

    /// Whether its cache has not brought yet what it decided, or what a decision conflicted with.
    pub(crate) fn is_behind(&self, variant: Variant) -> bool {
        self.world.revision() < self.behind && variant != Variant::StepDespiteDoubt
    }

    /// A clock that does not jump.
    pub(crate) fn steady_ms(&self, now_ms: u64) -> u64 {
        drifted(now_ms, self.drift_per_mille)
    }

    /// Whether the node's stream has a record, under the present lease, with all before it known here.
    pub(crate) fn has_recorded(&self, node: usize) -> bool {
        let recorded = self.streams.get(&node).and_then(|stream| stream.recorded);
        recorded.is_some_and(|(lease, at)| self.lease == Some(lease) && at <= self.world.revision())
    }

    /// A new process: nothing is remembered; the store is listed.
    pub(crate) fn start(&mut self, store: &Store, variant: Variant) {
        *self = Server { epoch: self.epoch + 1, clock_ms: self.clock_ms, ..Server::new(self.drift_per_mille) };
        for entry in store.entries() {
            self.fold_entry(entry, variant);
        }
        self.world.advance(store.revision);
        self.seen = store.history.len();
    }

    /// The watch brings a commit.
    pub(crate) fn fold(&mut self, committed: &Committed, variant: Variant) {
        for change in &committed.changes {
            match change {
                Change::Put(entry) => self.fold_entry(entry, variant),
                Change::Delete(key) => self.world.delete(key),
            }
        }
        self.world.advance(committed.revision);
    }

    fn fold_entry(&mut self, entry: &Entry, variant: Variant) {
        match freed(entry, variant) {
            Some(entry) => self.world.put(&entry),
            None => self.world.put(entry),
        }
        .expect("the simulation stores nothing corrupt");
    }
}

/// Under `WindowFreedOnLost`: a place that is Lost looks released.
fn freed(entry: &Entry, variant: Variant) -> Option<Entry> {
    if variant != Variant::WindowFreedOnLost {
        return None;
    }
    let Some(Parsed::Attempt { kind: AttemptKey::Verdict, .. }) = keys::parse(&entry.key) else { return None };
    let verdict = Verdict::decode(entry.value.as_slice()).ok()?;
    (verdict.r#type() == VerdictType::Lost).then(|| {
        let released = Verdict { r#type: VerdictType::Released.into(), ..verdict };
        Entry { value: released.encode_to_vec(), ..entry.clone() }
    })
}
