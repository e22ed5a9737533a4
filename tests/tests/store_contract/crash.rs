//! What the embedded store keeps over restarts and kills, and what it refuses.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstep_apis::commit::Commit;
use lockstep_daemon::store::embedded::EmbeddedSettings;
use lockstep_daemon::store::{Range, Refusal, Store, StoreError, StoreSettings, open};

use super::{commit, get, key, next_changes, now, put, refusal, text, value, within};

/// Set in the process that is killed: the folder that it writes to.
const FOLDER: &str = "LOCKSTEP_STORE_WRITER";

async fn open_in(folder: &Path) -> Arc<dyn Store> {
    let settings = EmbeddedSettings::new(folder.join("sub/store"));
    open(&StoreSettings::Embedded(settings)).await.expect("a store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_entries_history_and_revisions() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_in(folder.path()).await;
    let first = commit(&*store, put("k/a", "1")).await;
    commit(&*store, put("k/b", "1").put(key("k/a"), b"2".to_vec())).await;
    let deleted = commit(&*store, Commit::new().delete(key("k/b"))).await;
    commit(&*store, put("k/a", "3")).await;
    let before = within(store.snapshot(&key(""))).await.expect("a snapshot");
    drop(store);

    let store = open_in(folder.path()).await;
    assert_eq!(within(store.snapshot(&key(""))).await.expect("a snapshot"), before);
    let at = Range { after: None, limit: 10, at: Some(first) };
    assert_eq!(within(store.list(&key(""), at)).await.expect("a list").entries.len(), 1);
    let mut watch = within(store.watch(&key("k/"), first)).await.expect("a watch");
    for seen in [vec!["k/a=1"], vec!["k/b=1", "k/a=2"], vec!["-k/b"], vec!["k/a=3"]] {
        let (revision, changes) = next_changes(&mut watch).await;
        assert_eq!(text(&changes), seen, "@{revision}");
    }
    assert!(commit(&*store, put("k/c", "1")).await > deleted);
    assert_eq!(text(&next_changes(&mut watch).await.1), ["k/c=1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_gives_leases_their_whole_time_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_in(folder.path()).await;
    let lease = within(store.grant(Duration::from_secs(2))).await.expect("a lease");
    let revision = commit(&*store, Commit::new().put_leased(key("l"), b"x".to_vec(), lease.id)).await;
    drop(store);

    let store = open_in(folder.path()).await;
    let opened = Instant::now();
    assert_eq!(value(&*store, "l").await.as_deref(), Some("x"));
    let mut watch = within(store.watch(&key("l"), revision + 1)).await.expect("a watch");
    assert_eq!(text(&next_changes(&mut watch).await.1), ["-l"]);
    assert!(opened.elapsed() >= Duration::from_millis(1_900), "ended after {:?}", opened.elapsed());
    let next = within(store.grant(Duration::from_secs(2))).await.expect("a lease");
    assert_ne!(next.id, lease.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_what_compaction_took_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_in(folder.path()).await;
    let old = commit(&*store, put("k", "1")).await;
    let kept = commit(&*store, put("k", "2")).await;
    commit(&*store, put("k", "3")).await;
    within(store.compact(kept)).await.expect("compacted");
    drop(store);

    let store = open_in(folder.path()).await;
    let mut watch = within(store.watch(&key("k"), old)).await.expect("a stream");
    assert!(matches!(within(watch.next()).await, Some(Err(StoreError::Compacted { revision })) if revision == kept));
    let mut watch = within(store.watch(&key("k"), kept)).await.expect("a watch");
    assert_eq!(text(&next_changes(&mut watch).await.1), ["k=2"]);
    assert_eq!(text(&next_changes(&mut watch).await.1), ["k=3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_beyond_its_limit_is_compacted() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = EmbeddedSettings { path: folder.path().join("store"), history_bytes: 100_000 };
    let store = open(&StoreSettings::Embedded(settings)).await.expect("a store");
    let first = commit(&*store, put("k", "first")).await;
    let mut last = first;
    for _ in 0..100 {
        last = commit(&*store, Commit::new().put(key("k"), vec![b'x'; 10_000])).await;
    }
    let mut watch = within(store.watch(&key("k"), first)).await.expect("a stream");
    let floor = match within(watch.next()).await {
        Some(Err(StoreError::Compacted { revision })) => revision,
        other => panic!("history has no end: {other:?}"),
    };
    assert!(last - floor < 15, "{floor} to {last} are more than the limit");
    let mut watch = within(store.watch(&key("k"), last)).await.expect("a watch");
    assert_eq!(next_changes(&mut watch).await.0, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_open_is_not_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_in(folder.path()).await;
    let settings = EmbeddedSettings::new(folder.path().join("sub/store"));
    let error = open(&StoreSettings::Embedded(settings)).await.err().expect("open already");
    assert!(matches!(refusal(&error), Refusal::Damaged(_)), "{error}");
    assert!(error.to_string().contains("sub/store"), "{error}");
    commit(&*store, put("k", "1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let content = vec![b'?'; 20_000];
    std::fs::write(&path, &content).expect("written");
    let error = open(&StoreSettings::Embedded(EmbeddedSettings::new(&path))).await.err().expect("no store");
    assert!(matches!(refusal(&error), Refusal::Damaged(_)), "{error}");
    assert_eq!(std::fs::read(&path).expect("readable"), content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let _store = open_in(folder.path()).await;
    let mode = |path: &str| std::fs::metadata(folder.path().join(path)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("sub"), mode("sub/store")), (0o700, 0o600));
}

/// Kills a writing process again and again; what it said was committed is there, and each commit is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 1..=5 {
        let test = std::env::current_exe().expect("this program");
        let mut writer = Command::new(test)
            .args(["--exact", "crash::writes_until_killed", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(writer.stdout.take().expect("piped")).lines();
        let mut acknowledged = Vec::new();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("committed ") {
                acknowledged.push(number.parse::<u64>().expect("a number"));
            }
            if acknowledged.len() >= 40 * round {
                break;
            }
        }
        writer.kill().expect("killed");
        writer.wait().expect("reaped");
        assert!(acknowledged.len() >= 40 * round, "it wrote only {}", acknowledged.len());

        let store = open_in(folder.path()).await;
        for number in acknowledged {
            assert!(get(&*store, &format!("left/{number:08}")).await.is_some(), "commit {number} is lost");
        }
        let pairs = |side: &str| {
            let (store, side) = (store.clone(), key(side));
            async move { within(store.snapshot(&side)).await.expect("a snapshot").entries.len() }
        };
        assert_eq!(pairs("left/").await, pairs("right/").await, "half a commit");
        let (revision, entries) = (now(&*store).await, pairs("left/").await as u64);
        assert_eq!(revision, 1 + entries, "each commit one revision");
    }
}

/// Not a test: what the test above kills.
#[test]
#[ignore = "runs only in a process that is killed"]
fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open_in(Path::new(&folder)).await;
        let first = now(&*store).await;
        let writers = (0..8u64).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for index in 0.. {
                    let number = first * 10_000 + index * 8 + writer;
                    let pair = put(&format!("left/{number:08}"), "x").put(key(&format!("right/{number:08}")), vec![1]);
                    commit(&*store, pair).await;
                    let mut out = std::io::stdout().lock();
                    if writeln!(out, "\ncommitted {number}").and_then(|()| out.flush()).is_err() {
                        return;
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("no panic");
        }
    });
}
