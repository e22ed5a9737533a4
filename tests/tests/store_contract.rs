//! The store's contract, held against both backends: the embedded one, and a real three-member etcd with mutual TLS.
//! A property is one function; the table at the end runs it on each. Faults and random sequences have their own files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockstep_apis::commit::{Commit, Entry, Revision};
use lockstep_apis::keys::Key;
use lockstep_daemon::store::embedded::EmbeddedSettings;
use lockstep_daemon::store::{Change, Found, Store, StoreError, StoreSettings, WatchEvent, WatchStream, open};
use lockstep_tests::etcd::EtcdCluster;
use tokio::sync::OnceCell;

#[path = "store_contract/commits.rs"]
mod commits;
#[path = "store_contract/crash.rs"]
mod crash;
#[path = "store_contract/faults.rs"]
mod faults;
#[path = "store_contract/leases.rs"]
mod leases;
#[path = "store_contract/lists.rs"]
mod lists;
#[path = "store_contract/random.rs"]
mod random;
#[path = "store_contract/watches.rs"]
mod watches;

/// Longest that anything here may take that is not meant to wait.
const SOON: Duration = Duration::from_secs(30);

/// A store to test, with what must outlive it.
struct Lab {
    store: Arc<dyn Store>,
    _folder: Option<tempfile::TempDir>,
    _cluster: Option<EtcdCluster>,
}

impl Lab {
    async fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = EmbeddedSettings::new(folder.path().join("store"));
        let store = open(&StoreSettings::Embedded(settings)).await.expect("a new store");
        Self { store, _folder: Some(folder), _cluster: None }
    }

    /// A root of its own in the cluster that all tests share, so never to be compacted.
    async fn etcd() -> Self {
        static CLUSTER: OnceCell<EtcdCluster> = OnceCell::const_new();
        static ROOTS: AtomicUsize = AtomicUsize::new(0);
        let cluster = CLUSTER.get_or_init(|| async { EtcdCluster::start(3).await.expect("an etcd") }).await;
        let root = format!("test{}/", ROOTS.fetch_add(1, Ordering::Relaxed));
        let store = open(&StoreSettings::Etcd(cluster.settings(&root))).await.expect("a client");
        Self { store, _folder: None, _cluster: None }
    }

    /// A cluster of its own.
    async fn own_etcd() -> Self {
        let cluster = EtcdCluster::start(3).await.expect("an etcd");
        let store = open(&StoreSettings::Etcd(cluster.settings("own/"))).await.expect("a client");
        Self { store, _folder: None, _cluster: Some(cluster) }
    }
}

fn key(text: &str) -> Key {
    Key::from_bytes(text.as_bytes()).expect("a str is UTF-8")
}

fn put(name: &str, value: &str) -> Commit {
    Commit::new().put(key(name), value.into())
}

async fn commit(store: &dyn Store, commit: Commit) -> Revision {
    within(store.commit(&commit)).await.expect("a commit").revision
}

async fn get(store: &dyn Store, name: &str) -> Option<Entry> {
    let Found { entry, .. } = within(store.get(&key(name))).await.expect("a get");
    entry
}

async fn value(store: &dyn Store, name: &str) -> Option<String> {
    get(store, name).await.map(|entry| String::from_utf8(entry.value).expect("the tests write text"))
}

async fn now(store: &dyn Store) -> Revision {
    within(store.get(&key("nothing"))).await.expect("a get").revision
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("it ends soon")
}

/// The next changes, without signs of life.
async fn next_changes(watch: &mut WatchStream) -> (Revision, Vec<Change>) {
    loop {
        match within(watch.next()).await.expect("the watch goes on").expect("no error") {
            WatchEvent::Changes { revision, changes } => return (revision, changes),
            WatchEvent::Progress { .. } => {}
        }
    }
}

/// `name=value` or `-name`, for short assertions.
fn text(changes: &[Change]) -> Vec<String> {
    let one = |change: &Change| match change {
        Change::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Change::Delete(key, _) => format!("-{key}"),
    };
    changes.iter().map(one).collect()
}

fn refusal(error: &StoreError) -> &lockstep_daemon::store::Refusal {
    match error {
        StoreError::Definite { refusal, .. } => refusal,
        error => panic!("not a definite refusal: {error:?}"),
    }
}

macro_rules! on_both {
    ($etcd:ident: $($module:ident::$property:ident),* $(,)?) => {
        mod $etcd {
            mod embedded {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $property() { crate::$module::$property(crate::Lab::embedded().await).await })*
            }
            mod etcd {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $property() { crate::$module::$property(crate::Lab::$etcd().await).await })*
            }
        }
    };
}

on_both! { etcd:
    commits::a_commit_happens_whole_or_not_at_all,
    commits::compares_hold_as_documented,
    commits::of_racing_creates_one_wins,
    commits::commits_in_flight_together_have_revisions_of_their_own,
    commits::a_key_keeps_its_create_revision_until_it_is_deleted,
    commits::a_commit_that_changes_nothing_makes_no_revision,
    commits::what_breaks_the_rules_is_refused_whole,
    commits::the_largest_commit_is_accepted,
    commits::delete_prefix_deletes_what_is_below_and_nothing_else,
    lists::pages_are_in_byte_order_and_complete,
    lists::later_pages_are_of_the_first_ones_revision,
    lists::a_list_of_the_past_shows_what_was,
    lists::a_list_of_the_future_is_refused,
    lists::large_entries_come_in_more_pages,
    lists::a_snapshot_is_of_one_revision,
    watches::a_watch_gives_each_revision_once_and_whole,
    watches::a_watch_of_the_past_begins_there,
    watches::a_watch_of_the_future_waits_for_it,
    watches::a_slow_watcher_misses_nothing,
    watches::a_quiet_watch_says_that_it_lives,
    watches::a_watch_from_revision_zero_is_refused,
    leases::a_lease_ends_with_all_its_keys_at_once,
    leases::a_kept_lease_outlives_its_time,
    leases::revoking_deletes_and_tells_the_keeper,
    leases::a_key_written_without_the_lease_outlives_it,
    leases::a_put_under_a_lost_lease_is_refused,
    leases::a_lease_out_of_range_is_refused,
}

on_both! { own_etcd:
    lists::compaction_takes_the_past_and_nothing_else,
    watches::a_watch_of_a_compacted_past_ends_at_once,
}
