//! What the etcd backend does when members die, stand still, are full or strangers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstep_apis::commit::{Commit, Revision};
use lockstep_daemon::store::{
    Change, KeptLease, MAX_PAGE_ENTRIES, Range, Refusal, Store, StoreError, StoreSettings, WatchEvent, WatchStream,
    open,
};
use lockstep_tests::etcd::EtcdCluster;
use tokio::sync::watch as signal;

use super::{commit, get, key, now, put, refusal, value, within};

async fn opened(cluster: &EtcdCluster) -> Arc<dyn Store> {
    open(&StoreSettings::Etcd(cluster.settings("faults/"))).await.expect("a client")
}

/// How a commit of one key ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Committed(Revision),
    Definitely,
    Perhaps,
}

/// Commits `w/<writer>/<n>` one after the other until told to stop.
async fn write(store: Arc<dyn Store>, writer: u32, stop: signal::Receiver<bool>) -> BTreeMap<String, Ended> {
    let mut ended = BTreeMap::new();
    for number in 0.. {
        if *stop.borrow() {
            break;
        }
        let name = format!("w/{writer}/{number:06}");
        let result = store.commit(&Commit::new().create(key(&name), b"x".to_vec())).await;
        let end = match result {
            Ok(committed) => Ended::Committed(committed.revision),
            Err(StoreError::Indeterminate { .. }) => Ended::Perhaps,
            Err(StoreError::Definite { ref refusal, .. }) if refusal.is_transient() => Ended::Definitely,
            // A conflict would be a commit that was done twice.
            Err(error) => panic!("{name}: {error}"),
        };
        ended.insert(name, end);
    }
    ended
}

/// Clients enough that some are with the leader, whatever chance says: each knows it and one other.
const CLIENTS: usize = 8;

async fn clients_of(cluster: &EtcdCluster, leader: usize) -> Vec<Arc<dyn Store>> {
    let mut settings = cluster.settings("faults/");
    let other = (leader + 1) % cluster.size();
    settings.endpoints = vec![settings.endpoints[leader].clone(), settings.endpoints[other].clone()];
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(open(&StoreSettings::Etcd(settings.clone())).await.expect("a client"));
    }
    clients
}

/// All that a watch of `w/` says until `w/end` is there.
async fn watch_to_end(mut watch: WatchStream) -> Vec<(Revision, String)> {
    let mut seen = Vec::new();
    while let Some(event) = watch.next().await {
        let WatchEvent::Changes { revision, changes } = event.expect("the watch survives") else { continue };
        let [Change::Put(entry)] = changes.as_slice() else { panic!("one put each: {changes:?}") };
        seen.push((revision, entry.key.as_str().to_owned()));
        if entry.key.as_str() == "w/end" {
            break;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_watches_and_leases_survive_the_leaders_death() {
    let mut cluster = EtcdCluster::start(3).await.expect("an etcd");
    let leader = cluster.leader().await.expect("a leader");
    let clients = clients_of(&cluster, leader).await;
    let (mut kept, mut watchers) = (Vec::new(), Vec::new());
    for (index, client) in clients.iter().enumerate() {
        let lease = within(client.grant(Duration::from_secs(5))).await.expect("a lease");
        kept.push(client.keep_alive(lease));
        let leased = Commit::new().put_leased(key(&format!("lease/{index}")), b"x".to_vec(), lease.id);
        let from = commit(&**client, leased).await + 1;
        let watch = within(client.watch(&key("w/"), from)).await.expect("a watch");
        watchers.push(tokio::spawn(watch_to_end(watch)));
    }
    let store = opened(&cluster).await;
    let (stop, stopped) = signal::channel(false);
    let writers: Vec<_> =
        (0..).zip(&clients).map(|(w, client)| tokio::spawn(write(client.clone(), w, stopped.clone()))).collect();
    wait_for_commits(&*store, 200).await;
    cluster.kill(leader).expect("killed");
    let dead = Instant::now();
    let before = within(store.snapshot(&key("w/"))).await.expect("reads are repeated until they succeed").entries.len();
    println!("reads again {:?} after the leader's death", dead.elapsed());
    wait_for_commits(&*store, before + 200).await;
    stop.send(true).expect("the writers listen");
    let mut ended = BTreeMap::new();
    for writer in writers {
        ended.extend(within(writer).await.expect("no panic"));
    }
    // What nobody knows of may come true at any time: what is judged is one revision.
    let end = commit(&*store, put("w/end", "x")).await;
    let there = all_at(&*store, end).await;
    judge(&ended, &there);
    for watcher in watchers {
        let seen = within(watcher).await.expect("no panic");
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "in order, none twice");
        let seen: BTreeMap<_, _> = seen.into_iter().map(|(revision, name)| (name, revision)).collect();
        assert_eq!(seen, there, "the watch missed some, or made some up");
    }
    // Longer than a lease lives unkept, and than a new leader of etcd extends it.
    tokio::time::sleep_until((dead + Duration::from_secs(13)).into()).await;
    assert!(kept.iter().all(KeptLease::is_held));
    assert_eq!(within(store.snapshot(&key("lease/"))).await.expect("a snapshot").entries.len(), CLIENTS);
}

/// All keys below `w/` at the revision.
async fn all_at(store: &dyn Store, revision: Revision) -> BTreeMap<String, Revision> {
    let (mut all, mut range) = (BTreeMap::new(), Range { after: None, limit: MAX_PAGE_ENTRIES, at: Some(revision) });
    loop {
        let page = within(store.list(&key("w/"), range.clone())).await.expect("a list");
        range.after = page.entries.last().map(|entry| entry.key.clone());
        all.extend(page.entries.into_iter().map(|entry| (entry.key.as_str().to_owned(), entry.mod_revision)));
        if !page.more {
            return all;
        }
    }
}

/// What was acknowledged is there, where it was said to be; what was refused is not.
fn judge(ended: &BTreeMap<String, Ended>, there: &BTreeMap<String, Revision>) {
    for (name, end) in ended {
        match (end, there.get(name)) {
            (Ended::Committed(revision), Some(found)) => assert_eq!(revision, found, "{name}"),
            (Ended::Committed(_), None) => panic!("{name} was acknowledged and is lost"),
            (Ended::Definitely, Some(_)) => panic!("{name} was refused and is there"),
            (Ended::Definitely, None) | (Ended::Perhaps, _) => {}
        }
    }
    let count = |wanted: fn(&Ended) -> bool| ended.values().filter(|end| wanted(end)).count();
    println!(
        "{} committed, {} definitely not, {} perhaps",
        count(|end| matches!(end, Ended::Committed(_))),
        count(|end| *end == Ended::Definitely),
        count(|end| *end == Ended::Perhaps)
    );
}

async fn wait_for_commits(store: &dyn Store, count: usize) {
    let enough = async {
        while store.snapshot(&key("w/")).await.map_or(0, |snapshot| snapshot.entries.len()) < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.expect("the writers go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_commit_is_indeterminate_and_may_come_true_later() {
    let cluster = EtcdCluster::start(3).await.expect("an etcd");
    let store = opened(&cluster).await;
    commit(&*store, put("k", "1")).await;
    let lease = within(store.grant(Duration::from_secs(3))).await.expect("a lease");
    let kept = store.keep_alive(lease);
    let from = now(&*store).await + 1;
    let mut watch = within(store.watch(&key("k"), from)).await.expect("a watch");
    let leader = cluster.leader().await.expect("a leader");
    let followers: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    for follower in &followers {
        cluster.pause(*follower).expect("paused");
    }
    let lost = tokio::time::timeout(Duration::from_secs(60), store.commit(&put("k", "2"))).await.expect("it ends");
    assert!(matches!(lost, Err(StoreError::Indeterminate { .. })), "{lost:?}");
    let read = tokio::time::timeout(Duration::from_secs(60), store.get(&key("k"))).await.expect("it ends");
    let read = read.expect_err("no read without a quorum");
    assert!(matches!(refusal(&read), Refusal::Unavailable(_)), "{read}");
    within(kept.lost()).await;
    // It is not silent: an error, and before that at most signs of life.
    let silent = async {
        loop {
            match watch.next().await.expect("an error before the end") {
                Ok(WatchEvent::Progress { .. }) => {}
                Ok(changes) => panic!("nothing changes without a quorum: {changes:?}"),
                Err(error) => return error,
            }
        }
    };
    let error = within(silent).await;
    assert!(matches!(refusal(&error), Refusal::Unavailable(_)), "{error}");
    for follower in followers {
        cluster.resume(follower).expect("resumed");
    }
    cluster.ready().await.expect("a quorum again");
    let found = value(&*store, "k").await.expect("written before");
    assert!(["1", "2"].contains(&found.as_str()), "{found}");
    println!("the indeterminate commit did {}happen", if found == "2" { "" } else { "not " });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_reached_a_member_is_refused_definitely() {
    let mut cluster = EtcdCluster::start(1).await.expect("an etcd");
    let store = opened(&cluster).await;
    commit(&*store, put("k", "1")).await;
    cluster.kill(0).expect("killed");
    // The first may find the old connection half-open; the next ones find none.
    let _ = within(store.commit(&put("k", "2"))).await;
    let error = within(store.commit(&put("k", "3"))).await.expect_err("nobody there");
    assert!(matches!(refusal(&error), Refusal::Unavailable(_)), "{error:?}");
    cluster.restart(0).expect("started");
    cluster.ready().await.expect("ready");
    assert_ne!(value(&*store, "k").await.as_deref(), Some("3"));
    commit(&*store, put("k", "4")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_a_member_that_is_just_starting() {
    let mut cluster = EtcdCluster::start(1).await.expect("an etcd");
    cluster.kill(0).expect("killed");
    let store = opened(&cluster).await;
    let committing = tokio::spawn(async move { commit(&*store, put("k", "1")).await });
    cluster.restart(0).expect("started");
    within(committing).await.expect("it was never sent twice, and is there");
    let store = opened(&cluster).await;
    assert_eq!(value(&*store, "k").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_a_member_that_stands_still_moves_to_another() {
    let cluster = EtcdCluster::start(3).await.expect("an etcd");
    let leader = cluster.leader().await.expect("a leader");
    let follower = (0..3).find(|index| *index != leader).expect("three members");
    let others = opened(&cluster).await;
    let from = now(&*others).await + 1;
    // A client that knows the follower first, and then all.
    let mut settings = cluster.settings("faults/");
    settings.endpoints = vec![settings.endpoints[follower].clone(), settings.endpoints[leader].clone()];
    let mut watches = Vec::new();
    for _ in 0..8 {
        // Which member a client begins with is up to chance: some begin with the follower.
        let store = open(&StoreSettings::Etcd(settings.clone())).await.expect("a client");
        watches.push(within(store.watch(&key("k"), from)).await.expect("a watch"));
    }
    cluster.pause(follower).expect("paused");
    let writing = {
        let mut only = cluster.settings("faults/");
        only.endpoints = vec![only.endpoints[leader].clone()];
        open(&StoreSettings::Etcd(only)).await.expect("a client")
    };
    let revision = commit(&*writing, put("k", "1")).await;
    for watch in &mut watches {
        assert_eq!(super::next_changes(watch).await.0, revision);
    }
    cluster.resume(follower).expect("resumed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_refuses_definitely_and_still_deletes() {
    let cluster = EtcdCluster::start_with(1, &["--quota-backend-bytes", "8388608"]).await.expect("an etcd");
    let store = opened(&cluster).await;
    let mut refused = None;
    for index in 0..30 {
        match within(store.commit(&Commit::new().put(key(&format!("k/{index}")), vec![b'x'; 1_000_000]))).await {
            Ok(_) => {}
            Err(error) => {
                refused = Some((index, error));
                break;
            }
        }
    }
    let (index, error) = refused.expect("8 MiB are full some time");
    assert!(matches!(refusal(&error), Refusal::NoSpace(_)), "{error:?}");
    assert!(refusal(&error).is_transient());
    assert_eq!(get(&*store, &format!("k/{index}")).await, None);
    let lease = within(store.grant(Duration::from_secs(5))).await.expect_err("no lease either");
    assert!(matches!(refusal(&lease), Refusal::NoSpace(_)), "{lease:?}");
    commit(&*store, Commit::new().delete(key("k/0"))).await;
    assert_eq!(get(&*store, "k/0").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_not_let_in_and_not_spoken_to() {
    let cluster = EtcdCluster::start(1).await.expect("an etcd");
    let other = EtcdCluster::start(1).await.expect("another etcd");
    let mut settings = cluster.settings("faults/");
    settings.tls = Some(other.tls());
    let store = open(&StoreSettings::Etcd(settings.clone())).await.expect("a client");
    let first = Range::first(1);
    let error = within(store.list(&key(""), first.clone())).await.expect_err("another CA's member");
    assert!(matches!(refusal(&error), Refusal::Unavailable(_)), "{error}");
    // Trusts the member, but is not one that the member trusts.
    let mixed = settings.tls.as_mut().expect("set above");
    mixed.ca = cluster.tls().ca;
    let store = open(&StoreSettings::Etcd(settings.clone())).await.expect("a client");
    let error = within(store.list(&key(""), first)).await.expect_err("a stranger's certificate");
    assert!(matches!(refusal(&error), Refusal::Unavailable(_)), "{error}");
    settings.tls.as_mut().expect("set above").key = "/nonexistent/key.pem".into();
    let error = open(&StoreSettings::Etcd(settings)).await.err().expect("no such file");
    assert!(error.to_string().contains("/nonexistent/key.pem"), "{error}");
}
