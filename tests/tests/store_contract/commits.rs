//! What a commit promises.

use std::collections::BTreeSet;

use lockstep_apis::commit::{Commit, Compare, MAX_OPERATIONS, MAX_VALUE_BYTES, Operation};
use lockstep_daemon::store::{Refusal, StoreError};

use super::{Lab, commit, get, key, now, put, refusal, value, within};

pub(crate) async fn a_commit_happens_whole_or_not_at_all(lab: Lab) {
    let store = &*lab.store;
    commit(store, put("a", "1").put(key("b"), b"1".to_vec())).await;
    let mixed = Commit::new()
        .when(Compare::Present(key("a")))
        .when(Compare::Absent(key("b")))
        .put(key("a"), b"2".to_vec())
        .delete(key("b"));
    assert!(matches!(within(store.commit(&mixed)).await, Err(StoreError::Conflict)));
    assert_eq!(value(store, "a").await.as_deref(), Some("1"));
    assert_eq!(value(store, "b").await.as_deref(), Some("1"));
    let whole = Commit::new().when(Compare::Present(key("b"))).put(key("a"), b"2".to_vec()).delete(key("b"));
    let revision = commit(store, whole).await;
    let a = get(store, "a").await.expect("written");
    assert_eq!((a.value.as_slice(), a.mod_revision), (b"2".as_slice(), revision));
    assert_eq!(get(store, "b").await, None);
}

pub(crate) async fn compares_hold_as_documented(lab: Lab) {
    let store = &*lab.store;
    let create = commit(store, put("k", "old")).await;
    let modified = commit(store, put("k", "new")).await;
    let (k, none) = (key("k"), key("none"));
    for (compare, holds) in [
        (Compare::Present(k.clone()), true),
        (Compare::Absent(k.clone()), false),
        (Compare::ModRevision(k.clone(), modified), true),
        (Compare::ModRevision(k.clone(), create), false),
        (Compare::ModRevision(k.clone(), 0), false),
        (Compare::CreateRevision(k.clone(), create), true),
        (Compare::CreateRevision(k.clone(), modified), false),
        (Compare::Value(k.clone(), b"new".to_vec()), true),
        (Compare::Value(k.clone(), b"old".to_vec()), false),
        (Compare::Value(k.clone(), Vec::new()), false),
        (Compare::Present(none.clone()), false),
        (Compare::Absent(none.clone()), true),
        (Compare::ModRevision(none.clone(), 0), true),
        (Compare::ModRevision(none.clone(), modified), false),
        (Compare::CreateRevision(none.clone(), 0), true),
        // What is not there is not empty: an open gate is one that exists.
        (Compare::Value(none.clone(), Vec::new()), false),
    ] {
        let result = within(store.commit(&Commit::new().when(compare.clone()).put(key("probe"), Vec::new()))).await;
        match result {
            Ok(_) => assert!(holds, "{compare:?} held"),
            Err(StoreError::Conflict) => assert!(!holds, "{compare:?} did not hold"),
            Err(error) => panic!("{compare:?}: {error}"),
        }
    }
}

pub(crate) async fn of_racing_creates_one_wins(lab: Lab) {
    let racer = |index: usize| {
        let store = lab.store.clone();
        async move { store.commit(&Commit::new().create(key("prize"), index.to_string().into())).await }
    };
    let tasks: Vec<_> = (0..32).map(|index| tokio::spawn(racer(index))).collect();
    let mut winners = Vec::new();
    for (index, task) in tasks.into_iter().enumerate() {
        match within(task).await.expect("no panic") {
            Ok(_) => winners.push(index.to_string()),
            Err(StoreError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(value(&*lab.store, "prize").await.as_ref(), winners.first());
}

pub(crate) async fn commits_in_flight_together_have_revisions_of_their_own(lab: Lab) {
    let writer = |index: usize| {
        let store = lab.store.clone();
        async move { store.commit(&put(&format!("w/{index:03}"), "x")).await.expect("a commit").revision }
    };
    let tasks: Vec<_> = (0..200).map(|index| tokio::spawn(writer(index))).collect();
    let mut revisions = BTreeSet::new();
    for (index, task) in tasks.into_iter().enumerate() {
        let revision = within(task).await.expect("no panic");
        assert!(revisions.insert(revision), "revision {revision} twice");
        let entry = get(&*lab.store, &format!("w/{index:03}")).await.expect("written");
        assert_eq!((entry.create_revision, entry.mod_revision), (revision, revision));
    }
}

pub(crate) async fn a_key_keeps_its_create_revision_until_it_is_deleted(lab: Lab) {
    let store = &*lab.store;
    let first = commit(store, put("k", "1")).await;
    let second = commit(store, put("k", "2")).await;
    let entry = get(store, "k").await.expect("written");
    assert_eq!((entry.create_revision, entry.mod_revision), (first, second));
    commit(store, Commit::new().delete(key("k"))).await;
    let again = commit(store, put("k", "3")).await;
    let entry = get(store, "k").await.expect("written");
    assert_eq!((entry.create_revision, entry.mod_revision), (again, again));
    assert!(first < second && second < again);
}

pub(crate) async fn a_commit_that_changes_nothing_makes_no_revision(lab: Lab) {
    let store = &*lab.store;
    let before = commit(store, put("k", "1")).await;
    commit(store, Commit::new().delete(key("never"))).await;
    commit(store, Commit::new().when(Compare::Present(key("k")))).await;
    let entry = get(store, "k").await.expect("written");
    assert_eq!(entry.mod_revision, before);
    let mut watch = within(store.watch(&key(""), before + 1)).await.expect("a watch");
    commit(store, put("k", "2")).await;
    let (_, changes) = super::next_changes(&mut watch).await;
    assert_eq!(super::text(&changes), ["k=2"]);
}

pub(crate) async fn what_breaks_the_rules_is_refused_whole(lab: Lab) {
    let store = &*lab.store;
    let delete_prefix = |prefix: &str| {
        let mut commit = Commit::new();
        commit.operations.push(Operation::DeletePrefix(key(prefix)));
        commit
    };
    let many = |count: usize| (0..count).fold(Commit::new(), |c, index| c.put(key(&format!("m/{index}")), Vec::new()));
    let large = vec![0; MAX_VALUE_BYTES + 1];
    let half = vec![0; MAX_VALUE_BYTES];
    for (commit, too_large) in [
        (put("k", "1").put(key("k"), b"2".to_vec()), false),
        (put("k", "1").delete(key("k")), false),
        (delete_prefix("k/").put(key("k/a"), Vec::new()), false),
        (delete_prefix("k/").delete(key("k/a")), false),
        (put("", "1"), false),
        (delete_prefix(""), false),
        (Commit::new().when(Compare::Absent(key(""))).put(key("k"), Vec::new()), false),
        (many(MAX_OPERATIONS + 1), true),
        (put("k", "1").put(key("l"), large), true),
        (Commit::new().put(key("k"), half.clone()).put(key("l"), half.clone()), true),
        (Commit::new().when(Compare::Value(key("k"), half.clone())).put(key("l"), half), true),
        (put(&"k".repeat(3000), "1"), true),
    ] {
        let error = within(store.commit(&commit)).await.expect_err("against the rules");
        match refusal(&error) {
            Refusal::TooLarge(_) => assert!(too_large, "{error}"),
            Refusal::Invalid(_) => assert!(!too_large, "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(within(store.list(&key(""), super::lists::first(10))).await.expect("a list").entries.is_empty());
}

pub(crate) async fn the_largest_commit_is_accepted(lab: Lab) {
    let store = &*lab.store;
    let mut largest = Commit::new();
    for index in 0..MAX_OPERATIONS {
        let key = key(&format!("large/{index:03}"));
        largest = largest.when(Compare::Absent(key.clone())).put(key, vec![b'x'; 13_000]);
    }
    let revision = commit(store, largest).await;
    let entry = get(store, "large/099").await.expect("written");
    assert_eq!((entry.value.len(), entry.mod_revision), (13_000, revision));
    commit(store, Commit::new().put(key("value"), vec![b'x'; MAX_VALUE_BYTES])).await;
    assert_eq!(get(store, "value").await.expect("written").value.len(), MAX_VALUE_BYTES);
}

pub(crate) async fn delete_prefix_deletes_what_is_below_and_nothing_else(lab: Lab) {
    let store = &*lab.store;
    let names = ["a", "a/", "a/1", "a/2/3", "a0", "aa/1", "b"];
    for name in names {
        commit(store, put(name, "x")).await;
    }
    let before = now(store).await;
    let mut delete = put("c", "new");
    delete.operations.push(Operation::DeletePrefix(key("a/")));
    let revision = commit(store, delete).await;
    assert!(revision > before);
    let left = within(store.snapshot(&key(""))).await.expect("a snapshot");
    let left: Vec<_> = left.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(left, ["a", "a0", "aa/1", "b", "c"]);
    let mut watch = within(store.watch(&key(""), revision)).await.expect("a watch");
    let (at, changes) = super::next_changes(&mut watch).await;
    assert_eq!(at, revision);
    assert_eq!(super::text(&changes), ["c=new", "-a/", "-a/1", "-a/2/3"]);
}
