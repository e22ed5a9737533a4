//! What a list promises.

use lockstep_apis::commit::Commit;
use lockstep_daemon::store::{Page, Range, Refusal, Store, StoreError};

use super::{Lab, commit, key, now, put, refusal, within};

pub(crate) fn first(limit: usize) -> Range {
    Range::first(limit)
}

fn names(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|entry| entry.key.as_str()).collect()
}

fn values(page: &Page) -> Vec<String> {
    let one = |entry: &lockstep_apis::commit::Entry| format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value));
    page.entries.iter().map(one).collect()
}

async fn list(store: &dyn Store, prefix: &str, range: Range) -> Page {
    within(store.list(&key(prefix), range)).await.expect("a list")
}

pub(crate) async fn pages_are_in_byte_order_and_complete(lab: Lab) {
    let store = &*lab.store;
    for name in ["p/é", "p/b", "p/a", "p/B", "p/a/b", "p/a0", "p", "q", "o"] {
        commit(store, put(name, "x")).await;
    }
    let all = ["p/B", "p/a", "p/a/b", "p/a0", "p/b", "p/é"];
    assert_eq!(names(&list(store, "p/", first(100)).await), all);
    for limit in 1..=7 {
        let (mut seen, mut range) = (Vec::new(), first(limit));
        loop {
            let page = list(store, "p/", range.clone()).await;
            assert!(page.entries.len() <= limit);
            seen.extend(names(&page).into_iter().map(str::to_owned));
            range.after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, all, "in pages of {limit}");
    }
    assert!(!list(store, "p/", first(6)).await.more);
    assert!(list(store, "p/", first(5)).await.more);
    let none = within(store.list(&key("p/"), first(0))).await.expect_err("no page of nothing");
    assert!(matches!(refusal(&none), Refusal::Invalid(_)));
}

pub(crate) async fn later_pages_are_of_the_first_ones_revision(lab: Lab) {
    let store = &*lab.store;
    for name in ["k/1", "k/2", "k/3", "k/4"] {
        commit(store, put(name, "old")).await;
    }
    let page = list(store, "k/", first(2)).await;
    commit(store, put("k/3", "new").delete(key("k/4")).put(key("k/5"), b"new".to_vec())).await;
    let after = page.entries.last().map(|entry| entry.key.clone());
    let rest = list(store, "k/", Range { after, limit: 10, at: Some(page.revision) }).await;
    assert_eq!(values(&rest), ["k/3=old", "k/4=old"]);
    assert_eq!((rest.revision, rest.more), (page.revision, false));
    assert_eq!(values(&list(store, "k/", first(10)).await), ["k/1=old", "k/2=old", "k/3=new", "k/5=new"]);
}

pub(crate) async fn a_list_of_the_past_shows_what_was(lab: Lab) {
    let store = &*lab.store;
    let mut past = vec![(now(store).await, Vec::new())];
    let steps = [
        put("k/a", "1"),
        put("k/b", "1").put(key("k/c"), b"1".to_vec()),
        put("k/a", "2").delete(key("k/b")),
        Commit::new().delete(key("k/a")),
        put("k/b", "3").put(key("k/a"), b"3".to_vec()),
        put("k/a", "4"),
    ];
    for step in steps {
        let revision = commit(store, step).await;
        past.push((revision, list(store, "k/", first(10)).await.entries));
    }
    for (revision, entries) in past {
        let page = list(store, "k/", Range { after: None, limit: 10, at: Some(revision) }).await;
        assert_eq!((page.entries, page.revision), (entries, revision));
    }
}

pub(crate) async fn a_list_of_the_future_is_refused(lab: Lab) {
    let at = now(&*lab.store).await + 1_000_000;
    let range = Range { after: None, limit: 1, at: Some(at) };
    let error = within(lab.store.list(&key("k/"), range)).await.expect_err("not yet");
    assert_eq!(refusal(&error), &Refusal::FutureRevision(at));
}

pub(crate) async fn large_entries_come_in_more_pages(lab: Lab) {
    let store = &*lab.store;
    for index in 0..12 {
        commit(store, Commit::new().put(key(&format!("k/{index:02}")), vec![b'x'; 1_000_000])).await;
    }
    let page = list(store, "k/", first(100)).await;
    let bytes: usize = page.entries.iter().map(|entry| entry.value.len()).sum();
    assert!(!page.entries.is_empty());
    assert!(page.more || page.entries.len() == 12, "a page that is not whole says so");
    assert!(bytes <= 12_000_000);
    let whole = within(store.snapshot(&key("k/"))).await.expect("a snapshot");
    assert_eq!(whole.entries.len(), 12);
}

pub(crate) async fn a_snapshot_is_of_one_revision(lab: Lab) {
    let store = lab.store.clone();
    const KEYS: usize = 700;
    let write_all = move |round: usize| {
        let store = store.clone();
        async move {
            for chunk in 0..KEYS / 100 {
                let mut all = Commit::new();
                for index in chunk * 100..(chunk + 1) * 100 {
                    all = all.put(key(&format!("s/{index:04}")), round.to_string().into());
                }
                commit(&*store, all).await;
            }
        }
    };
    write_all(0).await;
    let writer = tokio::spawn(async move {
        for round in 1..20 {
            write_all(round).await;
        }
    });
    for _ in 0..5 {
        let snapshot = within(lab.store.snapshot(&key("s/"))).await.expect("a snapshot");
        assert_eq!(snapshot.entries.len(), KEYS);
        // Chunks are written in order: at one revision, the rounds never rise from one key to the next.
        let rounds: Vec<u32> =
            snapshot.entries.iter().map(|e| String::from_utf8_lossy(&e.value).parse().expect("a number")).collect();
        assert!(rounds.is_sorted_by(|a, b| a >= b), "{rounds:?}");
        assert!(rounds[0] - rounds[KEYS - 1] <= 1, "{rounds:?}");
        assert!(snapshot.entries.iter().all(|entry| entry.mod_revision <= snapshot.revision));
    }
    within(writer).await.expect("no panic");
}

pub(crate) async fn compaction_takes_the_past_and_nothing_else(lab: Lab) {
    let store = &*lab.store;
    let old = commit(store, put("k/a", "1").put(key("k/b"), b"1".to_vec())).await;
    commit(store, put("k/a", "2")).await;
    let kept = commit(store, put("k/a", "3")).await;
    commit(store, put("k/a", "4").delete(key("k/b"))).await;
    within(store.compact(kept)).await.expect("compacted");
    within(store.compact(kept)).await.expect("again is no error");
    within(store.compact(old)).await.expect("nor is older");
    let at = |revision| Range { after: None, limit: 10, at: Some(revision) };
    let gone = within(store.list(&key("k/"), at(old))).await;
    assert!(matches!(gone, Err(StoreError::Compacted { .. })), "{gone:?}");
    assert_eq!(values(&list(store, "k/", at(kept)).await), ["k/a=3", "k/b=1"]);
    assert_eq!(values(&list(store, "k/", first(10)).await), ["k/a=4"]);
    let error = within(store.compact(kept + 1_000_000)).await.expect_err("not yet");
    assert_eq!(refusal(&error), &Refusal::FutureRevision(kept + 1_000_000));
}
