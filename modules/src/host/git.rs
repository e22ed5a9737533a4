//! Stores of git's objects, one for each directory that something is checked out to: bare repositories that only we can
//! write. What is in them is read by libgit2, blob by blob; nothing is ever checked out by it, and no hook or filter runs.
//! Knows no network: who fetches is told the store's path.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository, RepositoryInitOptions};

use super::{Host, HostError, Kind, TemporaryDirectory, Unsynced};
use crate::checksum;

/// Where stores are, if root works.
const STORES: &str = "/var/cache/lockstep/git";
/// The same for others, below their home.
const OWN_STORES: &str = ".cache/lockstep/git";

/// The commit that the directory has.
const CHECKED_OUT: &str = "refs/lockstep/checked-out";
/// The commit that was fetched last, or a tag of it.
pub(crate) const FETCHED: &str = "refs/lockstep/fetched";

/// Deepest tree that is read.
const DEPTH: usize = 100;

/// Why objects cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitFault {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("{path} keeps what was fetched, but others than its owner can write there; remove it")]
    Untrusted { path: String },
    #[error("could not {operation} in {path}: {source}; if it is broken, remove that directory")]
    Store { operation: &'static str, path: String, source: git2::Error },
    #[error("could not make a directory for what is fetched: {0}")]
    NoTemporary(std::io::Error),
}

impl GitFault {
    /// The class in one word.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            GitFault::Host(error) => error.reason(),
            GitFault::Untrusted { .. } => "UntrustedDirectory",
            GitFault::Store { .. } => "BrokenStore",
            GitFault::NoTemporary(_) => "Failed",
        }
    }
}

/// One name in a commit's tree, with its path from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// May be no text.
    pub(crate) path: Vec<u8>,
    /// As git writes it: 0o100644, 0o40000, 0o120000, 0o160000.
    pub(crate) mode: i32,
    pub(crate) id: Oid,
    /// Of a file or link, in bytes.
    pub(crate) size: u64,
}

/// A bare repository.
pub(crate) struct Store {
    repository: Repository,
    path: PathBuf,
    /// Removes all of it.
    _temporary: Option<TemporaryDirectory>,
}

impl Host {
    /// The store for what is checked out to `path`; `None`: there is none yet, and `make` is not given.
    pub(crate) fn git_store(&self, path: &str, make: Option<&mut Unsynced>) -> Result<Option<Store>, GitFault> {
        let folder = match self.euid() {
            0 => STORES.to_owned(),
            _ => format!("{}/{OWN_STORES}", self.own_user().home.trim_end_matches('/')),
        };
        let sum = checksum::of_bytes(path.as_bytes());
        let name = sum.trim_start_matches("sha256:").get(..32).unwrap_or_default();
        let store = format!("{folder}/{name}.git");
        let place = match self.place(&store, make.is_some()) {
            Err(HostError::ParentMissing { .. }) => return Ok(None),
            place => place?,
        };
        match (place.look()?, make) {
            (None, None) => return Ok(None),
            (None, Some(unsynced)) => self.make_directory(&place, 0o700, self.euid(), gid(), unsynced)?,
            (Some(seen), _) => {
                let is_ours = seen.kind == Kind::Directory && seen.uid == self.euid() && seen.mode & 0o077 == 0;
                if !is_ours || !place.dir.private {
                    return Err(GitFault::Untrusted { path: store });
                }
            }
        }
        let path = PathBuf::from(self.outside(&place.real()));
        Ok(Some(Store { repository: opened(&path)?, path, _temporary: None }))
    }

    /// A store that is gone when it is dropped, for checks: they change nothing.
    pub(crate) fn temporary_git_store(&self) -> Result<Store, GitFault> {
        let temporary = self.temporary_directory().map_err(GitFault::NoTemporary)?;
        let path = temporary.path().to_owned();
        Ok(Store { repository: opened(&path)?, path, _temporary: Some(temporary) })
    }
}

fn gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Opens a repository; makes one in an empty directory, or of one that was begun.
fn opened(path: &Path) -> Result<Repository, GitFault> {
    let failed = |source| GitFault::Store { operation: "make a repository", path: path.display().to_string(), source };
    match Repository::open_bare(path) {
        Ok(repository) => Ok(repository),
        Err(_) => {
            let mut options = RepositoryInitOptions::new();
            options.bare(true).no_reinit(false).mkdir(false).external_template(false);
            Repository::init_opts(path, &options).map_err(failed)
        }
    }
}

impl Store {
    /// Its path, as other programs see it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn fault(&self, operation: &'static str, source: git2::Error) -> GitFault {
        GitFault::Store { operation, path: self.path.display().to_string(), source }
    }

    /// Whether the commit is there.
    pub(crate) fn has(&self, commit: Oid) -> bool {
        self.repository.find_commit(commit).is_ok_and(|commit| commit.tree().is_ok())
    }

    /// The commit that was fetched last.
    pub(crate) fn fetched(&self) -> Result<Oid, GitFault> {
        let failed = |source| self.fault("find what was fetched", source);
        let reference = self.repository.find_reference(FETCHED).map_err(failed)?;
        reference.peel_to_commit().map(|commit| commit.id()).map_err(failed)
    }

    /// The commit that the directory had when it was last made to have one, as far as the store knows.
    pub(crate) fn checked_out(&self) -> Option<Oid> {
        self.repository.find_reference(CHECKED_OUT).ok()?.target().filter(|commit| self.has(*commit))
    }

    /// Notes the commit that the directory has now.
    pub(crate) fn note(&self, commit: Oid) -> Result<(), GitFault> {
        let noted = self.repository.reference(CHECKED_OUT, commit, true, "");
        noted.map_err(|source| self.fault("note what was checked out", source))?;
        // What else was fetched is not needed any more.
        if let Ok(mut fetched) = self.repository.find_reference(FETCHED) {
            fetched.delete().map_err(|source| self.fault("drop what was fetched", source))?;
        }
        Ok(())
    }

    /// Hands out every name of the commit's tree, directories before what is in them, until `visit` has enough.
    pub(crate) fn each<E: From<GitFault>>(
        &self,
        commit: Oid,
        visit: &mut dyn FnMut(Named) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |source| E::from(self.fault("read a tree", source));
        let tree = self.repository.find_commit(commit).and_then(|commit| commit.tree()).map_err(failed)?;
        let odb = self.repository.odb().map_err(failed)?;
        // Subtrees that are still to be read lie behind their own names.
        let mut pending = vec![(Vec::new(), tree.id(), 0)];
        while let Some((prefix, id, depth)) = pending.pop() {
            if depth > DEPTH {
                return Err(failed(git2::Error::from_str("it is deeper than 100 directories")));
            }
            let tree = self.repository.find_tree(id).map_err(failed)?;
            for entry in &tree {
                let mut path: Vec<u8> = prefix.clone();
                path.extend_from_slice(entry.name_bytes());
                let (mode, id) = (entry.filemode_raw(), entry.id());
                let size = match entry.kind() {
                    Some(ObjectType::Blob) => odb.read_header(id).map_err(failed)?.0 as u64,
                    _ => 0,
                };
                if entry.kind() == Some(ObjectType::Tree) {
                    pending.push(([path.as_slice(), b"/"].concat(), id, depth + 1));
                }
                visit(Named { path, mode, id, size })?;
            }
        }
        Ok(())
    }

    /// The content of a file, or the target of a link.
    pub(crate) fn blob(&self, id: Oid) -> Result<Vec<u8>, GitFault> {
        let blob = self.repository.find_blob(id).map_err(|source| self.fault("read a file", source))?;
        Ok(blob.content().to_vec())
    }

    /// Removes what fetches left that were killed.
    pub(crate) fn sweep(&self) {
        for partial in self.partial() {
            // Best effort: what stays is only in the way of space.
            let _ = fs::remove_file(partial);
        }
    }

    /// How much of a fetch that was killed is there.
    pub(crate) fn partial_bytes(&self) -> u64 {
        self.partial().filter_map(|path| Some(fs::metadata(path).ok()?.len())).max().unwrap_or(0)
    }

    fn partial(&self) -> impl Iterator<Item = PathBuf> {
        let packs = fs::read_dir(self.path.join("objects/pack")).into_iter().flatten().flatten();
        packs.filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp_")).map(|entry| entry.path())
    }

    /// How many packs there are: each fetch adds one.
    pub(crate) fn packs(&self) -> usize {
        let packs = fs::read_dir(self.path.join("objects/pack")).into_iter().flatten().flatten();
        packs.filter(|entry| entry.path().extension().is_some_and(|end| end == "pack")).count()
    }
}
