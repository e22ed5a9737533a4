//! All that the store says about one Run, with what `step` asks of it kept up to date. Knows records; decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_apis::{
    commit::{Entry, Revision},
    keys::{Attempt, AttemptKey, Key},
    v1alpha::{
        Assignment, Claim, Cursor, Gate, GateReasonType, Outcome, Report, Run, RunPhase, Snapshot, TaskCounts,
        TaskReport, Verdict,
    },
};
use prost::Message;

use super::{
    plan::Plan,
    track::{AttemptState, Ending, NodeEnd, Stage, Stored, Track, ending},
};

/// Why a node goes no further in a Run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The segment in which it ended.
    pub segment: u32,
    /// How.
    pub end: NodeEnd,
}

/// One Run.
#[derive(Clone, Debug)]
pub struct RunState {
    uid: String,
    pub(super) object: Option<Stored<Arc<Run>>>,
    pub(super) gate: Option<Stored<Gate>>,
    pub(super) cursor: Option<Stored<Cursor>>,
    /// By hash, then index. A chunk begins with the count of all chunks.
    chunks: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    plan: Option<Arc<Plan>>,
    /// Attempts' records that came before the plan was complete.
    unread: Vec<(AttemptKey, Attempt, Entry)>,
    revealed: Vec<Attempt>,
    /// By segment, then node; a segment's row is made when its first record comes.
    tracks: Vec<Vec<Track>>,
    /// By node.
    stops: Vec<Option<Stop>>,
    /// By node: blocks that it left because something failed in them, and that go on.
    left: Vec<BTreeSet<u32>>,
    /// (segment, node) whose last attempt is assigned or claimed, and has no end.
    open: BTreeSet<(u32, u32)>,
    /// (segment, node, attempt) that hold a place.
    places: BTreeSet<(u32, u32, u32)>,
    /// Failures by group.
    failures: Vec<u32>,
    tasks: TaskCounts,
    /// Attempts in `tracks`.
    attempts: usize,
}

/// Bytes of a chunk's head: how many chunks there are, big endian.
const CHUNK_HEAD: usize = 4;

/// The stored value of one chunk of a snapshot.
pub(crate) fn chunk_value(count: u32, bytes: &[u8]) -> Vec<u8> {
    [&count.to_be_bytes()[..], bytes].concat()
}

impl RunState {
    pub(super) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            object: None,
            gate: None,
            cursor: None,
            chunks: BTreeMap::new(),
            plan: None,
            unread: Vec::new(),
            revealed: Vec::new(),
            tracks: Vec::new(),
            stops: Vec::new(),
            left: Vec::new(),
            open: BTreeSet::new(),
            places: BTreeSet::new(),
            failures: Vec::new(),
            tasks: TaskCounts::default(),
            attempts: 0,
        }
    }

    /// The Run's uid.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The name; empty while the object is not known.
    pub fn name(&self) -> &str {
        let metadata = self.object.as_ref().and_then(|object| object.value.metadata.as_ref());
        metadata.map_or("", |metadata| &metadata.name)
    }

    /// The object, with its mod revision.
    pub fn object(&self) -> Option<&Stored<Arc<Run>>> {
        self.object.as_ref()
    }

    /// The phase in the object's status.
    pub fn stored_phase(&self) -> RunPhase {
        let status = self.object.as_ref().and_then(|object| object.value.status.as_ref());
        status.map_or(RunPhase::Pending, |status| status.phase())
    }

    /// Whether the object says that it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.stored_phase(), RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled)
    }

    /// The gate, with its mod revision.
    pub fn gate(&self) -> Option<&Stored<Gate>> {
        self.gate.as_ref()
    }

    /// The cursor.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref().map(|cursor| &cursor.value)
    }

    /// The cursor's mod revision.
    pub fn cursor_revision(&self) -> Option<Revision> {
        self.cursor.as_ref().map(|cursor| cursor.revision)
    }

    /// The snapshot, if all of it is known.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// Whether claims may commit.
    pub fn gate_is_open(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.value.reasons.is_empty())
    }

    /// Whether the gate has a reason of this type.
    pub fn gate_has(&self, reason: GateReasonType) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.value.reasons.iter().any(|given| given.r#type() == reason))
    }

    /// Whether the gate is closed for good.
    pub fn is_closed(&self) -> bool {
        self.gate_has(GateReasonType::Failed) || self.is_cancelled()
    }

    /// Whether what runs is to be stopped.
    pub fn is_cancelled(&self) -> bool {
        self.gate_has(GateReasonType::Cancelled) || self.gate_has(GateReasonType::TimedOut)
    }

    /// Whether it is paused and may go on.
    pub fn is_paused(&self) -> bool {
        self.gate_has(GateReasonType::Paused) && !self.is_closed()
    }

    /// Whether it wants to be admitted: no cursor, and its object has no end.
    pub fn is_pending(&self) -> bool {
        self.cursor.is_none() && self.object.is_some() && !self.has_ended()
    }

    /// Whether it may still do something or hold something: it has a cursor, or waits for admission.
    pub fn is_live(&self) -> bool {
        self.cursor.is_some() || self.is_pending()
    }

    /// What is known of a node in a segment.
    pub fn track(&self, segment: u32, node: u32) -> Option<&Track> {
        self.tracks.get(segment as usize)?.get(node as usize)
    }

    /// Where a node is in a segment.
    pub fn stage(&self, segment: u32, node: u32) -> Stage {
        self.track(segment, node).map_or(Stage::Unassigned, Track::stage)
    }

    /// Tasks, by index, of which a node has reported an end.
    pub fn ended_tasks(&self, node: u32) -> BTreeSet<u32> {
        let segments = self.plan.iter().flat_map(|plan| 0..plan.snapshot.segments.len() as u32);
        let attempts = segments.filter_map(|segment| self.track(segment, node)).flat_map(|track| &track.attempts);
        let reports = attempts.filter_map(|attempt| attempt.report.as_ref());
        reports.flat_map(|report| &report.value.tasks).map(|report| report.task).collect()
    }

    /// What is known of an attempt.
    pub fn attempt(&self, attempt: &Attempt) -> Option<&AttemptState> {
        let plan = self.plan.as_ref()?;
        let node = plan.node(&attempt.for_node)?;
        // Whoever asks for another's work is told that there is none.
        if plan.doer_uid(attempt.segment, node) != attempt.node {
            return None;
        }
        self.track(attempt.segment, node)?.attempt(attempt.attempt)
    }

    /// Whether anything was begun for a node: somebody claimed a segment of it.
    pub fn has_begun(&self, node: u32) -> bool {
        let tracks = self.tracks.iter().filter_map(|row| row.get(node as usize));
        tracks.flat_map(|track| &track.attempts).any(|attempt| attempt.claim.is_some())
    }

    /// Why a node goes no further. `None`: it does.
    pub fn stop(&self, node: u32) -> Option<Stop> {
        self.stops.get(node as usize).copied().flatten()
    }

    /// Blocks that a node left because something failed in them: it does none of their tasks.
    pub fn left_blocks(&self, node: u32) -> Vec<u32> {
        self.left.get(node as usize).into_iter().flatten().copied().collect()
    }

    /// Whether a node of the window does a segment: it takes part, and has not left the blocks that all of it is in,
    /// unless in this one.
    pub fn does(&self, plan: &Plan, segment: u32, node: u32) -> bool {
        let left = self.left.get(node as usize).filter(|left| !left.is_empty());
        let passes = left.is_some_and(|left| plan.is_within(segment, left));
        let was_there = || self.track(segment, node).is_some_and(|track| !track.attempts.is_empty());
        plan.does(segment, node) && (!passes || was_there())
    }

    /// How many nodes failed in a group.
    pub fn failures(&self, group: u32) -> u32 {
        self.failures.get(group as usize).copied().unwrap_or_default()
    }

    /// (segment, node) whose last attempt is assigned or claimed, and has no end.
    pub fn open(&self) -> &BTreeSet<(u32, u32)> {
        &self.open
    }

    /// (segment, node, attempt) that hold a place.
    pub fn places(&self) -> &BTreeSet<(u32, u32, u32)> {
        &self.places
    }

    /// Tasks that ended, by outcome.
    pub fn task_counts(&self) -> &TaskCounts {
        &self.tasks
    }

    /// The places in windows: delegates are in none.
    pub fn window_places(&self) -> impl Iterator<Item = &(u32, u32, u32)> {
        let plan = self.plan.as_ref();
        // Who is its own delegate works in the window like any other.
        let own =
            move |segment: u32, node: u32| plan.is_some_and(|plan| plan.doer_uid(segment, node) == plan.uid(node));
        self.places.iter().filter(move |(segment, node, _)| own(*segment, *node))
    }

    /// The key tail of an attempt for a node.
    pub fn attempt_of(&self, plan: &Plan, segment: u32, node: u32, attempt: u32) -> Attempt {
        let (for_node, doer) = (plan.uid(node).to_owned(), plan.doer_uid(segment, node).to_owned());
        Attempt { run: self.uid.clone(), segment, for_node, node: doer, attempt }
    }

    /// Hashes of chunks that belong to another snapshot than the cursor's.
    pub(crate) fn leftover_chunks(&self) -> Vec<Key> {
        let kept = self.cursor().map(|cursor| cursor.snapshot.as_str());
        let others = self.chunks.iter().filter(|(hash, _)| Some(hash.as_str()) != kept);
        others
            .flat_map(|(hash, chunks)| {
                chunks.keys().map(|index| lockstep_apis::keys::snapshot_chunk(&self.uid, *index, hash))
            })
            .collect()
    }

    pub(super) fn put_object(&mut self, run: Run, revision: Revision) {
        if self.object.as_ref().is_none_or(|known| known.revision <= revision) {
            self.object = Some(Stored { value: Arc::new(run), revision });
        }
    }

    pub(super) fn put_gate(&mut self, entry: &Entry) -> Result<(), prost::DecodeError> {
        put_stored(&mut self.gate, entry, Gate::decode(entry.value.as_slice())?);
        Ok(())
    }

    pub(super) fn put_cursor(&mut self, entry: &Entry) -> Result<(), prost::DecodeError> {
        put_stored(&mut self.cursor, entry, Cursor::decode(entry.value.as_slice())?);
        self.assemble()
    }

    pub(super) fn put_chunk(&mut self, name: &str, value: &[u8]) -> Result<(), prost::DecodeError> {
        let Some((index, hash)) = name.split_once('-') else { return Ok(()) };
        let Ok(index) = index.parse() else { return Ok(()) };
        self.chunks.entry(hash.to_owned()).or_default().insert(index, value.to_vec());
        self.assemble()
    }

    pub(super) fn delete_chunk(&mut self, name: &str) {
        let Some((index, hash)) = name.split_once('-') else { return };
        let Ok(index) = index.parse::<u32>() else { return };
        if let Some(chunks) = self.chunks.get_mut(hash) {
            chunks.remove(&index);
            if chunks.is_empty() {
                self.chunks.remove(hash);
            }
        }
    }

    /// Makes the plan when all chunks are there: those that the cursor names, or without a cursor any.
    fn assemble(&mut self) -> Result<(), prost::DecodeError> {
        let wanted = self.cursor.as_ref().map(|cursor| cursor.value.snapshot.as_str());
        let have = self.plan.as_ref().map(|plan| plan.hash.as_str());
        if have.is_some() && (wanted.is_none() || wanted == have) {
            return Ok(());
        }
        let mut complete = self
            .chunks
            .iter()
            .filter(|(hash, chunks)| wanted.is_none_or(|wanted| wanted == *hash) && is_complete(chunks));
        let Some((hash, chunks)) = complete.next() else { return Ok(()) };
        let bytes: Vec<u8> = chunks.values().flat_map(|chunk| chunk.iter().skip(CHUNK_HEAD).copied()).collect();
        let plan = Plan::new(hash.clone(), Snapshot::decode(bytes.as_slice())?);
        self.tracks = plan.snapshot.segments.iter().map(|_| Vec::new()).collect();
        self.stops = vec![None; plan.snapshot.nodes.len()];
        self.left = vec![BTreeSet::new(); plan.snapshot.nodes.len()];
        self.failures = vec![0; plan.snapshot.groups.len()];
        self.attempts = 0;
        self.plan = Some(Arc::new(plan));
        for (kind, attempt, entry) in std::mem::take(&mut self.unread) {
            self.put_attempt(kind, &attempt, &entry)?;
            self.revealed.push(attempt);
        }
        Ok(())
    }

    pub(super) fn take_revealed(&mut self) -> Vec<Attempt> {
        std::mem::take(&mut self.revealed)
    }

    pub(super) fn put_attempt(
        &mut self,
        kind: AttemptKey,
        attempt: &Attempt,
        entry: &Entry,
    ) -> Result<(), prost::DecodeError> {
        let Some(plan) = self.plan.clone() else {
            self.unread.push((kind, attempt.clone(), entry.clone()));
            return Ok(());
        };
        let (Some(node), Some(row)) = (plan.node(&attempt.for_node), self.tracks.get_mut(attempt.segment as usize))
        else {
            return Ok(());
        };
        if row.is_empty() {
            row.resize_with(plan.snapshot.nodes.len(), Track::default);
        }
        let bytes = entry.value.as_slice();
        let track = &mut row[node as usize];
        let before = track.attempts.len();
        let state = track.attempt_mut(attempt.attempt);
        match kind {
            AttemptKey::Assignment => put_stored(&mut state.assignment, entry, Arc::new(Assignment::decode(bytes)?)),
            AttemptKey::Claim => put_stored(&mut state.claim, entry, Claim::decode(bytes)?),
            AttemptKey::Report => put_stored(&mut state.report, entry, Arc::new(Report::decode(bytes)?)),
            AttemptKey::Verdict => put_stored(&mut state.verdict, entry, Verdict::decode(bytes)?),
        }
        self.attempts += track.attempts.len() - before;
        self.judge_report(&plan, attempt.segment, node, attempt.attempt);
        self.refresh(&plan, attempt.segment, node);
        Ok(())
    }

    /// Finds out once what a report comes to, and counts its tasks.
    fn judge_report(&mut self, plan: &Plan, segment: u32, node: u32, number: u32) {
        let track = &self.tracks[segment as usize][node as usize];
        let Some(state) = track.attempt(number) else { return };
        let Some(report) = state.counted_report().filter(|_| state.ending.is_none()).cloned() else { return };
        // The assignment says what was known before; the order in which records come in does not matter.
        let Some(known) = state.assignment.as_ref().map(|assignment| assignment.value.clone()) else { return };
        let Some(of) = plan.segment(segment) else { return };
        let (ending, left) = ending(of, &known, &report, number);
        if ending != Ending::Rerun {
            self.left[node as usize].extend(left);
        }
        for task in &report.tasks {
            let again = known.known.iter().any(|earlier| earlier.task == task.task);
            let due = ending == Ending::Rerun && task.outcome() == Outcome::Interrupted;
            if !again && !due {
                count(&mut self.tasks, task);
            }
        }
        self.tracks[segment as usize][node as usize].attempt_mut(number).ending = Some(ending);
    }

    /// Brings the indices up to date with one track.
    fn refresh(&mut self, plan: &Plan, segment: u32, node: u32) {
        let track = &self.tracks[segment as usize][node as usize];
        let stage = track.stage();
        for attempt in &track.attempts {
            match attempt.holds_place() {
                true => drop(self.places.insert((segment, node, attempt.number))),
                false => drop(self.places.remove(&(segment, node, attempt.number))),
            }
        }
        match stage {
            Stage::Assigned | Stage::Claimed => drop(self.open.insert((segment, node))),
            _ => drop(self.open.remove(&(segment, node))),
        }
        let Stage::Ended(end) = stage else { return };
        let stop = &mut self.stops[node as usize];
        if end.goes_on() || stop.is_some_and(|stop| stop.segment <= segment) {
            return;
        }
        if stop.is_none_or(|stop| !stop.end.fails()) && end.fails() {
            self.failures[plan.group_of(segment) as usize] += 1;
        }
        *stop = Some(Stop { segment, end });
    }

    pub(super) fn delete_attempt(&mut self, kind: AttemptKey, attempt: &Attempt) {
        self.unread.retain(|(of, unread, _)| *of != kind || unread != attempt);
        let Some(node) = self.plan.as_ref().and_then(|plan| plan.node(&attempt.for_node)) else { return };
        let row = self.tracks.get_mut(attempt.segment as usize);
        let Some(track) = row.and_then(|row| row.get_mut(node as usize)) else { return };
        let Some(at) = track.attempts.iter().position(|state| state.number == attempt.attempt) else { return };
        let state = &mut track.attempts[at];
        match kind {
            AttemptKey::Assignment => state.assignment = None,
            AttemptKey::Claim => state.claim = None,
            AttemptKey::Report => state.report = None,
            AttemptKey::Verdict => state.verdict = None,
        }
        // Records go only with the whole Run: what was concluded from them need not be taken back, but the place is.
        self.places.remove(&(attempt.segment, node, attempt.attempt));
        self.open.remove(&(attempt.segment, node));
        if state.assignment.is_none() && state.claim.is_none() && state.report.is_none() && state.verdict.is_none() {
            track.attempts.remove(at);
            self.attempts -= 1;
        }
    }

    /// Whether nothing of it is left in the store.
    pub(super) fn is_gone(&self) -> bool {
        self.object.is_none()
            && self.gate.is_none()
            && self.cursor.is_none()
            && self.chunks.is_empty()
            && self.unread.is_empty()
            && self.attempts == 0
    }
}

fn is_complete(chunks: &BTreeMap<u32, Vec<u8>>) -> bool {
    let head = chunks.get(&0).and_then(|first| first.first_chunk::<CHUNK_HEAD>());
    head.is_some_and(|head| u32::from_be_bytes(*head) as usize == chunks.len())
}

fn put_stored<T>(slot: &mut Option<Stored<T>>, entry: &Entry, value: T) {
    if slot.as_ref().is_none_or(|known| known.revision <= entry.mod_revision) {
        *slot = Some(Stored { value, revision: entry.mod_revision });
    }
}

fn count(tasks: &mut TaskCounts, task: &TaskReport) {
    match task.outcome() {
        _ if task.ignored => tasks.ignored += 1,
        Outcome::Ok => tasks.ok += 1,
        Outcome::Unpredicted => tasks.unpredicted += 1,
        Outcome::Changed => tasks.changed += 1,
        Outcome::Failed => tasks.failed += 1,
        Outcome::Skipped => tasks.skipped += 1,
        Outcome::Cancelled => tasks.cancelled += 1,
        Outcome::Interrupted | Outcome::Lost => tasks.interrupted += 1,
        Outcome::Unspecified => {}
    }
}
