//! Into the queue: what is committed when the shell has compiled a Run, or could not.

use lockstep_apis::{
    commit::{Commit, Compare, Term},
    keys,
    v1alpha::{Approval, Cursor, Gate, GateReasonType, RunPhase, RunStatus, Snapshot, StickyPick},
};
use prost::Message;
use thiserror::Error;

use crate::{
    outcome, protocol,
    world::{World, chunk_value},
};

/// Bytes of a chunk. Half of what a value may have, so that a commit of one chunk stays far below etcd's 1.5 MiB.
const CHUNK_BYTES: usize = 512 * 1024;

/// Most bytes of a snapshot: 32 chunks, each compared in the commit that completes the admission.
pub const MAX_SNAPSHOT_BYTES: usize = 32 * CHUNK_BYTES;

/// The snapshot does not fit; reject the Run with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the run's snapshot has {bytes} bytes, and at most {MAX_SNAPSHOT_BYTES} are possible; use fewer nodes or smaller templates"
)]
pub struct SnapshotTooLarge {
    /// Its size.
    pub bytes: usize,
}

/// The commits that admit a compiled Run, to be made in this order: chunks of the snapshot, then cursor and gate. Empty
/// if the world knows no such Run that waits for admission.
///
/// A snapshot of one chunk is one commit. What a leader that died in between left is another snapshot's, and ignored.
pub fn admission(world: &World, term: Term, run: &str, snapshot: &Snapshot) -> Result<Vec<Commit>, SnapshotTooLarge> {
    let Some(state) = world.run(run).filter(|state| state.is_pending()) else { return Ok(Vec::new()) };
    let Some(object) = state.object() else { return Ok(Vec::new()) };
    let bytes = snapshot.encode_to_vec();
    if bytes.len() > MAX_SNAPSHOT_BYTES {
        return Err(SnapshotTooLarge { bytes: bytes.len() });
    }
    let hash = content_hash(&bytes);
    let count = bytes.len().div_ceil(CHUNK_BYTES).max(1);
    let mut pieces = bytes.chunks(CHUNK_BYTES);
    let chunk =
        |at: usize, piece: &[u8]| (keys::snapshot_chunk(run, at as u32, &hash), chunk_value(count as u32, piece));
    let chunks: Vec<_> = (0..count).map(|at| chunk(at, pieces.next().unwrap_or_default())).collect();

    let Some(picks) = picks(world, run, snapshot) else { return Ok(Vec::new()) };
    let (admission, _) = world.highest();
    let cursor = Cursor {
        admission: admission + 1,
        granted: snapshot.locks.is_empty() && snapshot.concurrency_key.is_empty(),
        priority: snapshot.priority,
        snapshot: hash.clone(),
        ..Default::default()
    };
    let mut last = Commit::new()
        .when(term.compare())
        .when(Compare::ModRevision(outcome::object_key(&object.value), object.revision))
        .create(keys::cursor(run), cursor.encode_to_vec());
    (last.compares, last.operations) =
        ([last.compares, picks.compares].concat(), [last.operations, picks.operations].concat());
    let awaited = snapshot
        .approval
        .map(awaited)
        .map(|message| protocol::reason(GateReasonType::AwaitingApproval, "book", snapshot.created_ms, message));
    last = match (state.gate(), awaited) {
        // Paused before it was admitted.
        (Some(gate), None) => last.when(Compare::ModRevision(keys::gate(run), gate.revision)),
        (Some(gate), Some(awaited)) => {
            let reasons = gate.value.reasons.iter().cloned().chain([awaited]).collect();
            let guarded = last.when(Compare::ModRevision(keys::gate(run), gate.revision));
            guarded.put(keys::gate(run), Gate { reasons }.encode_to_vec())
        }
        (None, awaited) => {
            let reasons = awaited.into_iter().collect();
            last.create(keys::gate(run), Gate { reasons }.encode_to_vec())
        }
    };
    if count == 1 {
        return Ok(vec![chunks.into_iter().fold(last, |commit, (key, value)| commit.put(key, value))]);
    }
    let mut commits = Vec::with_capacity(count + 1);
    for (key, value) in chunks {
        last = last.when(Compare::Present(key.clone()));
        commits.push(Commit::new().when(term.compare()).when(Compare::Absent(keys::cursor(run))).put(key, value));
    }
    commits.push(last);
    Ok(commits)
}

/// What a Run that is not approved yet says.
fn awaited(approval: Approval) -> &'static str {
    match approval.two_persons {
        true => "it waits for `lockstep approve` by another person than the one that created it",
        false => "it waits for `lockstep approve`",
    }
}

/// Remembers a Run's sticky choices. `None`: what was remembered when they were made has changed since; the Run is to be
/// compiled anew.
fn picks(world: &World, run: &str, snapshot: &Snapshot) -> Option<Commit> {
    let mut commit = Commit::new();
    for pick in &snapshot.picks {
        let key = keys::pick(&snapshot.namespace, &pick.name);
        let known = world.pick(&snapshot.namespace, &pick.name);
        if known.map_or(&[][..], |known| &known.value.nodes) != pick.before {
            return None;
        }
        commit = match known {
            Some(known) => commit.when(Compare::ModRevision(key.clone(), known.revision)),
            None => commit.when(Compare::Absent(key.clone())),
        };
        if pick.nodes != pick.before {
            let (nodes, run_uid) = (pick.nodes.clone(), run.to_owned());
            let value = StickyPick { nodes, run_uid, at_ms: snapshot.created_ms };
            commit = commit.put(key, value.encode_to_vec());
        }
    }
    Some(commit)
}

/// The commit that ends a Run which cannot be compiled. `None` if the world knows no such Run that waits for admission.
/// `reason` is one CamelCase word, `message` a sentence.
pub fn rejection(world: &World, term: Term, run: &str, reason: &str, message: &str, now_ms: u64) -> Option<Commit> {
    let state = world.run(run).filter(|state| state.is_pending())?;
    let object = state.object()?;
    let now = Some(lockstep_apis::timestamp::from_ms(now_ms));
    let status = RunStatus {
        phase: RunPhase::Failed.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        finished_at: now,
        observed_at: now,
        ..object.value.status.clone().unwrap_or_default()
    };
    let commit = Commit::new().when(term.compare()).when(Compare::Absent(keys::cursor(run)));
    Some(outcome::write_status(commit, object, status))
}

/// FNV-1a, 128 bits: tells snapshots apart that leaders of one cluster made; nothing hostile writes them.
pub(super) fn content_hash(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}
