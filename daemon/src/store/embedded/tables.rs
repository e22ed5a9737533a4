//! The embedded store's file: which tables it has and what they hold. With its two neighbours, which read and write
//! them, the only place that knows redb's tables.
//!
//! `entries` holds the present. `history` holds, for each change since the last compaction, what the key held *before*
//! it: the past is the present with later changes undone, and what a change wrote is what the next one replaced.

use lockstep_apis::commit::{Entry, Revision};
use lockstep_apis::keys::Key;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

/// (create revision, mod revision, lease or 0, value)
pub(super) type Stored<'a> = (u64, u64, i64, &'a [u8]);

/// (key, what it held before)
pub(super) type Undo<'a> = (&'a [u8], Option<Stored<'a>>);

pub(super) const ENTRIES: TableDefinition<'static, &[u8], Stored<'static>> = TableDefinition::new("entries");
/// (revision, index of the change in it) → what undoes it.
pub(super) const HISTORY: TableDefinition<'static, (u64, u32), Undo<'static>> = TableDefinition::new("history");
/// Lease → its time to live in milliseconds.
pub(super) const LEASES: TableDefinition<'static, i64, u64> = TableDefinition::new("leases");
pub(super) const LEASE_KEYS: TableDefinition<'static, (i64, &[u8]), ()> = TableDefinition::new("lease_keys");
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

const FORMAT: &str = "format";
pub(super) const REVISION: &str = "revision";
pub(super) const COMPACTED: &str = "compacted";
pub(super) const LAST_LEASE: &str = "last_lease";

/// Of the tables above. Another format is another number, and is refused.
const CURRENT_FORMAT: u64 = 1;

/// As etcd: an empty store is at revision 1, so that 0 is never a revision.
const FIRST_REVISION: Revision = 1;

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

/// What a key holds, or held.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) create: Revision,
    pub(super) modified: Revision,
    pub(super) lease: i64,
    pub(super) value: Vec<u8>,
}

impl Version {
    pub(super) fn of((create, modified, lease, value): Stored<'_>) -> Self {
        Self { create, modified, lease, value: value.to_vec() }
    }

    pub(super) fn stored(&self) -> Stored<'_> {
        (self.create, self.modified, self.lease, &self.value)
    }

    pub(super) fn entry(self, key: Key) -> Entry {
        Entry { key, value: self.value, create_revision: self.create, mod_revision: self.modified }
    }
}

pub(super) fn key_of(bytes: &[u8]) -> Result<Key, FileError> {
    Key::from_bytes(bytes).ok_or_else(|| FileError::Content("a key that is not UTF-8".into()))
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

/// A number of `meta`.
pub(super) fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, FileError> {
    let found = meta.get(name)?.map(|found| found.value());
    found.ok_or_else(|| FileError::Content(format!("no {name}")))
}
