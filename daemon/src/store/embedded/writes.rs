//! The changes of one write transaction of the embedded store's file. What they do is nothing until it commits.

use lockstep_apis::commit::{Commit, Compare, LeaseId, Operation, Revision};
use lockstep_apis::keys::Key;
use redb::{ReadableTable, Table, WriteTransaction};

use super::tables::{
    COMPACTED, ENTRIES, FileError, HISTORY, LAST_LEASE, LEASE_KEYS, LEASES, META, REVISION, Stored, Undo, Version,
    key_of, number,
};
use crate::store::{Change, Refusal};

/// What a judged request did.
pub(super) enum Judged {
    /// It changed these; none: it changed nothing, and made no revision.
    Done(Vec<Change>),
    Conflict,
    Refused(Refusal),
}

/// The tables of one write transaction.
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
