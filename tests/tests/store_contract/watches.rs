//! What a watch promises.

use lockstep_apis::commit::Commit;
use lockstep_daemon::store::{Change, Refusal, StoreError, WatchEvent};

use super::{Lab, commit, get, key, next_changes, now, put, refusal, text, within};

pub(crate) async fn a_watch_gives_each_revision_once_and_whole(lab: Lab) {
    let store = &*lab.store;
    let from = commit(store, put("k/before", "x")).await + 1;
    let mut watch = within(store.watch(&key("k/"), from)).await.expect("a watch");
    let mut expected = Vec::new();
    for (step, seen) in [
        (put("k/a", "1").put(key("other"), b"1".to_vec()).put(key("k/b"), b"1".to_vec()), vec!["k/a=1", "k/b=1"]),
        (put("kk", "1").delete(key("other")), vec![]),
        (put("k/b", "2").delete(key("k/a")), vec!["k/b=2", "-k/a"]),
        (Commit::new().delete(key("k/never")), vec![]),
        (Commit::new().delete(key("k/b")), vec!["-k/b"]),
        (put("k/b", "3"), vec!["k/b=3"]),
    ] {
        let revision = commit(store, step).await;
        if !seen.is_empty() {
            expected.push((revision, seen));
        }
    }
    for (revision, seen) in expected {
        let (at, changes) = next_changes(&mut watch).await;
        assert_eq!((at, text(&changes)), (revision, seen.into_iter().map(str::to_owned).collect()));
        assert!(changes.iter().all(|change| change.revision() == revision));
    }
    let last = get(store, "k/b").await.expect("written");
    let mut again = within(store.watch(&key("k/"), last.mod_revision)).await.expect("a watch");
    assert_eq!(next_changes(&mut again).await, (last.mod_revision, vec![Change::Put(last)]));
}

pub(crate) async fn a_watch_of_the_past_begins_there(lab: Lab) {
    let store = &*lab.store;
    let mut revisions = Vec::new();
    for index in 0..50 {
        revisions.push(commit(store, put("k/a", &index.to_string())).await);
    }
    for begin in [0, 1, 25, 49] {
        let mut watch = within(store.watch(&key("k/"), revisions[begin])).await.expect("a watch");
        for (index, revision) in revisions.iter().enumerate().skip(begin) {
            let (at, changes) = next_changes(&mut watch).await;
            assert_eq!((at, text(&changes)), (*revision, vec![format!("k/a={index}")]));
        }
    }
}

pub(crate) async fn a_watch_of_the_future_waits_for_it(lab: Lab) {
    let store = &*lab.store;
    let from = now(store).await + 500;
    let mut watch = within(store.watch(&key("k/"), from)).await.expect("a watch");
    let mut last = 0;
    while last < from {
        last = commit(store, put("k/a", "x")).await;
    }
    let (at, _) = next_changes(&mut watch).await;
    assert!(at >= from, "{at} came before {from}");
}

pub(crate) async fn a_slow_watcher_misses_nothing(lab: Lab) {
    let store = &*lab.store;
    let from = now(store).await + 1;
    let mut watch = within(store.watch(&key("k/"), from)).await.expect("a watch");
    let mut revisions = Vec::new();
    for batch in 0..20 {
        let writers = (0..50).map(|index| {
            let store = lab.store.clone();
            tokio::spawn(async move { commit(&*store, put(&format!("k/{}", batch * 50 + index), "x")).await })
        });
        for writer in writers.collect::<Vec<_>>() {
            revisions.push(within(writer).await.expect("no panic"));
        }
    }
    revisions.sort_unstable();
    for revision in revisions {
        let (at, changes) = next_changes(&mut watch).await;
        assert_eq!((at, changes.len()), (revision, 1));
    }
}

pub(crate) async fn a_quiet_watch_says_that_it_lives(lab: Lab) {
    let store = &*lab.store;
    let from = now(store).await + 1;
    let mut watch = within(store.watch(&key("quiet/"), from)).await.expect("a watch");
    for _ in 0..2 {
        let event = within(watch.next()).await.expect("the watch goes on").expect("no error");
        assert!(matches!(event, WatchEvent::Progress { revision } if revision >= from - 1), "{event:?}");
    }
}

pub(crate) async fn a_watch_from_revision_zero_is_refused(lab: Lab) {
    let error = within(lab.store.watch(&key("k/"), 0)).await.err().expect("no such revision");
    assert!(matches!(refusal(&error), Refusal::Invalid(_)));
}

pub(crate) async fn a_watch_of_a_compacted_past_ends_at_once(lab: Lab) {
    let store = &*lab.store;
    let old = commit(store, put("k/a", "1")).await;
    commit(store, put("k/a", "2")).await;
    let kept = commit(store, put("k/a", "3")).await;
    let newest = commit(store, put("k/a", "4")).await;
    within(store.compact(newest)).await.expect("compacted");
    for from in [old, kept] {
        let mut watch = within(store.watch(&key("k/"), from)).await.expect("a stream");
        let first = within(watch.next()).await.expect("an answer");
        assert!(
            matches!(first, Err(StoreError::Compacted { revision }) if revision == newest),
            "from {from}: {first:?}"
        );
        assert!(within(watch.next()).await.is_none());
    }
    let mut watch = within(store.watch(&key("k/"), newest)).await.expect("a watch");
    assert_eq!(text(&next_changes(&mut watch).await.1), ["k/a=4"]);
}
