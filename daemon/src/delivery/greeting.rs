//! The beginning and the end of a session: the record in the store, the node's status, and what an earlier process of
//! the node left unfinished.

use std::sync::Arc;
use std::time::Duration;

use lockstep_apis::commit::{Commit, Compare, LeaseId};
use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{
    EventSeverity, Hello, Node, NodeStatus, Object, Session as Record, Welcome, server_message,
};
use lockstep_apis::{duration, timestamp};
use lockstep_core::{protocol, recovery};

use super::session::{Session, locked};
use super::{Delivery, facts};
use crate::clock::now_ms;
use crate::events::{Happening, SYSTEM};
use crate::status::{Answer, Problem};
use crate::store::StoreError;

/// `lastSeenAt` is not written for less than this.
const SEEN_AGAIN_MS: u64 = 60_000;

/// How often a write that was overtaken is tried again.
pub(super) const ATTEMPTS: u32 = 5;

/// Between attempts while the store does not answer.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Whether a session that could not be recorded may be later.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    Later,
    Never,
}

impl Delivery {
    /// Refuses agents of another cluster, and agents that have seen a newer store than ours.
    pub(super) fn check_hello(&self, hello: &Hello) -> Answer<()> {
        let ours = &self.parts.cluster;
        if !hello.cluster_id.is_empty() && hello.cluster_id != ours.cluster_id {
            return Err(Problem::Precondition("this server is of another cluster".into()));
        }
        if hello.incarnation > ours.incarnation {
            return Err(Problem::Precondition(format!(
                "this server's store is of incarnation {}, older than the {} that the node has seen",
                ours.incarnation, hello.incarnation
            )));
        }
        Ok(())
    }

    /// Welcomes an agent, records that it is here, and clears up after its former process.
    pub(super) async fn greet(&self, session: &Arc<Session>, hello: Hello) {
        let config = self.parts.cache.read().config();
        session.send(server_message::Message::Welcome(Welcome {
            server_uid: self.parts.server_uid.clone(),
            incarnation: self.parts.cluster.incarnation,
            cluster_id: self.parts.cluster.cluster_id.clone(),
            servers: self.addresses(),
            heartbeat: Some(duration::to_proto(config.heartbeat_ms())),
            facts_interval: Some(duration::to_proto(config.facts_interval_ms())),
        }));
        // A server that has just started has no lease for a moment.
        let mut lease = self.parts.lease.clone();
        let _ = tokio::time::timeout(PAUSE, lease.wait_for(Option::is_some)).await;
        // Stays until it works: without the record the node counts as away.
        while !self.begin(session, &hello).await {
            tokio::time::sleep(PAUSE).await;
            if !self.is_current(session) {
                return;
            }
        }
        self.report_forgotten(session).await;
    }

    pub(super) fn is_current(&self, session: &Session) -> bool {
        self.sessions().get(&session.node).is_some_and(|current| std::ptr::eq(&**current, session))
    }

    /// The session's record and the node's status, in one commit.
    async fn begin(&self, session: &Session, hello: &Hello) -> bool {
        let facts = hello.facts.as_ref().filter(|facts| facts::are_kept(&session.name, facts));
        let seen = |status: &mut NodeStatus| {
            if status.liveness != "Ready" {
                status.liveness = "Ready".into();
                status.liveness_since = Some(timestamp::from_ms(session.since_ms));
            }
            status.version.clone_from(&hello.version);
            status.boot_id.clone_from(&hello.boot_id);
            status.addresses.clone_from(&hello.addresses);
            if let Some(facts) = facts {
                status.facts = Some(facts.clone());
            }
        };
        for _ in 0..ATTEMPTS {
            let Some((mut node, revision)) = self.node(&session.node) else { return true };
            let before = node.status.clone().unwrap_or_default();
            let status = node.status.get_or_insert_default();
            seen(status);
            let last_seen = status.last_seen_at.as_ref().map_or(0, timestamp::to_ms);
            let changed = *status != before || session.since_ms.abs_diff(last_seen) > SEEN_AGAIN_MS;
            let (lease, commit) = match self.record_commit(session) {
                Ok(both) => both,
                Err(retry) => return retry == Retry::Never,
            };
            let commit = if changed { with_status(commit, node, revision, session.since_ms) } else { commit };
            match self.parts.committer.commit(commit).await {
                Ok(revision) => {
                    *locked(&session.recorded) = Some((lease, revision));
                    self.tell(session, "node/connected", EventSeverity::Info, "connected");
                    return true;
                }
                Err(StoreError::Conflict) => {
                    if self.parts.cache.catch_up(&*self.parts.store).await.is_err() {
                        return false;
                    }
                }
                Err(problem) => {
                    tracing::warn!(node = session.name, %problem, "a session was not recorded; trying again");
                    return false;
                }
            }
        }
        false
    }

    /// Writes the session's record alone, under the lease of now.
    pub(super) async fn record(&self, session: &Session) {
        for _ in 0..ATTEMPTS {
            let Ok((lease, commit)) = self.record_commit(session) else { return };
            match self.parts.committer.commit(commit).await {
                Ok(revision) => {
                    *locked(&session.recorded) = Some((lease, revision));
                    return;
                }
                Err(StoreError::Conflict) => {
                    if self.parts.cache.catch_up(&*self.parts.store).await.is_err() {
                        return;
                    }
                }
                Err(problem) => return tracing::warn!(node = session.name, %problem, "a session was not recorded"),
            }
        }
    }

    /// The commit of a session's record, and the lease that it is under. The error says whether to try again: there is no
    /// lease, or the node has opened another stream since; then this one is closed.
    fn record_commit(&self, session: &Session) -> Result<(LeaseId, Commit), Retry> {
        let lease = (*self.parts.lease.borrow()).ok_or(Retry::Later)?;
        let commit = protocol::attach(self.parts.cache.read().world(), &session.node, &self.record_of(session), lease);
        let Some(commit) = commit else {
            session.close("the agent attached to another server");
            return Err(Retry::Never);
        };
        Ok((lease, commit))
    }

    pub(super) fn record_of(&self, session: &Session) -> Record {
        Record {
            server_uid: self.parts.server_uid.clone(),
            since_ms: session.since_ms,
            boot_id: session.boot_id.clone(),
            boot_number: session.boot_number,
            instance: session.instance.clone(),
            attached_boot_ms: session.attached_boot_ms,
        }
    }

    pub(super) fn node(&self, uid: &str) -> Option<(Node, u64)> {
        let node = self.parts.cache.read().node(uid).cloned()?;
        let revision = node.metadata.as_ref()?.resource_version.parse().ok()?;
        Some((node, revision))
    }

    /// What the node claimed with an earlier process and has no folder of: it was cut off, for all we know.
    async fn report_forgotten(&self, session: &Session) {
        let forgotten: Vec<Attempt> = {
            let cache = self.parts.cache.read();
            let holding = locked(&session.holding);
            protocol::forgotten(cache.world(), &session.node, &session.instance, &holding).cloned().collect()
        };
        for attempt in forgotten {
            let work = protocol::work(self.parts.cache.read().world(), &attempt).map(|delivery| delivery.work);
            let Some(work) = work else { continue };
            tracing::warn!(node = session.name, run = attempt.run, "the node has forgotten what it claimed");
            let report = recovery::interrupted_all(&work, now_ms());
            self.store_report(session, &attempt, report).await;
        }
    }

    /// The stream is over: unless the node is attached again, here or elsewhere, its record goes.
    pub(super) async fn farewell(&self, session: &Session, reason: &str) {
        *locked(&session.recorded) = None;
        // A record that says something else is another session's.
        let commit = protocol::detach(&session.node, &self.record_of(session));
        match self.parts.committer.commit(commit).await {
            Ok(_) => self.tell(session, "node/disconnected", EventSeverity::Info, &format!("disconnected: {reason}")),
            Err(StoreError::Conflict) => {}
            Err(problem) => tracing::warn!(node = session.name, %problem, "a session's record stays for now"),
        }
    }

    fn tell(&self, session: &Session, r#type: &'static str, severity: EventSeverity, what: &str) {
        self.parts.outbox.tell(Happening {
            namespace: SYSTEM.into(),
            r#type,
            severity,
            regarding: format!("Node/{}", session.name),
            node: session.name.clone(),
            message: format!("node {} {what}", session.name),
            data: None,
        });
    }
}

/// Adds the write of a node, guarded by the revision that it was read at.
pub(super) fn with_status(commit: Commit, mut node: Node, revision: u64, seen_ms: u64) -> Commit {
    node.status.get_or_insert_default().last_seen_at = Some(timestamp::from_ms(seen_ms));
    let object = Object::from(node);
    commit.when(Compare::ModRevision(object.key(), revision)).put(object.key(), object.to_stored())
}
