//! Random sequences of operations, done to both backends: the same answers, lists, watches and revisions. Revisions are
//! compared by their distance from where the sequence began.

use std::time::Duration;

use lockstep_apis::commit::{Commit, Compare, LeaseId, Operation, Revision};
use lockstep_apis::keys::Key;
use lockstep_daemon::store::{Change, Lease, Range, Refusal, Store, StoreError, StoreSettings, open};
use lockstep_tests::etcd::EtcdCluster;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use super::{Lab, key, within};

const CASES: u32 = 60;

/// Seeds that failed once; they are tried first.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store_contract/random.regressions");

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    List { prefix: u8, after: Option<u8>, limit: usize, back: Option<u64> },
    Commit { compares: Vec<Check>, changes: Vec<Act> },
    Grant,
    Revoke(u8),
}

/// `bool`: against what is so now, or against something older.
#[derive(Clone, Debug)]
enum Check {
    Absent(u8),
    Present(u8),
    ModRevision(u8, bool),
    CreateRevision(u8, bool),
    Value(u8, u8),
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8, u8),
    PutLeased(u8, u8, u8),
    Delete(u8),
    DeletePrefix(u8),
}

fn name(index: u8) -> Key {
    key(["a", "a/", "a/b", "a/b/c", "a/é", "a0", "ab", "b/a", "b/b", "c"][usize::from(index)])
}

fn prefix(index: u8) -> Key {
    key(["", "a", "a/", "a/b", "b/", "none/"][usize::from(index)])
}

fn a_step() -> impl Strategy<Value = Step> {
    let names = 0..10u8;
    let check = prop_oneof![
        names.clone().prop_map(Check::Absent),
        names.clone().prop_map(Check::Present),
        (names.clone(), prop::bool::weighted(0.8)).prop_map(|(k, now)| Check::ModRevision(k, now)),
        (names.clone(), prop::bool::weighted(0.8)).prop_map(|(k, now)| Check::CreateRevision(k, now)),
        (names.clone(), 0..3u8).prop_map(|(k, v)| Check::Value(k, v)),
    ];
    let act = prop_oneof![
        6 => (names.clone(), 0..3u8).prop_map(|(k, v)| Act::Put(k, v)),
        3 => (names.clone(), 0..3u8, 0..2u8).prop_map(|(k, v, l)| Act::PutLeased(k, v, l)),
        2 => names.clone().prop_map(Act::Delete),
        1 => (1..6u8).prop_map(Act::DeletePrefix),
    ];
    prop_oneof![
        1 => names.clone().prop_map(Step::Get),
        3 => (0..6u8, prop::option::of(names), 1..6usize, prop::option::of(0..12u64))
            .prop_map(|(prefix, after, limit, back)| Step::List { prefix, after, limit, back }),
        8 => (prop::collection::vec(check, 0..2), prop::collection::vec(act, 0..4))
            .prop_map(|(compares, changes)| Step::Commit { compares, changes }),
        1 => Just(Step::Grant),
        1 => (0..2u8).prop_map(Step::Revoke),
    ]
}

/// One backend in the middle of a sequence.
struct Side<'s> {
    store: &'s dyn Store,
    base: Revision,
    leases: Vec<Lease>,
    newest: Revision,
}

impl<'s> Side<'s> {
    async fn new(store: &'s dyn Store) -> Self {
        let base = super::now(store).await;
        Self { store, base, leases: Vec::new(), newest: base }
    }

    fn relative(&self, revision: Revision) -> i64 {
        revision as i64 - self.base as i64
    }

    fn lease(&self, index: u8) -> LeaseId {
        self.leases.get(usize::from(index)).map_or(LeaseId(0x7fff_ffff), |lease| lease.id)
    }

    /// Does the step; the answer in a form that is the same for both.
    async fn take(&mut self, step: &Step) -> String {
        match step {
            Step::Get(k) => match within(self.store.get(&name(*k))).await {
                Ok(found) => format!("{} @{}", self.entries(found.entry.as_slice()), self.relative(found.revision)),
                Err(error) => self.error(&error),
            },
            Step::List { prefix: of, after, limit, back } => {
                // Never before the sequence: the other root's keys are not there.
                let at = back.map(|back| self.newest.saturating_sub(back).max(self.base));
                let range = Range { after: after.map(name), limit: *limit, at };
                match within(self.store.list(&prefix(*of), range)).await {
                    Ok(page) => {
                        format!("{} more={} @{}", self.entries(&page.entries), page.more, self.relative(page.revision))
                    }
                    Err(error) => self.error(&error),
                }
            }
            Step::Commit { compares, changes } => {
                let mut commit = Commit::new();
                for compare in compares {
                    commit.compares.push(self.compare(compare).await);
                }
                commit.operations.extend(changes.iter().map(|change| self.operation(change)));
                match within(self.store.commit(&commit)).await {
                    Ok(committed) => {
                        self.newest = committed.revision;
                        format!("@{}", self.relative(committed.revision))
                    }
                    Err(error) => self.error(&error),
                }
            }
            Step::Grant => {
                if self.leases.len() < 4 {
                    let lease = within(self.store.grant(Duration::from_secs(3600))).await.expect("a lease");
                    self.leases.push(lease);
                }
                format!("{} leases", self.leases.len())
            }
            Step::Revoke(index) => {
                within(self.store.revoke(self.lease(*index))).await.expect("revoked");
                self.newest = super::now(self.store).await;
                format!("@{}", self.relative(self.newest))
            }
        }
    }

    async fn compare(&self, check: &Check) -> Compare {
        let entry = async |k: u8| within(self.store.get(&name(k))).await.expect("a get").entry;
        match check {
            Check::Absent(k) => Compare::Absent(name(*k)),
            Check::Present(k) => Compare::Present(name(*k)),
            Check::Value(k, v) => Compare::Value(name(*k), vec![b'0' + v]),
            Check::ModRevision(k, now) => {
                let revision = entry(*k).await.map_or(0, |entry| entry.mod_revision);
                Compare::ModRevision(name(*k), if *now { revision } else { self.base })
            }
            Check::CreateRevision(k, now) => {
                let revision = entry(*k).await.map_or(0, |entry| entry.create_revision);
                Compare::CreateRevision(name(*k), if *now { revision } else { self.base })
            }
        }
    }

    fn operation(&self, act: &Act) -> Operation {
        match act {
            Act::Put(k, v) => Operation::Put { key: name(*k), value: vec![b'0' + v], lease: None },
            Act::PutLeased(k, v, lease) => {
                Operation::Put { key: name(*k), value: vec![b'0' + v], lease: Some(self.lease(*lease)) }
            }
            Act::Delete(k) => Operation::Delete(name(*k)),
            Act::DeletePrefix(of) => Operation::DeletePrefix(prefix(*of)),
        }
    }

    /// All changes of the sequence, from a watch of its past.
    async fn changes(&self, of: u8) -> Vec<String> {
        // One more change ends every watch at the same place.
        let end = key(&format!("{}~end", prefix(of)));
        let last = within(self.store.commit(&Commit::new().put(end, Vec::new()))).await.expect("a commit");
        let mut watch = within(self.store.watch(&prefix(of), self.base + 1)).await.expect("a watch");
        let mut seen = Vec::new();
        loop {
            let (revision, changes) = super::next_changes(&mut watch).await;
            seen.push(format!("@{} {:?}", self.relative(revision), self.texts(&changes)));
            if revision >= last.revision {
                return seen;
            }
        }
    }

    fn texts(&self, changes: &[Change]) -> Vec<String> {
        let one = |change: &Change| match change {
            Change::Put(entry) => self.entries(std::slice::from_ref(entry)),
            Change::Delete(key, revision) => format!("-{key} @{}", self.relative(*revision)),
        };
        changes.iter().map(one).collect()
    }

    fn entries(&self, entries: &[lockstep_apis::commit::Entry]) -> String {
        let one = |entry: &lockstep_apis::commit::Entry| {
            let (create, modified) = (self.relative(entry.create_revision), self.relative(entry.mod_revision));
            format!("{}={:?} {create} {modified}", entry.key, entry.value)
        };
        entries.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn error(&self, error: &StoreError) -> String {
        match error {
            StoreError::Definite { refusal: Refusal::LeaseNotFound(_), .. } => "no such lease".into(),
            StoreError::Definite { refusal: Refusal::Invalid(_), .. } => "invalid".into(),
            StoreError::Definite { refusal: Refusal::FutureRevision(at), .. } => {
                format!("future {}", self.relative(*at))
            }
            StoreError::Conflict => "conflict".into(),
            other => panic!("not an error that a sequence may end in: {other:?}"),
        }
    }
}

async fn compare_both(embedded: &dyn Store, etcd: &dyn Store, steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut left, mut right) = (Side::new(embedded).await, Side::new(etcd).await);
    // Most sequences would never find a lease to put under.
    for grant in [Step::Grant, Step::Grant] {
        prop_assert_eq!(left.take(&grant).await, right.take(&grant).await);
    }
    for (index, step) in steps.iter().enumerate() {
        prop_assert_eq!(left.take(step).await, right.take(step).await, "step {}, {:?}", index, step);
    }
    for of in [0, 2] {
        prop_assert_eq!(left.changes(of).await, right.changes(of).await, "watch of {:?}", prefix(of));
    }
    Ok(())
}

#[test]
fn both_backends_answer_a_random_sequence_alike() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    // Its own, with one member: nobody else may make revisions meanwhile.
    let cluster = runtime.block_on(EtcdCluster::start(1)).expect("an etcd");
    let cases = std::cell::Cell::new(0);
    let failures = FileFailurePersistence::Direct(REGRESSIONS);
    let config = Config {
        cases: CASES,
        max_shrink_iters: 300,
        failure_persistence: Some(Box::new(failures)),
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(a_step(), 1..40), |steps| {
        cases.set(cases.get() + 1);
        runtime.block_on(async {
            let embedded = Lab::embedded().await;
            let root = format!("case{}/", cases.get());
            let etcd = open(&StoreSettings::Etcd(cluster.settings(&root))).await.expect("a client");
            compare_both(&*embedded.store, &*etcd, &steps).await
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
