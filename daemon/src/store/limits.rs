//! What every backend refuses before it looks at what is stored, so that both refuse the same. Limits of the store's
//! own; those of a commit's parts are with the commit.

use std::collections::BTreeSet;
use std::time::Duration;

use lockstep_apis::commit::{Commit, Compare, MAX_OPERATIONS, MAX_VALUE_BYTES, Operation, Revision};
use lockstep_apis::keys::Key;

use super::{Range, Refusal, StoreError};

/// Most entries of one page; what asks for more gets this many and `more`.
pub const MAX_PAGE_ENTRIES: usize = 10_000;

/// Most bytes of a key, the etcd root not counted: uids, names and kinds are short, and a key must fit a page.
pub const MAX_KEY_BYTES: usize = 2048;

/// Most bytes of one commit's keys and values together, compared ones too: etcd refuses requests over 1.5 MiB.
pub const MAX_COMMIT_BYTES: usize = 1_400_000;

/// What every backend refuses before it looks at its data, so that both refuse the same.
pub(crate) fn check(commit: &Commit) -> Result<(), StoreError> {
    let invalid = |problem: String| Err(StoreError::refused("commit", Refusal::Invalid(problem)));
    let large = |problem: String| Err(StoreError::refused("commit", Refusal::TooLarge(problem)));
    for count in [commit.operations.len(), commit.compares.len()] {
        if count > MAX_OPERATIONS {
            return large(format!("{count} operations or compares in one commit; {MAX_OPERATIONS} is the most"));
        }
    }
    let compared_bytes = |compare: &Compare| match compare {
        Compare::Value(_, value) => value.len(),
        _ => 0,
    };
    let mut bytes: usize = commit.compares.iter().map(compared_bytes).sum();
    let mut keys = BTreeSet::new();
    let mut prefixes = Vec::new();
    for operation in &commit.operations {
        let (key, value) = match operation {
            Operation::Put { key, value, .. } => (key, value.len()),
            Operation::Delete(key) | Operation::DeletePrefix(key) => (key, 0),
        };
        check_key("commit", key)?;
        if value > MAX_VALUE_BYTES {
            return large(format!("{value} bytes in {key}; {MAX_VALUE_BYTES} is the most"));
        }
        bytes += key.as_bytes().len() + value;
        if let Operation::DeletePrefix(prefix) = operation {
            prefixes.push(prefix);
        }
        if !keys.insert(key) {
            return invalid(format!("{key} twice in one commit"));
        }
    }
    if bytes > MAX_COMMIT_BYTES {
        return large(format!("{bytes} bytes in one commit; {MAX_COMMIT_BYTES} is the most"));
    }
    for prefix in prefixes {
        // The first key that is not below the prefix ends the range; the prefix itself is its first.
        let below = keys.range::<&Key, _>(prefix..).take_while(|key| key.as_str().starts_with(prefix.as_str()));
        if below.count() > 1 {
            return invalid(format!("a key below {prefix} in one commit with its prefix"));
        }
    }
    commit.compares.iter().try_for_each(|compare| check_key("commit", compared(compare)))
}

/// The key that a compare is about.
pub(crate) fn compared(compare: &Compare) -> &Key {
    match compare {
        Compare::Absent(key)
        | Compare::Present(key)
        | Compare::ModRevision(key, _)
        | Compare::CreateRevision(key, _)
        | Compare::Value(key, _) => key,
    }
}

pub(crate) fn check_key(operation: &'static str, key: &Key) -> Result<(), StoreError> {
    match key.as_bytes().len() {
        0 => Err(StoreError::refused(operation, Refusal::Invalid("an empty key".into()))),
        1..=MAX_KEY_BYTES => Ok(()),
        n => Err(StoreError::refused(operation, Refusal::TooLarge(format!("a key of {n} bytes")))),
    }
}

pub(crate) fn check_range(range: &Range) -> Result<usize, StoreError> {
    match range.limit {
        0 => Err(StoreError::refused("list", Refusal::Invalid("a page of no entries".into()))),
        limit => Ok(limit.min(MAX_PAGE_ENTRIES)),
    }
}

pub(crate) fn check_watch(from: Revision) -> Result<(), StoreError> {
    match from {
        0 => {
            Err(StoreError::refused("watch", Refusal::Invalid("a watch from revision 0; revisions begin at 1".into())))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_ttl(ttl: Duration) -> Result<(), StoreError> {
    /// etcd's own limit is higher; nothing of ours is meant to outlive its holder by a day.
    const MOST: Duration = Duration::from_secs(24 * 60 * 60);
    if (Duration::from_secs(1)..=MOST).contains(&ttl) {
        return Ok(());
    }
    let problem = format!("a lease of {ttl:?}; it lives from 1 s to a day");
    Err(StoreError::refused("grant a lease", Refusal::Invalid(problem)))
}
