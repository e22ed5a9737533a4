//! What a commit to the store is: compares, and operations that happen all or not at all.
//! Pure data. The core and the servers make commits; only a store backend carries them out.

use crate::keys::Key;

/// Version of the store: rises by one with every commit that changes something.
pub type Revision = u64;

/// Most operations of one commit; etcd's own limit is 128 with compares counted apart.
pub const MAX_OPERATIONS: usize = 100;

/// Most bytes of one value. etcd refuses requests over 1.5 MiB; snapshots are cut into chunks of half this.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// All compares hold and every operation happens, or nothing does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commit {
    /// All must hold at the moment of the commit.
    pub compares: Vec<Compare>,
    /// At most [`MAX_OPERATIONS`]; no key twice.
    pub operations: Vec<Operation>,
}

/// A condition on one key, judged at the moment of the commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// The key does not exist.
    Absent(Key),
    /// The key exists.
    Present(Key),
    /// The key was last written at this revision.
    ModRevision(Key, Revision),
    /// The key was created at this revision (and not deleted since).
    CreateRevision(Key, Revision),
    /// The key exists and holds exactly these bytes.
    Value(Key, Vec<u8>),
}

/// One change.
#[allow(missing_docs, reason = "fields are named in the comment above them")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a value; under a lease if given, so that it goes when the lease goes.
    Put { key: Key, value: Vec<u8>, lease: Option<LeaseId> },
    /// Deletes a key; nothing happens if it is absent.
    Delete(Key),
    /// Deletes every key with the prefix.
    DeletePrefix(Key),
}

/// Names a lease of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

impl Commit {
    /// A commit without compares or operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a put without a lease.
    pub fn put(mut self, key: Key, value: Vec<u8>) -> Self {
        self.operations.push(Operation::Put { key, value, lease: None });
        self
    }

    /// Adds a put under a lease.
    pub fn put_leased(mut self, key: Key, value: Vec<u8>, lease: LeaseId) -> Self {
        self.operations.push(Operation::Put { key, value, lease: Some(lease) });
        self
    }

    /// Adds a put that is only valid if the key does not exist yet.
    pub fn create(self, key: Key, value: Vec<u8>) -> Self {
        self.when(Compare::Absent(key.clone())).put(key, value)
    }

    /// Adds a delete.
    pub fn delete(mut self, key: Key) -> Self {
        self.operations.push(Operation::Delete(key));
        self
    }
}

/// A key with its value, as a store returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its bytes.
    pub value: Vec<u8>,
    /// When the key was created.
    pub create_revision: Revision,
    /// When it was last written.
    pub mod_revision: Revision,
}

/// A fencing token of leadership: every controller write compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term {
    /// Rises with migrate and restore.
    pub incarnation: u64,
    /// Create revision of the `leader` key.
    pub revision: Revision,
}

impl Term {
    /// The compare that fences a write to this term.
    pub fn compare(self) -> Compare {
        Compare::CreateRevision(crate::keys::leader(), self.revision)
    }
}
