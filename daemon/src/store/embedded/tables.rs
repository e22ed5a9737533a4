//! The embedded store's file: its tables, reads of one moment, and the changes of one write transaction.
//! Knows redb; knows nothing of threads, watchers or time.
//!
//! `entries` holds the present. `history` holds, for each change since the last compaction, what the key held *before*
//! it: the past is the present with later changes undone, and what a change wrote is what the next one replaced.

use std::collections::{BTreeMap, HashMap};

use lockstep_apis::commit::{Commit, Compare, Entry, LeaseId, Operation, Revision};
use lockstep_apis::keys::Key;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::store::{Change, Page, Refusal};

/// (create revision, mod revision, lease or 0, value)
type Stored<'a> = (u64, u64, i64, &'a [u8]);

/// (key, what it held before)
type Undo<'a> = (&'a [u8], Option<Stored<'a>>);

const ENTRIES: TableDefinition<'static, &[u8], Stored<'static>> = TableDefinition::new("entries");
/// (revision, index of the change in it) → what undoes it.
const HISTORY: TableDefinition<'static, (u64, u32), Undo<'static>> = TableDefinition::new("history");
/// Lease → its time to live in milliseconds.
const LEASES: TableDefinition<'static, i64, u64> = TableDefinition::new("leases");
const LEASE_KEYS: TableDefinition<'static, (i64, &[u8]), ()> = TableDefinition::new("lease_keys");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

const FORMAT: &str = "format";
const REVISION: &str = "revision";
const COMPACTED: &str = "compacted";
const LAST_LEASE: &str = "last_lease";

/// Of the tables above. Another format is another number, and is refused.
const CURRENT_FORMAT: u64 = 1;

/// As etcd: an empty store is at revision 1, so that 0 is never a revision.
const FIRST_REVISION: Revision = 1;

/// Most bytes of one page's keys and values; one entry more than that is still given.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The file failed, or holds what we did not write.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{0}")]
    Redb(#[from] redb::Error),
    #[error("{0}")]
    Content(String),
}

macro_rules! file_error_from {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for FileError {
            fn from(error: redb::$kind) -> Self {
                FileError::Redb(error.into())
            }
        }
    )*};
}
file_error_from!(StorageError, TableError, TransactionError, CommitError, DatabaseError, SetDurabilityError);

/// Why a read gave nothing.
#[derive(Debug)]
pub(super) enum ReadError {
    File(FileError),
    Compacted(Revision),
    Future(Revision),
}

impl<E: Into<FileError>> From<E> for ReadError {
    fn from(error: E) -> Self {
        ReadError::File(error.into())
    }
}

/// What a key holds, or held.
#[derive(Clone)]
struct Version {
    create: Revision,
    modified: Revision,
    lease: i64,
    value: Vec<u8>,
}

impl Version {
    fn of((create, modified, lease, value): Stored<'_>) -> Self {
        Self { create, modified, lease, value: value.to_vec() }
    }

    fn stored(&self) -> Stored<'_> {
        (self.create, self.modified, self.lease, &self.value)
    }

    fn entry(self, key: Key) -> Entry {
        Entry { key, value: self.value, create_revision: self.create, mod_revision: self.modified }
    }
}

fn key_of(bytes: &[u8]) -> Result<Key, FileError> {
    Key::from_bytes(bytes).ok_or_else(|| FileError::Content("a key that is not UTF-8".into()))
}

/// What is in the file at start.
pub(super) struct Opened {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// All that `history` holds, oldest first; each revision has at least one change.
    pub(super) changes: Vec<Change>,
    /// (lease, time to live in milliseconds)
    pub(super) leases: Vec<(LeaseId, u64)>,
}

/// Makes the tables in a new file; checks the format of an old one.
pub(super) fn prepare(txn: &WriteTransaction) -> Result<(), FileError> {
    let mut meta = txn.open_table(META)?;
    let format = meta.get(FORMAT)?.map(|found| found.value());
    match format {
        None => {
            meta.insert(FORMAT, CURRENT_FORMAT)?;
            meta.insert(REVISION, FIRST_REVISION)?;
            meta.insert(COMPACTED, 0)?;
            meta.insert(LAST_LEASE, 0)?;
        }
        Some(CURRENT_FORMAT) => {}
        Some(other) => {
            let problem = format!("format {other}; this version reads format {CURRENT_FORMAT}");
            return Err(FileError::Content(problem));
        }
    }
    txn.open_table(ENTRIES)?;
    txn.open_table(HISTORY)?;
    txn.open_table(LEASES)?;
    txn.open_table(LEASE_KEYS)?;
    Ok(())
}

/// Reads what the running store keeps in memory.
pub(super) fn load(txn: &ReadTransaction) -> Result<Opened, FileError> {
    let mut leases = Vec::new();
    for row in txn.open_table(LEASES)?.iter()? {
        let (lease, ttl) = row?;
        leases.push((LeaseId(lease.value()), ttl.value()));
    }
    let meta = txn.open_table(META)?;
    let (revision, compacted) = (number(&meta, REVISION)?, number(&meta, COMPACTED)?);
    Ok(Opened { revision, compacted, changes: load_changes(txn, compacted)?, leases })
}

/// From the newest change back: what a change wrote is what its key holds now, or what the next change of it replaced.
fn load_changes(txn: &ReadTransaction, compacted: Revision) -> Result<Vec<Change>, FileError> {
    let entries = txn.open_table(ENTRIES)?;
    let history = txn.open_table(HISTORY)?;
    let mut after: HashMap<Vec<u8>, Option<Version>> = HashMap::new();
    let mut changes = Vec::new();
    for row in history.range((compacted, 0)..)?.rev() {
        let (at, change) = row?;
        let ((revision, _), (key, before)) = (at.value(), change.value());
        let wrote = match after.insert(key.to_vec(), before.map(Version::of)) {
            Some(version) => version,
            None => entries.get(key)?.map(|found| Version::of(found.value())),
        };
        let key = key_of(key)?;
        changes.push(match wrote {
            Some(version) => Change::Put(version.entry(key)),
            None => Change::Delete(key, revision),
        });
    }
    changes.reverse();
    Ok(changes)
}

fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, FileError> {
    let found = meta.get(name)?.map(|found| found.value());
    found.ok_or_else(|| FileError::Content(format!("no {name}")))
}

/// One key, and the revision of the moment.
pub(super) fn get(txn: &ReadTransaction, key: &Key) -> Result<(Option<Entry>, Revision), FileError> {
    let revision = number(&txn.open_table(META)?, REVISION)?;
    let found = txn.open_table(ENTRIES)?.get(key.as_bytes())?.map(|found| Version::of(found.value()));
    Ok((found.map(|version| version.entry(key.clone())), revision))
}

/// A page of a prefix, now or at an older revision.
pub(super) fn list(
    txn: &ReadTransaction,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
    at: Option<Revision>,
) -> Result<Page, ReadError> {
    let meta = txn.open_table(META)?;
    let (now, compacted) = (number(&meta, REVISION)?, number(&meta, COMPACTED)?);
    // 0 is no revision; etcd takes it for "now".
    let revision = at.filter(|at| *at > 0).unwrap_or(now);
    if revision > now {
        return Err(ReadError::Future(revision));
    }
    if revision < compacted {
        return Err(ReadError::Compacted(compacted));
    }
    let begin = match after {
        Some(after) if after >= prefix => [after.as_bytes(), b"\0"].concat(),
        _ => prefix.as_bytes().to_vec(),
    };
    let undone = undo(txn, prefix, &begin, revision)?;
    let mut undone = undone.into_iter().peekable();
    let entries = txn.open_table(ENTRIES)?;
    let mut present = entries.range(begin.as_slice()..)?;
    let mut next_present = || -> Result<Option<(Vec<u8>, Version)>, FileError> {
        let Some(row) = present.next() else { return Ok(None) };
        let (key, version) = row?;
        let within = key.value().starts_with(prefix.as_bytes());
        Ok(within.then(|| (key.value().to_vec(), Version::of(version.value()))))
    };
    let mut page = Page { entries: Vec::new(), revision, more: false };
    let mut bytes = 0;
    let mut current = next_present()?;
    loop {
        // Both sides are in order; where both have a key, the past wins.
        let past_first = match (undone.peek(), &current) {
            (None, None) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((past, _)), Some((key, _))) => past <= key,
        };
        let (key, version) = if past_first {
            let (key, version) = undone.next().expect("peeked");
            if current.as_ref().is_some_and(|(present, _)| *present == key) {
                current = next_present()?;
            }
            (key, version)
        } else {
            let (key, version) = current.take().expect("not past_first, so there is a present");
            current = next_present()?;
            (key, Some(version))
        };
        let Some(version) = version else { continue };
        if page.entries.len() == limit || bytes > MAX_PAGE_BYTES {
            page.more = true;
            break;
        }
        bytes += key.len() + version.value.len();
        page.entries.push(version.entry(key_of(&key)?));
    }
    Ok(page)
}

/// What the keys from `begin` on held at `revision`, of those that changed since. `None`: they were not there.
fn undo(
    txn: &ReadTransaction,
    prefix: &Key,
    begin: &[u8],
    revision: Revision,
) -> Result<BTreeMap<Vec<u8>, Option<Version>>, FileError> {
    let mut undone = BTreeMap::new();
    for row in txn.open_table(HISTORY)?.range((revision + 1, 0)..)? {
        let (_, change) = row?;
        let (key, before) = change.value();
        if key >= begin && key.starts_with(prefix.as_bytes()) {
            undone.entry(key.to_vec()).or_insert_with(|| before.map(Version::of));
        }
    }
    Ok(undone)
}

/// What a judged request did.
pub(super) enum Judged {
    /// It changed these; none: it changed nothing, and made no revision.
    Done(Vec<Change>),
    Conflict,
    Refused(Refusal),
}

/// The tables of one write transaction. What it does is nothing until the transaction commits.
pub(super) struct Writing<'txn> {
    entries: Table<'txn, &'static [u8], Stored<'static>>,
    history: Table<'txn, (u64, u32), Undo<'static>>,
    leases: Table<'txn, i64, u64>,
    lease_keys: Table<'txn, (i64, &'static [u8]), ()>,
    meta: Table<'txn, &'static str, u64>,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

impl<'txn> Writing<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, FileError> {
        let meta = txn.open_table(META)?;
        Ok(Self {
            entries: txn.open_table(ENTRIES)?,
            history: txn.open_table(HISTORY)?,
            leases: txn.open_table(LEASES)?,
            lease_keys: txn.open_table(LEASE_KEYS)?,
            revision: number(&meta, REVISION)?,
            compacted: number(&meta, COMPACTED)?,
            meta,
        })
    }

    /// Writes the counters; the last thing before the transaction's commit.
    pub(super) fn finish(mut self) -> Result<(), FileError> {
        self.meta.insert(REVISION, self.revision)?;
        self.meta.insert(COMPACTED, self.compacted)?;
        Ok(())
    }

    /// Judges a commit against all that was done before it, in this transaction too; does it if it holds.
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<Judged, FileError> {
        for compare in &commit.compares {
            if !self.holds(compare)? {
                return Ok(Judged::Conflict);
            }
        }
        for operation in &commit.operations {
            if let Operation::Put { lease: Some(lease), .. } = operation
                && self.leases.get(lease.0)?.is_none()
            {
                return Ok(Judged::Refused(Refusal::LeaseNotFound(*lease)));
            }
        }
        let mut changes = Vec::new();
        for operation in &commit.operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    self.put(key, value, lease.map_or(0, |lease| lease.0), &mut changes)?;
                }
                Operation::Delete(key) => self.delete(key.as_bytes(), &mut changes)?,
                Operation::DeletePrefix(prefix) => {
                    for key in self.keys_below(prefix)? {
                        self.delete(&key, &mut changes)?;
                    }
                }
            }
        }
        Ok(self.done(changes))
    }

    /// Makes a lease.
    pub(super) fn grant(&mut self, ttl_ms: u64) -> Result<LeaseId, FileError> {
        let lease = number(&self.meta, LAST_LEASE)? + 1;
        self.meta.insert(LAST_LEASE, lease)?;
        let id = i64::try_from(lease).map_err(|_| FileError::Content("out of lease numbers".into()))?;
        self.leases.insert(id, ttl_ms)?;
        Ok(LeaseId(id))
    }

    /// Ends a lease and deletes its keys, in one revision.
    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<Judged, FileError> {
        self.leases.remove(lease.0)?;
        let mut keys = Vec::new();
        for row in self.lease_keys.range((lease.0, [].as_slice())..)? {
            let (row, _) = row?;
            let (of, key) = row.value();
            if of != lease.0 {
                break;
            }
            keys.push(key.to_vec());
        }
        let mut changes = Vec::new();
        for key in keys {
            self.delete(&key, &mut changes)?;
        }
        Ok(self.done(changes))
    }

    /// Forgets history before `revision`; [`Self::trim`] then frees its room bit by bit.
    pub(super) fn compact(&mut self, revision: Revision) -> Judged {
        if revision > self.revision {
            return Judged::Refused(Refusal::FutureRevision(revision));
        }
        self.compacted = self.compacted.max(revision);
        Judged::Done(Vec::new())
    }

    /// Frees at most `most` rows of forgotten history. Returns whether there may be more.
    pub(super) fn trim(&mut self, most: usize) -> Result<bool, FileError> {
        let mut rows = Vec::new();
        for row in self.history.range(..(self.compacted, 0))?.take(most) {
            rows.push(row?.0.value());
        }
        for row in &rows {
            self.history.remove(row)?;
        }
        Ok(rows.len() == most)
    }

    fn done(&mut self, changes: Vec<Change>) -> Judged {
        self.revision += u64::from(!changes.is_empty());
        Judged::Done(changes)
    }

    /// An absent key has revisions 0 and no value, as in etcd.
    fn holds(&self, compare: &Compare) -> Result<bool, FileError> {
        let found = self.entries.get(crate::store::compared(compare).as_bytes())?;
        let stored = found.as_ref().map(|found| found.value());
        Ok(match compare {
            Compare::Absent(_) => stored.is_none(),
            Compare::Present(_) => stored.is_some(),
            Compare::CreateRevision(_, revision) => stored.map_or(0, |(create, ..)| create) == *revision,
            Compare::ModRevision(_, revision) => stored.map_or(0, |(_, modified, ..)| modified) == *revision,
            Compare::Value(_, value) => stored.is_some_and(|(.., held)| held == value.as_slice()),
        })
    }

    fn put(&mut self, key: &Key, value: &[u8], lease: i64, changes: &mut Vec<Change>) -> Result<(), FileError> {
        let revision = self.revision + 1;
        let before = self.entries.get(key.as_bytes())?.map(|found| Version::of(found.value()));
        let create = before.as_ref().map_or(revision, |before| before.create);
        let version = Version { create, modified: revision, lease, value: value.to_vec() };
        self.entries.insert(key.as_bytes(), version.stored())?;
        if lease != 0 {
            self.lease_keys.insert((lease, key.as_bytes()), ())?;
        }
        self.remember(key.as_bytes(), before.as_ref(), lease, changes.len())?;
        changes.push(Change::Put(version.entry(key.clone())));
        Ok(())
    }

    fn delete(&mut self, key: &[u8], changes: &mut Vec<Change>) -> Result<(), FileError> {
        let before = self.entries.remove(key)?.map(|found| Version::of(found.value()));
        if before.is_some() {
            self.remember(key, before.as_ref(), 0, changes.len())?;
            changes.push(Change::Delete(key_of(key)?, self.revision + 1));
        }
        Ok(())
    }

    /// Writes the history of one change, and takes the key from the lease that held it before.
    fn remember(&mut self, key: &[u8], before: Option<&Version>, lease: i64, index: usize) -> Result<(), FileError> {
        if let Some(before) = before
            && before.lease != 0
            && before.lease != lease
        {
            self.lease_keys.remove((before.lease, key))?;
        }
        let index = u32::try_from(index).map_err(|_| FileError::Content("too many changes at once".into()))?;
        self.history.insert((self.revision + 1, index), (key, before.map(Version::stored)))?;
        Ok(())
    }

    fn keys_below(&self, prefix: &Key) -> Result<Vec<Vec<u8>>, FileError> {
        let mut keys = Vec::new();
        for row in self.entries.range(prefix.as_bytes()..)? {
            let (key, _) = row?;
            if !key.value().starts_with(prefix.as_bytes()) {
                break;
            }
            keys.push(key.value().to_vec());
        }
        Ok(keys)
    }
}
