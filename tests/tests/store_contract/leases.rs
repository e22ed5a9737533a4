//! What a lease promises.

use std::time::{Duration, Instant};

use lockstep_apis::commit::{Commit, LeaseId};
use lockstep_daemon::store::Refusal;

use super::{Lab, commit, get, key, next_changes, now, put, refusal, text, within};

/// etcd gives at least 2 s at the usual election timeout.
const TTL: Duration = Duration::from_secs(2);

pub(crate) async fn a_lease_ends_with_all_its_keys_at_once(lab: Lab) {
    let store = &*lab.store;
    let begun = Instant::now();
    let lease = within(store.grant(TTL)).await.expect("a lease");
    assert!(lease.ttl >= TTL);
    let leased = Commit::new()
        .put_leased(key("l/b"), b"x".to_vec(), lease.id)
        .put_leased(key("l/a"), b"x".to_vec(), lease.id)
        .put(key("l/c"), b"x".to_vec());
    let revision = commit(store, leased).await;
    let mut watch = within(store.watch(&key("l/"), revision + 1)).await.expect("a watch");
    let (_, changes) = next_changes(&mut watch).await;
    assert!(begun.elapsed() >= TTL, "ended after {:?}", begun.elapsed());
    assert_eq!(text(&changes), ["-l/a", "-l/b"]);
    assert!(get(store, "l/c").await.is_some());
}

pub(crate) async fn a_kept_lease_outlives_its_time(lab: Lab) {
    let store = &*lab.store;
    let lease = within(store.grant(TTL)).await.expect("a lease");
    let kept = store.keep_alive(lease);
    let revision = commit(store, Commit::new().put_leased(key("l"), b"x".to_vec(), lease.id)).await;
    let mut watch = within(store.watch(&key("l"), revision + 1)).await.expect("a watch");
    // The wait is the subject: three times what it would live alone.
    let early = tokio::time::timeout(lease.ttl * 3, next_changes(&mut watch)).await;
    assert!(early.is_err(), "{early:?}");
    assert!(kept.is_held());
    drop(kept);
    assert_eq!(text(&next_changes(&mut watch).await.1), ["-l"]);
}

pub(crate) async fn revoking_deletes_and_tells_the_keeper(lab: Lab) {
    let store = &*lab.store;
    let lease = within(store.grant(TTL)).await.expect("a lease");
    let kept = store.keep_alive(lease);
    commit(store, Commit::new().put_leased(key("l"), b"x".to_vec(), lease.id)).await;
    within(store.revoke(lease.id)).await.expect("revoked");
    assert_eq!(get(store, "l").await, None);
    within(kept.lost()).await;
    assert!(!kept.is_held());
    within(store.revoke(lease.id)).await.expect("again is no error");
}

pub(crate) async fn a_key_written_without_the_lease_outlives_it(lab: Lab) {
    let store = &*lab.store;
    let lease = within(store.grant(TTL)).await.expect("a lease");
    let other = within(store.grant(Duration::from_secs(600))).await.expect("a lease");
    let leased = Commit::new()
        .put_leased(key("free"), b"x".to_vec(), lease.id)
        .put_leased(key("moved"), b"x".to_vec(), lease.id)
        .put_leased(key("again"), b"x".to_vec(), lease.id)
        .put_leased(key("gone"), b"x".to_vec(), lease.id);
    commit(store, leased).await;
    commit(store, put("free", "y").put_leased(key("moved"), b"y".to_vec(), other.id)).await;
    commit(store, Commit::new().delete(key("again"))).await;
    commit(store, put("again", "y")).await;
    within(store.revoke(lease.id)).await.expect("revoked");
    let left = within(store.snapshot(&key(""))).await.expect("a snapshot");
    let left: Vec<_> = left.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(left, ["again", "free", "moved"]);
    within(store.revoke(other.id)).await.expect("revoked");
    assert_eq!(get(store, "moved").await, None);
}

pub(crate) async fn a_put_under_a_lost_lease_is_refused(lab: Lab) {
    let store = &*lab.store;
    let lease = within(store.grant(TTL)).await.expect("a lease");
    within(store.revoke(lease.id)).await.expect("revoked");
    let before = now(store).await;
    for id in [lease.id, LeaseId(0x7777_7777)] {
        let late = put("plain", "x").put_leased(key("leased"), b"x".to_vec(), id);
        let error = within(store.commit(&late)).await.expect_err("the lease is gone");
        assert_eq!(refusal(&error), &Refusal::LeaseNotFound(id));
    }
    assert_eq!(get(store, "plain").await, None);
    assert!(now(store).await >= before);
}

pub(crate) async fn a_lease_out_of_range_is_refused(lab: Lab) {
    for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(100 * 24 * 60 * 60)] {
        let error = within(lab.store.grant(ttl)).await.expect_err("out of range");
        assert!(matches!(refusal(&error), Refusal::Invalid(_)), "{error}");
    }
}
