//! Which ended Runs go, and that nothing is left of them in a real store.

use lockstep_apis::commit::Entry;
use lockstep_apis::keys::{Attempt, AttemptKey, Key};
use lockstep_apis::v1alpha::{Cursor, Metadata, Run, RunPhase, RunSpec, RunStatus};

use super::*;
use crate::store::Store;
use crate::store::embedded::{Embedded, EmbeddedSettings};

/// A Run that ended then; of the namespace `shop`.
fn ended(name: &str, finished_ms: u64) -> Run {
    let status = RunStatus {
        phase: RunPhase::Succeeded.into(),
        finished_at: Some(timestamp::from_ms(finished_ms)),
        ..RunStatus::default()
    };
    Run { metadata: Some(metadata(name)), spec: None, status: Some(status) }
}

fn metadata(name: &str) -> Metadata {
    Metadata { name: name.into(), namespace: "shop".into(), uuid: format!("uid-{name}"), ..Metadata::default() }
}

fn put(world: &mut World, key: Key, value: Vec<u8>) {
    let revision = world.revision() + 1;
    world.put(&Entry { key, value, create_revision: revision, mod_revision: revision }).unwrap();
    world.advance(revision);
}

fn world_of(runs: &[Run]) -> World {
    let mut world = World::new();
    for run in runs {
        let name = &run.metadata.as_ref().unwrap().name;
        put(&mut world, keys::object("runs", "shop", name), run.encode_to_vec());
    }
    world
}

/// Names of the Runs that go.
fn gone(world: &World, kept: usize, oldest_ms: u64) -> Vec<String> {
    let commits = superfluous(world, kept, oldest_ms);
    let names = commits.iter().map(|commit| match &commit.operations[0] {
        Operation::Delete(key) => key.as_str().rsplit('/').next().unwrap().to_owned(),
        other => panic!("{other:?}"),
    });
    names.collect()
}

#[test]
fn history_is_kept_by_count_and_age() {
    let world = world_of(&[ended("a", 1000), ended("b", 3000), ended("c", 2000), ended("d", 4000)]);
    assert_eq!(gone(&world, 10, 0), Vec::<String>::new());
    assert_eq!(gone(&world, 2, 0), ["a", "c"], "the oldest go");
    assert_eq!(gone(&world, 10, 2500), ["a", "c"]);
    assert_eq!(gone(&world, 1, 9000), ["a", "c", "b", "d"]);
}

#[test]
fn a_run_that_has_not_ended_holds_places_or_is_retried_just_now_stays() {
    let going = Run { status: None, ..ended("going", 0) };
    let retrying = Run {
        metadata: Some(metadata("retrying")),
        spec: Some(RunSpec { retry_of: "old".into(), ..RunSpec::default() }),
        status: None,
    };
    let mut world = world_of(&[going, ended("held", 1), ended("old", 2), ended("older", 3), retrying]);
    put(&mut world, keys::cursor("uid-held"), Cursor { ended: true, ..Cursor::default() }.encode_to_vec());
    assert_eq!(gone(&world, 1, 9000), ["older"]);
}

#[tokio::test]
async fn a_deleted_run_leaves_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&EmbeddedSettings::new(folder.path().join("s"))).await.unwrap();
    let attempt = Attempt { run: "uid-a".into(), segment: 0, for_node: "n".into(), node: "n".into(), attempt: 1 };
    let kinds = [AttemptKey::Assignment, AttemptKey::Claim, AttemptKey::Report, AttemptKey::Verdict];
    let mut commit = Commit::new()
        .put(keys::object("runs", "shop", "a"), ended("a", 1).encode_to_vec())
        .put(keys::gate("uid-a"), Vec::new());
    for index in 0..3 {
        commit = commit.put(keys::snapshot_chunk("uid-a", index, "h"), vec![0; 8]);
    }
    for kind in kinds {
        commit = commit.put(kind.of(&attempt), Vec::new());
    }
    let other = keys::gate("uid-ab");
    store.commit(&commit.put(other.clone(), Vec::new())).await.unwrap();
    let mut world = World::new();
    let listed = store.snapshot(&keys::everything()).await.unwrap();
    listed.entries.iter().for_each(|entry| world.put(entry).unwrap());
    world.advance(listed.revision);
    for commit in superfluous(&world, 0, 0) {
        store.commit(&commit).await.unwrap();
    }
    let left = store.snapshot(&keys::everything()).await.unwrap().entries;
    assert_eq!(left.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), [other]);
}
