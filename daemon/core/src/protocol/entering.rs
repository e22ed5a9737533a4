//! What the creating commit of a Run with a concurrency key holds, by the key's policy. Whoever creates with a key
//! writes its record, so that of two creators at once the second sees the first.

use lockstep_apis::{
    commit::{Commit, Compare},
    keys,
    v1alpha::{Concurrency, ConcurrencyPolicy, ConcurrencyRecord, GateReasonType, Run, RunSpec},
};
use prost::Message;

use super::{Refusal, close, reason};
use crate::world::{RunState, World};

/// Most Runs that have one key or wait for it.
pub const MAX_RUNS_OF_KEY: usize = 1000;

/// Most Runs that one create cancels: each is three compares and one write, beside those of the create.
const MAX_CANCELLED: usize = 25;

/// How a Run with a key comes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Entering {
    /// Add this to the commit that creates it. Conflict: let the cache catch up and ask again.
    Enter(Commit),
    /// Create nothing: the Run with this uid does the same.
    Join(String),
}

/// Judges a new Run, which holds its key in `spec.concurrency`, by a world that has caught up. `book_generation` is that
/// of the book now; `by` is who creates.
pub fn enter(world: &World, run: &Run, book_generation: i64, by: &str, now_ms: u64) -> Result<Entering, Refusal> {
    let (metadata, spec) = (run.metadata.clone().unwrap_or_default(), run.spec.clone().unwrap_or_default());
    let Some(own) = &spec.concurrency else { return Ok(Entering::Enter(Commit::new())) };
    let key = keys::concurrency(&metadata.namespace, &own.key);
    let record = world.concurrency(&key);
    let others = record.map_or(&[][..], |record| &record.value.runs);
    let others: Vec<&RunState> = others.iter().filter_map(|uid| world.run(uid)).filter(|run| run.is_live()).collect();
    let mut commit = match record {
        Some(record) => Commit::new().when(Compare::ModRevision(key.clone(), record.revision)),
        None => Commit::new().when(Compare::Absent(key.clone())),
    };
    let by = format!("{by} with run {}", metadata.name);
    match own.policy() {
        ConcurrencyPolicy::Refuse => refuse(own, &others)?,
        ConcurrencyPolicy::Join if !others.is_empty() => return join(own, &spec, book_generation, &others),
        ConcurrencyPolicy::Replace => commit = stop(commit, own, &others, &by, now_ms)?,
        ConcurrencyPolicy::QueueLatest => {
            let waits = |run: &&&RunState| run.cursor().is_none_or(|cursor| !cursor.granted && !cursor.ended);
            let waiting: Vec<&RunState> = others.iter().filter(waits).copied().collect();
            commit = stop(commit, own, &waiting, &by, now_ms)?;
        }
        _ => {}
    }
    if others.len() >= MAX_RUNS_OF_KEY {
        return Err(Refusal::KeyFull(own.key.clone()));
    }
    let runs = others.iter().map(|run| run.uid().to_owned()).chain([metadata.uuid]);
    Ok(Entering::Enter(commit.put(key, ConcurrencyRecord { runs: runs.collect() }.encode_to_vec())))
}

fn refuse(own: &Concurrency, others: &[&RunState]) -> Result<(), Refusal> {
    match first(others) {
        None => Ok(()),
        Some(run) => Err(Refusal::KeyHeld { key: own.key.clone(), run: run.name().to_owned() }),
    }
}

/// The one that goes, else the one that is next.
fn first<'w>(others: &[&'w RunState]) -> Option<&'w RunState> {
    let granted = others.iter().find(|run| run.cursor().is_some_and(|cursor| cursor.granted));
    granted.or(others.first()).copied()
}

fn join(own: &Concurrency, spec: &RunSpec, generation: i64, others: &[&RunState]) -> Result<Entering, Refusal> {
    let of = first(others).expect("invariant: asked with others only");
    let differs =
        |how: &str| Refusal::CannotJoin { key: own.key.clone(), run: of.name().to_owned(), why: how.to_owned() };
    let theirs = of.object().and_then(|object| object.value.spec.as_ref());
    if !theirs.is_some_and(|theirs| asked(theirs) == asked(spec)) {
        return Err(differs("was asked for something else"));
    }
    if of.plan().is_some_and(|plan| plan.snapshot.book_generation != generation) {
        return Err(differs("does an older version of the book"));
    }
    let over = of.has_ended() || of.cursor().is_some_and(|cursor| cursor.ended);
    if over || of.is_closed() {
        return Err(differs("is being stopped, or has ended and its nodes have not"));
    }
    Ok(Entering::Join(of.uid().to_owned()))
}

/// What a user asked for: without what the server adds.
fn asked(spec: &RunSpec) -> RunSpec {
    RunSpec { origin: None, concurrency: None, ..spec.clone() }
}

/// Closes their gates for good. What is not granted is compared to be so still.
fn stop(mut commit: Commit, own: &Concurrency, others: &[&RunState], by: &str, now_ms: u64) -> Result<Commit, Refusal> {
    let open = others.iter().filter(|run| !run.is_cancelled() && run.cursor().is_none_or(|cursor| !cursor.ended));
    let open: Vec<&&RunState> = open.collect();
    if open.len() > MAX_CANCELLED {
        return Err(Refusal::KeyFull(own.key.clone()));
    }
    for run in open {
        let message = format!("replaced by {by}");
        let closing = close(run, reason(GateReasonType::Cancelled, by, now_ms, &message));
        commit.compares.extend(closing.compares);
        commit.operations.extend(closing.operations);
        let cursor = keys::cursor(run.uid());
        match run.cursor().filter(|cursor| !cursor.granted).and(run.cursor_revision()) {
            Some(revision) => commit = commit.when(Compare::ModRevision(cursor, revision)),
            None if run.cursor().is_none() => commit = commit.when(Compare::Absent(cursor)),
            None => {}
        }
    }
    Ok(commit)
}

#[cfg(test)]
mod tests;
