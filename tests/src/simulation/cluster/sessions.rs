//! Servers' leases, the records of their streams under them, and the heartbeats that they acknowledge while those count.

use std::collections::BTreeSet;

use lockstep_apis::{commit::LeaseId, keys::Attempt, v1alpha::Session};
use lockstep_core::{fence, protocol};

use super::{Answer, Cluster, Down, Event, Purpose};
use crate::simulation::{books::node_uid, machine::boot_id, server::Stream, variant::Variant};

/// How long a server's lease lives after its last renewal.
const LEASE_MS: u64 = 1500;
const LEASE_KEEP_MS: u64 = 400;

/// A stream of which nothing is heard for so long is over.
const SILENCE_MS: u64 = 1500;

fn server_uid(server: usize) -> String {
    format!("s{server}")
}

impl Cluster {
    /// Renews the lease, or gets another; ends what is silent.
    pub(super) fn keep_lease(&mut self, server: usize, epoch: u64) {
        if !self.servers[server].up || self.servers[server].epoch != epoch {
            return;
        }
        let held = self.servers[server].lease.filter(|lease| self.leases.contains_key(lease));
        let lease = held.unwrap_or_else(|| LeaseId(self.id() as i64));
        if !self.mishap(150) {
            self.leases.insert(lease, self.now_ms + LEASE_MS);
            self.after(LEASE_MS, Event::LeaseEnd(lease));
            if !self.mishap(50) {
                let sure_ms = LEASE_MS - LEASE_MS * fence::DRIFT_PER_MILLE / 1000;
                let now_ms = self.now_ms;
                let of = &mut self.servers[server];
                of.lease = Some(lease);
                of.sure_until_ms = of.steady_ms(now_ms) + sure_ms;
            }
        }
        let nodes: Vec<usize> = self.servers[server].streams.keys().copied().collect();
        for node in nodes {
            self.look_at_stream(server, node);
        }
        self.clear_up(server);
        self.after(LEASE_KEEP_MS, Event::LeaseKeep(server, epoch));
    }

    pub(super) fn end_lease(&mut self, lease: LeaseId) {
        if self.leases.get(&lease).is_some_and(|end_ms| *end_ms <= self.now_ms) {
            self.leases.remove(&lease);
            if self.store.expire(lease, self.now_ms) {
                self.notify_all();
            }
        }
    }

    /// Ends a silent stream; writes a record that is not under the present lease.
    fn look_at_stream(&mut self, server: usize, node: usize) {
        let now_ms = self.now_ms;
        let of = &mut self.servers[server];
        let (world, lease) = (&of.world, of.lease);
        let Some(stream) = of.streams.get_mut(&node) else { return };
        if stream.heard_ms + SILENCE_MS < now_ms {
            let commit = protocol::detach(&node_uid(node), &stream.session);
            of.streams.remove(&node);
            return self.send(server, commit, None, Purpose::Admin);
        }
        let Some(lease) = lease.filter(|lease| stream.recorded.map(|(under, _)| under) != Some(*lease)) else { return };
        if stream.recording {
            return;
        }
        match protocol::attach(world, &node_uid(node), &stream.session, lease) {
            Some(commit) => {
                stream.recording = true;
                let id = stream.session.attached_boot_ms;
                self.send(server, commit, None, Purpose::Session(node, id, lease));
            }
            None => drop(of.streams.remove(&node)),
        }
    }

    /// Takes away records of streams that are over.
    fn clear_up(&mut self, server: usize) {
        let of = &self.servers[server];
        let served: BTreeSet<String> = of.streams.keys().map(|&node| node_uid(node)).collect();
        let left = protocol::left_over(&of.world, &server_uid(server), |node| served.contains(node));
        for commit in left {
            self.send(server, commit, None, Purpose::Admin);
        }
    }

    pub(super) fn recorded(&mut self, server: usize, node: usize, id: u64, lease: LeaseId, answer: Answer) {
        let Some(stream) = self.servers[server].streams.get_mut(&node) else { return };
        if stream.session.attached_boot_ms == id {
            stream.recording = false;
            if let Answer::Done(revision) = answer {
                stream.recorded = Some((lease, revision));
            }
        }
    }

    /// A Hello, perhaps of an earlier stream, or of a boot before this one.
    pub(super) fn greet(
        &mut self,
        server: usize,
        node: usize,
        instance: u64,
        (boot, id): (u64, u64),
        holding: Vec<Attempt>,
    ) {
        let heard_ms = self.now_ms;
        let session = Session {
            server_uid: server_uid(server),
            boot_id: boot_id(boot),
            boot_number: boot,
            instance: instance.to_string(),
            attached_boot_ms: id,
            ..Default::default()
        };
        let streams = &mut self.servers[server].streams;
        if streams.get(&node).is_some_and(|known| protocol::is_later(&known.session, &session)) {
            return;
        }
        let holding = holding.into_iter().collect();
        let known = streams.remove(&node).filter(|known| known.session == session);
        let stream = known.unwrap_or_else(|| Stream {
            instance,
            holding: Default::default(),
            session,
            recorded: None,
            recording: false,
            heard_ms,
        });
        streams.insert(node, Stream { holding, heard_ms, ..stream });
        self.look_at_stream(server, node);
    }

    /// Whether the node's stream certainly is in the store, and all before it known.
    pub(super) fn counts(&self, server: usize, node: usize) -> bool {
        let of = &self.servers[server];
        of.has_recorded(node) && of.steady_ms(self.now_ms) < of.sure_until_ms
    }

    pub(super) fn acknowledge(&mut self, server: usize, node: usize, id: u64, sent_ms: u64) {
        let now_ms = self.now_ms;
        let counts = self.counts(server, node) || self.variant == Variant::AcknowledgedInDoubt;
        let of = &mut self.servers[server];
        let Some(stream) = of.streams.get_mut(&node).filter(|stream| stream.session.attached_boot_ms == id) else {
            return;
        };
        stream.heard_ms = now_ms;
        let instance = stream.instance;
        if counts {
            let in_doubt = self.variant == Variant::AcknowledgedInDoubt;
            let fenced = of.world.fenced(&node_uid(node)).filter(|_| !in_doubt).cloned().collect();
            self.tell_agent(node, instance, Down::Acknowledged(id, sent_ms, fenced));
        }
    }
}
