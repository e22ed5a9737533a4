//! Our keys among all keys of an etcd: they all begin with a root of ours, which nobody outside this folder sees.

use std::sync::Arc;

use etcd_client::KeyValue;
use lockstep_apis::commit::Entry;
use lockstep_apis::keys::Key;

use crate::store::Refusal;

#[derive(Clone)]
pub(super) struct Keyspace {
    root: Arc<str>,
}

impl Keyspace {
    pub(super) fn new(root: &str) -> Self {
        Self { root: root.into() }
    }

    /// The key as etcd knows it.
    pub(super) fn full(&self, key: &Key) -> Vec<u8> {
        [self.root.as_bytes(), key.as_bytes()].concat()
    }

    /// From the prefix's first possible key to behind its last.
    pub(super) fn range(&self, prefix: &Key) -> (Vec<u8>, Vec<u8>) {
        let begin = self.full(prefix);
        let end = end_of(&begin);
        // An empty key is none of etcd's; the smallest one is.
        (if begin.is_empty() { vec![0] } else { begin }, end)
    }

    /// The key as we know it.
    pub(super) fn key(&self, full: &[u8]) -> Result<Key, Refusal> {
        let ours = full.strip_prefix(self.root.as_bytes()).and_then(Key::from_bytes);
        ours.ok_or_else(|| Refusal::Damaged(format!("a key that is not ours: {:?}", String::from_utf8_lossy(full))))
    }

    pub(super) fn entry(&self, kv: KeyValue) -> Result<Entry, Refusal> {
        let (create, modified) = (super::revision(kv.create_revision()), super::revision(kv.mod_revision()));
        let key = self.key(kv.key())?;
        let (_, value) = kv.into_key_value();
        Ok(Entry { key, value, create_revision: create, mod_revision: modified })
    }
}

/// The first key behind all that begin with `prefix`; etcd's word for "no end" if there is none.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_behind_the_last_key_of_its_prefix() {
        for (prefix, end) in
            [(b"a/".as_slice(), b"a0".as_slice()), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")]
        {
            assert_eq!(end_of(prefix), end, "{prefix:?}");
        }
    }

    #[test]
    fn keys_outside_of_the_root_are_not_ours() {
        let keyspace = Keyspace::new("lockstep/");
        let key = Key::from_bytes(b"leader").expect("UTF-8");
        assert_eq!(keyspace.full(&key), b"lockstep/leader");
        assert_eq!(keyspace.key(b"lockstep/leader"), Ok(key));
        assert!(keyspace.key(b"elsewhere/leader").is_err());
    }
}
