use lockstep_apis::commit::Commit;
use lockstep_apis::v1alpha::{Metadata, Namespace, Object};

use super::*;
use crate::store::embedded::{Embedded, EmbeddedSettings};

async fn store(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    Arc::new(Embedded::open(&EmbeddedSettings::new(folder.path().join("s.redb"))).await.unwrap())
}

fn namespace(name: &str) -> Object {
    Namespace { metadata: Some(Metadata { name: name.into(), ..Metadata::default() }), ..Namespace::default() }.into()
}

async fn make(store: &dyn Store, name: &str) -> Revision {
    let object = namespace(name);
    store.commit(&Commit::new().put(object.key(), object.to_stored())).await.unwrap().revision
}

#[tokio::test]
async fn what_is_committed_is_seen_and_told_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let first = make(&*store, "a").await;
    let cache = Cache::load(&*store).await.unwrap();
    let following = tokio::spawn({
        let (cache, store) = (cache.clone(), store.clone());
        async move { cache.follow(&*store).await }
    });
    let position = cache.position(first).unwrap();
    let second = make(&*store, "b").await;
    store.commit(&Commit::new().delete(namespace("a").key())).await.unwrap();
    cache.catch_up(&*store).await.unwrap();
    let told: Vec<String> = cache
        .since(position)
        .unwrap()
        .iter()
        .flat_map(|batch| &batch.changes)
        .map(|change| match change {
            Change::Object { before: None, after: Some(object), .. } => format!("+{}", object.metadata().name),
            Change::Object { before: Some(object), after: None, .. } => format!("-{}", object.metadata().name),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["+b", "-a"]);
    assert_eq!(cache.read().object(&namespace("b").key()).unwrap().metadata().resource_version, second.to_string());
    following.abort();
}

#[tokio::test]
async fn what_the_watch_lost_is_repaired_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let revision = make(&*store, "kept").await;
    make(&*store, "lost-delete").await;
    let cache = Cache::load(&*store).await.unwrap();
    let following = tokio::spawn({
        let (cache, store) = (cache.clone(), store.clone());
        async move { cache.follow(&*store).await }
    });
    cache.catch_up(&*store).await.unwrap();
    // As if the watch had never brought one key, and not the delete of another.
    let ghost = namespace("ghost");
    {
        let mut state = cache.write();
        let now = state.world.revision();
        let entry = Entry { key: ghost.key(), value: ghost.to_stored(), create_revision: 1, mod_revision: revision };
        let lost = crate::store::Change::Delete(namespace("kept").key(), now);
        state.fold(now, vec![crate::store::Change::Put(entry), lost]);
        // Not a delete that anybody told: forget that the history has it.
        state.history = history::History::starting_at(now);
    }
    let read = cache.end();
    assert_eq!(cache.repair_once(&*store).await.unwrap(), 2);
    assert_eq!(cache.repairs(), 2);
    assert!(cache.read().object(&ghost.key()).is_none());
    assert!(cache.read().object(&namespace("kept").key()).is_some());
    assert_eq!(cache.since(read).unwrap().len(), 1, "who had read that far is told");
    assert_eq!(cache.repair_once(&*store).await.unwrap(), 0);
    following.abort();
}
