//! What keeps work alive under `onNodeLost: AfterFence`: heartbeats that are acknowledged. Knows when a session certainly
//! counts; what follows from silence is the core's to say.

use lockstep_apis::commit::LeaseId;
use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{AttemptRef, HeartbeatAnswer, server_message};

use super::Delivery;
use super::session::{Session, locked};

/// The lease of a session whose record is in the store, and in the cache.
pub(super) struct Recorded(Option<LeaseId>);

impl Delivery {
    /// Acknowledges a heartbeat, if the session counts: then no verdict that the cache does not know can have come before.
    pub(super) fn acknowledge(&self, session: &Session, number: u64) {
        if number == 0 {
            return;
        }
        let recorded = self.recorded(session);
        let fenced: Vec<AttemptRef> =
            self.parts.cache.read().world().fenced(&session.node).map(AttemptRef::from).collect();
        if self.still_counts(&recorded) {
            session.send(server_message::Message::Heartbeat(HeartbeatAnswer { number, fenced }));
        }
    }

    /// To be asked before the cache is read for something that must be true while the session counts. A leader fences
    /// only nodes without a record: what was fenced before this one is in the cache then.
    pub(super) fn recorded(&self, session: &Session) -> Recorded {
        let recorded = *locked(&session.recorded);
        let known = self.parts.cache.read().world().revision();
        Recorded(recorded.filter(|(_, revision)| *revision <= known).map(|(lease, _)| lease))
    }

    /// To be asked after: whether the record certainly has been in the store all the time.
    pub(super) fn still_counts(&self, recorded: &Recorded) -> bool {
        recorded.0.is_some_and(|lease| self.parts.sure.holds(lease))
    }

    /// Whether an attempt may begin whose claim was granted long ago: with a fence only while the session counts, for
    /// the node may have been given up since.
    pub(super) fn may_begin(&self, recorded: &Recorded, attempt: &Attempt) -> bool {
        let may_be_fenced = {
            let cache = self.parts.cache.read();
            let plan = cache.world().run(&attempt.run).and_then(|run| run.plan());
            plan.is_none_or(|plan| plan.snapshot.fence_ms > 0)
        };
        !may_be_fenced || self.still_counts(recorded)
    }
}
