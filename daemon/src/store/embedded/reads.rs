//! Reads of one moment of the embedded store's file, and of its past. Changes nothing.

use std::collections::btree_map::IntoIter;
use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;

use lockstep_apis::commit::{Entry, LeaseId, Revision};
use lockstep_apis::keys::Key;
use redb::{ReadTransaction, ReadableTable};

use super::tables::{COMPACTED, ENTRIES, FileError, HISTORY, LEASES, META, REVISION, Stored, Version, key_of, number};
use crate::store::{Change, Page, Range};

/// Most bytes of one page's keys and values; one entry more than that is still given.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

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

/// What is in the file at start.
pub(super) struct Opened {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// All that `history` holds, oldest first; each revision has at least one change.
    pub(super) changes: Vec<Change>,
    /// (lease, time to live in milliseconds)
    pub(super) leases: Vec<(LeaseId, u64)>,
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

/// One key, and the revision of the moment.
pub(super) fn get(txn: &ReadTransaction, key: &Key) -> Result<(Option<Entry>, Revision), FileError> {
    let revision = number(&txn.open_table(META)?, REVISION)?;
    let found = txn.open_table(ENTRIES)?.get(key.as_bytes())?.map(|found| Version::of(found.value()));
    Ok((found.map(|version| version.entry(key.clone())), revision))
}

/// A page of a prefix, now or at an older revision.
pub(super) fn list(txn: &ReadTransaction, prefix: &Key, range: &Range, limit: usize) -> Result<Page, ReadError> {
    let meta = txn.open_table(META)?;
    let (now, compacted) = (number(&meta, REVISION)?, number(&meta, COMPACTED)?);
    // 0 is no revision; etcd takes it for "now".
    let revision = range.at.filter(|at| *at > 0).unwrap_or(now);
    if revision > now {
        return Err(ReadError::Future(revision));
    }
    if revision < compacted {
        return Err(ReadError::Compacted(compacted));
    }
    let begin = match &range.after {
        Some(after) if after >= prefix => [after.as_bytes(), b"\0"].concat(),
        _ => prefix.as_bytes().to_vec(),
    };
    let entries = txn.open_table(ENTRIES)?;
    let mut past = Past {
        present: entries.range(begin.as_slice()..)?,
        next_present: None,
        undone: undo(txn, prefix, &begin, revision)?.into_iter().peekable(),
        prefix,
    };
    past.advance()?;
    let mut page = Page { entries: Vec::new(), revision, more: false };
    let mut bytes = 0;
    while let Some((key, version)) = past.next()? {
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

/// A key, and what it held; `None`: it was not there.
type Was = (Vec<u8>, Option<Version>);

/// The keys of a prefix as they were: the present ones, and over them what is undone. Both are in order.
struct Past<'p> {
    present: redb::Range<'p, &'static [u8], Stored<'static>>,
    next_present: Option<(Vec<u8>, Version)>,
    undone: Peekable<IntoIter<Vec<u8>, Option<Version>>>,
    prefix: &'p Key,
}

impl Past<'_> {
    /// The next key, in byte order.
    fn next(&mut self) -> Result<Option<Was>, FileError> {
        let present = self.next_present.as_ref().map(|(key, _)| key);
        // Where both have a key, the past wins.
        let undone = self.undone.next_if(|(key, _)| present.is_none_or(|present| key <= present));
        if let Some((key, _)) = &undone
            && present != Some(key)
        {
            return Ok(undone);
        }
        let present = self.next_present.take();
        self.advance()?;
        Ok(undone.or(present.map(|(key, version)| (key, Some(version)))))
    }

    fn advance(&mut self) -> Result<(), FileError> {
        let Some(row) = self.present.next() else { return Ok(()) };
        let (key, version) = row?;
        if key.value().starts_with(self.prefix.as_bytes()) {
            self.next_present = Some((key.value().to_vec(), Version::of(version.value())));
        }
        Ok(())
    }
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
