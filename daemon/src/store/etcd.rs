//! The etcd store. The client library neither repeats, nor resumes, nor re-opens anything: the modules below do.
//!
//! Needs etcd 3.4.25, better 3.5.33, 3.6.14 or later: older ones have known faults of watches and leases. With 3.4.23
//! (Debian 12) a watch may miss events; whoever caches what a watch says must compare with a list now and then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, CompactionOptions, Compare as EtcdCompare, CompareOp, ConnectOptions, DeleteOptions, GetOptions,
    Identity, PutOptions, TlsOptions, Txn, TxnOp,
};
use lockstep_apis::commit::{Commit, Compare, LeaseId, Operation, Revision};
use lockstep_apis::keys::Key;
use tokio::sync::{mpsc, oneshot, watch};

use self::keyspace::Keyspace;
use self::members::Members;
use self::watching::Watching;
use super::{
    Committed, Found, Held, KeptLease, Lease, Page, Pending, Range, Refusal, Store, StoreError, Until, WatchStream,
};

mod fault;
mod keeping;
mod keyspace;
mod members;
mod watching;

/// Most bytes of an answer: 128 entries of 1 MiB, or a watch's one message with all that a revision changed.
const MAX_ANSWER_BYTES: usize = 160 * 1024 * 1024;

/// Entries asked for at first: a page of small ones is one request, and of the largest ones fits an answer.
const FIRST_STRIDE: usize = 128;

/// A page that is larger ends.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Events that wait for a slow watcher; the rest waits in etcd.
const QUEUED_EVENTS: usize = 64;

/// Where an etcd is, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    /// One URL per member: `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// Files for mutual TLS; without them the traffic is in clear and anybody can write: for tests only.
    pub tls: Option<EtcdTls>,
    /// What all our keys begin with, so that others can use the same etcd: `lockstep/`.
    pub root: String,
}

impl EtcdSettings {
    /// The usual [`EtcdSettings::root`].
    pub const ROOT: &'static str = "lockstep/";
}

/// Files of PEM text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// The CA that vouches for the members.
    pub ca: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A store in an etcd cluster.
pub struct Etcd {
    members: Arc<Members>,
    keyspace: Keyspace,
}

impl Etcd {
    /// Reads the files and makes the clients; connects to nobody yet. Call within a tokio runtime.
    /// Errors: no endpoints, endpoints or files that cannot work.
    pub async fn open(settings: &EtcdSettings) -> Result<Self, StoreError> {
        let invalid = |problem: String| StoreError::refused("open", Refusal::Invalid(problem));
        if settings.endpoints.is_empty() {
            return Err(invalid("no endpoint of etcd; name at least one".into()));
        }
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_connect_timeout(Duration::from_secs(2))
            // etcd closes connections that ping more often than every 5 s, or that ping while nothing is asked.
            .with_keep_alive(Duration::from_secs(6), Duration::from_secs(3))
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(Duration::from_secs(10));
        if let Some(tls) = &settings.tls {
            options = options.with_tls(tls_options(tls).await.map_err(invalid)?);
        }
        let members = Members::new(&settings.endpoints, &options).await;
        let members = members.map_err(|error| invalid(format!("{}: {error}", settings.endpoints.join(", "))))?;
        Ok(Self { members: Arc::new(members), keyspace: Keyspace::new(&settings.root) })
    }

    async fn page(&self, prefix: &Key, range: Range) -> Result<Page, StoreError> {
        let limit = super::check_range(&range)?;
        let (mut begin, end) = self.keyspace.range(prefix);
        if let Some(after) = range.after.as_ref().filter(|after| *after >= prefix) {
            begin = [self.keyspace.full(after).as_slice(), b"\0"].concat();
        }
        let mut page = Page { entries: Vec::new(), revision: range.at.unwrap_or(0), more: true };
        let (mut bytes, mut stride) = (0, FIRST_STRIDE);
        while page.more && page.entries.len() < limit && bytes <= MAX_PAGE_BYTES {
            let most = stride.min(limit - page.entries.len());
            let mut answer = self.read_range(&begin, &end, most, page.revision).await?;
            let header = answer.header().map_or(0, |header| revision(header.revision()));
            if page.revision == 0 {
                page.revision = header;
            }
            page.more = answer.more();
            for kv in answer.take_kvs() {
                bytes += kv.key().len() + kv.value().len();
                begin = [kv.key(), b"\0"].concat();
                let entry = self.keyspace.entry(kv).map_err(|refusal| StoreError::refused("list", refusal))?;
                page.entries.push(entry);
            }
            // As many more as should fit what is left.
            let average = bytes / page.entries.len().max(1) + 1;
            stride = (MAX_PAGE_BYTES.saturating_sub(bytes) / average).max(1);
        }
        Ok(page)
    }

    async fn read_range(
        &self,
        begin: &[u8],
        end: &[u8],
        limit: usize,
        at: Revision,
    ) -> Result<etcd_client::GetResponse, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let options = GetOptions::new().with_range(end).with_limit(limit).with_revision(etcd_revision(at));
        let read = self.members.read("list", None, |client| {
            let (begin, options) = (begin.to_vec(), options.clone());
            async move { client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES).get(begin, Some(options)).await }
        });
        read.await.map_err(|error| match error {
            // etcd does not say which.
            StoreError::Definite { operation, refusal: Refusal::FutureRevision(_) } => {
                StoreError::refused(operation, Refusal::FutureRevision(at))
            }
            error => error,
        })
    }

    fn txn(&self, commit: &Commit) -> Txn {
        let compares: Vec<_> = commit.compares.iter().map(|compare| self.compare(compare)).collect();
        let operations: Vec<_> = commit.operations.iter().map(|operation| self.operation(operation)).collect();
        Txn::new().when(compares).and_then(operations)
    }

    fn compare(&self, compare: &Compare) -> EtcdCompare {
        let key = self.keyspace.full(super::compared(compare));
        match compare {
            Compare::Absent(_) => EtcdCompare::create_revision(key, CompareOp::Equal, 0),
            Compare::Present(_) => EtcdCompare::create_revision(key, CompareOp::Greater, 0),
            Compare::ModRevision(_, at) => EtcdCompare::mod_revision(key, CompareOp::Equal, etcd_revision(*at)),
            Compare::CreateRevision(_, at) => EtcdCompare::create_revision(key, CompareOp::Equal, etcd_revision(*at)),
            Compare::Value(_, value) => EtcdCompare::value(key, CompareOp::Equal, value.clone()),
        }
    }

    fn operation(&self, operation: &Operation) -> TxnOp {
        match operation {
            Operation::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(self.keyspace.full(key), value.clone(), options)
            }
            Operation::Delete(key) => TxnOp::delete(self.keyspace.full(key), None),
            Operation::DeletePrefix(prefix) => {
                let (begin, end) = self.keyspace.range(prefix);
                TxnOp::delete(begin, Some(DeleteOptions::new().with_range(end)))
            }
        }
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Found> {
        Box::pin(async move {
            super::check_key("get", key)?;
            let full = self.keyspace.full(key);
            let read = self.members.read("get", None, |client| {
                let full = full.clone();
                async move { client.kv_client().get(full, None).await }
            });
            let mut answer = read.await?;
            let found = answer.take_kvs().pop().map(|kv| self.keyspace.entry(kv)).transpose();
            let entry = found.map_err(|refusal| StoreError::refused("get", refusal))?;
            Ok(Found { entry, revision: answer.header().map_or(0, |header| revision(header.revision())) })
        })
    }

    fn list<'a>(&'a self, prefix: &'a Key, range: Range) -> Pending<'a, Page> {
        Box::pin(self.page(prefix, range))
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> Pending<'a, Committed> {
        Box::pin(async move {
            super::check(commit)?;
            let txn = self.txn(commit);
            let lease = commit.operations.iter().find_map(|operation| match operation {
                Operation::Put { lease, .. } => *lease,
                _ => None,
            });
            let write = self.members.write("commit", lease, |client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            });
            let answer = write.await?;
            if !answer.succeeded() {
                return Err(StoreError::Conflict);
            }
            Ok(Committed { revision: answer.header().map_or(0, |header| revision(header.revision())) })
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Key, from: Revision) -> Pending<'a, WatchStream> {
        Box::pin(async move {
            super::check_watch(from)?;
            let (sender, events) = mpsc::channel(QUEUED_EVENTS);
            let (stands, standing) = oneshot::channel();
            let watching = Watching {
                members: self.members.clone(),
                keyspace: self.keyspace.clone(),
                prefix: prefix.clone(),
                next: from,
                events: sender,
            };
            let stream = WatchStream::new(events, tokio::spawn(watching.run(stands)).abort_handle());
            // If it does not stand it says why as its first event.
            let _ = standing.await;
            Ok(stream)
        })
    }

    fn grant(&self, ttl: Duration) -> Pending<'_, Lease> {
        Box::pin(async move {
            super::check_ttl(ttl)?;
            let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
            // Asked twice, the lease that nobody heard of lapses.
            let grant = self
                .members
                .read("grant a lease", None, |client| async move { client.lease_client().grant(seconds, None).await });
            let answer = grant.await?;
            let ttl = Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or(0));
            Ok(Lease { id: LeaseId(answer.id()), ttl })
        })
    }

    fn keep_alive(&self, lease: Lease) -> KeptLease {
        let (teller, held) = watch::channel(Held::Until(Until::unsure(&lease)));
        let task = tokio::spawn(keeping::keep(self.members.clone(), lease, teller));
        KeptLease::new(lease, held, task.abort_handle())
    }

    fn revoke(&self, lease: LeaseId) -> Pending<'_, ()> {
        Box::pin(async move {
            let revoke = self.members.read("revoke a lease", Some(lease), |client| async move {
                client.lease_client().revoke(lease.0).await
            });
            match revoke.await {
                Ok(_) | Err(StoreError::Definite { refusal: Refusal::LeaseNotFound(_), .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn compact(&self, at: Revision) -> Pending<'_, ()> {
        Box::pin(async move {
            let compact = self.members.read("compact", None, |client| async move {
                client.kv_client().compact(etcd_revision(at), Some(CompactionOptions::new())).await
            });
            match compact.await {
                Ok(_) | Err(StoreError::Compacted { .. }) => Ok(()),
                Err(StoreError::Definite { operation, refusal: Refusal::FutureRevision(_) }) => {
                    Err(StoreError::refused(operation, Refusal::FutureRevision(at)))
                }
                Err(error) => Err(error),
            }
        })
    }
}

async fn tls_options(files: &EtcdTls) -> Result<TlsOptions, String> {
    async fn read(path: &Path) -> Result<Vec<u8>, String> {
        tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))
    }
    let ca = Certificate::from_pem(read(&files.ca).await?);
    let identity = Identity::from_pem(read(&files.certificate).await?, read(&files.key).await?);
    Ok(TlsOptions::new().ca_certificate(ca).identity(identity))
}

/// etcd's revisions are signed and never negative.
fn revision(of_etcd: i64) -> Revision {
    u64::try_from(of_etcd).unwrap_or(0)
}

fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
