//! What an agent remembers of its cluster between starts: which one, where its servers are, and how far it has seen
//! it. Knows the file; never connects.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{self, FileError};

/// Most addresses that are remembered.
const MAX_SERVERS: usize = 16;

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Membership {
    /// The cluster's id: a server of another one is not ours, whoever signed it.
    pub cluster_id: String,
    /// Where servers are, host:port.
    pub servers: Vec<String>,
    /// The highest incarnation that was seen; an older store is refused.
    pub incarnation: u64,
}

impl Membership {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let bytes = files::read_private(path)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| FileError { path: path.to_owned(), problem: std::io::Error::other(format!("damaged: {e}")) })
    }

    /// Writes the file.
    pub fn store(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(self).expect("invariant: strings and numbers are JSON");
        files::write_private(path, &text)
    }

    /// Takes what a server said about where servers are. Returns whether anything changed. An empty list changes
    /// nothing: it would cut us off.
    pub fn learn(&mut self, servers: &[String], incarnation: u64) -> bool {
        let before = self.clone();
        if !servers.is_empty() {
            self.servers = servers.iter().take(MAX_SERVERS).cloned().collect();
        }
        self.incarnation = self.incarnation.max(incarnation);
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_kept_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        let mut membership = Membership { cluster_id: "c".into(), servers: vec!["a:1".into()], incarnation: 2 };
        assert!(!membership.learn(&[], 1));
        assert!(membership.learn(&["b:1".into()], 3));
        membership.store(&path).unwrap();
        assert_eq!(Membership::load(&path).unwrap(), membership);
        assert_eq!((membership.incarnation, membership.servers.as_slice()), (3, &["b:1".to_owned()][..]));
    }
}
