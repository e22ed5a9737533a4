//! Three ways of a tree: the commit that is wanted, the one that the directory had, and what is there. What is there and
//! is of neither commit was changed by somebody else, and is not touched without `force`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};

use git2::Oid;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::action::{Done, Outcome, Scope};
use crate::diff;
use crate::file::Attributes;
use crate::host::{GitFault, Host, HostError, Kind as Found, Named, Store};
use crate::module::{Module, Refusal};
use crate::tree::{self, Below, Entry, Kind, Task, stays_inside, unsafe_entry};

/// Files, directories and links of one commit at most.
const ENTRIES: usize = 200_000;

/// Longest file: it is held in memory while it is written.
const FILE_BYTES: u64 = 512 << 20;

/// Longest target of a link, as in `symlink(7)`.
const TARGET_BYTES: u64 = 4095;

/// How a file begins that stands for one in Git LFS, and how long one is.
const LFS: (&[u8], std::ops::Range<u64>) = (b"version https://git-lfs.github.com/spec/", 60..1024);

/// What a book asks for, with the commit found.
pub(super) struct Checkout<'a> {
    pub(super) path: String,
    pub(super) commit: Oid,
    /// Where the directory's commit is noted; `None` only in a check.
    pub(super) store: Option<&'a Store>,
    /// Where the wanted commit is.
    pub(super) objects: &'a Store,
    pub(super) attributes: Attributes,
    pub(super) force: bool,
    pub(super) skip_submodules: bool,
    pub(super) max_bytes: u64,
}

impl From<GitFault> for Refusal {
    fn from(fault: GitFault) -> Refusal {
        match fault {
            GitFault::Host(error) => error.into(),
            fault => Refusal::Module { reason: fault.reason(), message: fault.to_string() },
        }
    }
}

/// A commit's tree, by path.
type Tree = BTreeMap<String, (Entry, Oid)>;

/// What there is to do.
pub(super) struct Plan {
    makes_top: bool,
    before: Option<Oid>,
    /// What the former commit had and this one has not, deepest first.
    removals: Vec<Entry>,
    tasks: Vec<(Entry, Oid, Task)>,
    /// What somebody else changed and would be lost.
    conflicts: Vec<String>,
}

impl Checkout<'_> {
    fn below(&self) -> Below<'_> {
        Below { path: &self.path, attributes: &self.attributes }
    }

    /// The tree of a commit, if all of it can be made without harm.
    fn tree(&self, store: &Store, commit: Oid) -> Result<Tree, Refusal> {
        let (mut tree, mut bytes) = (Tree::new(), 0u64);
        store.each(commit, &mut |named| {
            bytes = bytes.saturating_add(named.size);
            if tree.len() >= ENTRIES || bytes > self.max_bytes {
                let message = format!(
                    "the commit holds more than {ENTRIES} names or {} bytes; raise maxBytes if that is meant",
                    self.max_bytes
                );
                return Err(Refusal::Module { reason: "RepositoryTooLarge", message });
            }
            let id = named.id;
            if let Some(entry) = self.entry(store, named)? {
                tree.insert(entry.path.clone(), (entry, id));
            }
            Ok(())
        })?;
        let entries: Vec<Entry> = tree.values().map(|(entry, _)| entry.clone()).collect();
        tree::check_tree(&entries)?;
        Ok(tree)
    }

    fn entry(&self, store: &Store, named: Named) -> Result<Option<Entry>, Refusal> {
        let path = name(named.path)?;
        let (mode, kind) = match named.mode {
            0o040_000 => (0o755, Kind::Directory),
            0o100_755 => (0o755, Kind::File { size: named.size }),
            0o100_644 | 0o100_664 => (0o644, Kind::File { size: named.size }),
            0o120_000 if named.size <= TARGET_BYTES => {
                let target = String::from_utf8(store.blob(named.id)?).unwrap_or_default();
                if !stays_inside(&target, path.matches('/').count()) {
                    return Err(unsafe_entry(format!("the link {path:?} leads out of the directory, to {target:?}")));
                }
                (0o777, Kind::Link { target })
            }
            0o160_000 if self.skip_submodules => return Ok(None),
            0o160_000 => {
                let message =
                    format!("{path} is a submodule, which is not fetched; skipSubmodules: true leaves it out");
                return Err(Refusal::Module { reason: "Submodule", message });
            }
            mode => return Err(unsafe_entry(format!("{path:?} is of a kind that is not made, {mode:o}"))),
        };
        if named.size > FILE_BYTES {
            let message = format!("{path} has {} bytes; at most {FILE_BYTES} are taken", named.size);
            return Err(Refusal::Module { reason: "RepositoryTooLarge", message });
        }
        Ok(Some(Entry { path, mode, kind }))
    }

    /// What of an entry differs on the machine.
    fn state(&self, (entry, id): &(Entry, Oid), host: &Host) -> Result<State, Refusal> {
        let size = match entry.kind {
            Kind::File { size } => size,
            _ => 0,
        };
        let found = self.below().compare(entry, host, &mut |file| Ok(blob_id(file, size)? == id.as_bytes()));
        Ok(match found {
            Ok(None) => State::Same,
            Ok(Some(task)) => State::Task(task),
            Err(HostError::WrongKind { found: Found::Directory, .. }) => State::Directory,
            Err(HostError::WrongKind { .. } | HostError::HardLinked { .. }) => State::Other,
            Err(HostError::ParentNotDirectory { .. } | HostError::LinkInTheWay { .. }) => State::Unreachable,
            Err(error) => return Err(error.into()),
        })
    }

    /// What the former commit had, and this one has not or has as something else.
    fn removals(&self, old: &Tree, new: &Tree, host: &Host, plan: &mut Plan) -> Result<(), Refusal> {
        let same_kind = |a: &Kind, b: &Kind| std::mem::discriminant(a) == std::mem::discriminant(b);
        let stays = |path: &str, kind: &Kind| new.get(path).is_some_and(|(entry, _)| same_kind(&entry.kind, kind));
        for (path, known) in old.iter().rev().filter(|(path, (entry, _))| !stays(path, &entry.kind)) {
            match self.state(known, host)? {
                State::Same | State::Task(Task::Attributes) => plan.removals.push(known.0.clone()),
                State::Task(Task::Make) | State::Unreachable | State::Directory => {}
                // Of a directory only what is in it matters, and that is looked at by itself.
                State::Other if known.0.kind == Kind::Directory => {}
                State::Task(Task::Replace) | State::Other => {
                    plan.conflicts.push(path.clone());
                    plan.removals.push(known.0.clone());
                }
            }
        }
        Ok(())
    }

    fn compare(&self, old: &Tree, new: &Tree, host: &Host, plan: &mut Plan) -> Result<(), Refusal> {
        let gone: BTreeSet<String> = plan.removals.iter().map(|entry| entry.path.clone()).collect();
        for (path, wanted) in new {
            let mut ancestors = path.match_indices('/').map(|(at, _)| &path[..at]);
            let task = if gone.contains(path) || ancestors.any(|parent| gone.contains(parent)) {
                Task::Make
            } else {
                match self.state(wanted, host)? {
                    State::Same => continue,
                    State::Task(Task::Replace) => {
                        let is_ours = match old.get(path) {
                            None => false,
                            Some(known) => {
                                matches!(self.state(known, host)?, State::Same | State::Task(Task::Attributes))
                            }
                        };
                        if !is_ours {
                            plan.conflicts.push(path.clone());
                        }
                        Task::Replace
                    }
                    State::Task(task) => task,
                    State::Other if wanted.0.kind == Kind::Directory => {
                        // Whatever is there goes first; as a file or link it can.
                        plan.conflicts.push(path.clone());
                        plan.removals.push(wanted.0.clone());
                        Task::Make
                    }
                    State::Other => {
                        plan.conflicts.push(path.clone());
                        Task::Replace
                    }
                    State::Directory => {
                        let (path, found) = (self.below().path_of(path), Found::Directory);
                        return Err(HostError::WrongKind { path, found, wanted: Found::File }.into());
                    }
                    // What is in the way is told where it is itself compared, or is of nobody's tree.
                    State::Unreachable => Task::Make,
                }
            };
            self.check_lfs(wanted)?;
            plan.tasks.push((wanted.0.clone(), wanted.1, task));
        }
        Ok(())
    }

    /// A file that only says where in Git LFS the real one is would be of no use to anybody.
    fn check_lfs(&self, (entry, id): &(Entry, Oid)) -> Result<(), Refusal> {
        match entry.kind {
            Kind::File { size } if LFS.1.contains(&size) && self.objects.blob(*id)?.starts_with(LFS.0) => {
                let message = format!("{} is kept in Git LFS, which is not fetched", entry.path);
                Err(Refusal::Module { reason: "LfsPointer", message })
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, entry: &Entry, scope: &mut Scope<'_>) -> Result<(), Done> {
        let place = self.below().place(&entry.path, scope.host, false)?;
        let Some(seen) = place.look()? else { return Ok(()) };
        match scope.host.remove(&place, &seen, false, scope.unsynced) {
            // What others put there keeps it.
            Err(HostError::NotEmpty { .. }) if entry.kind == Kind::Directory => Ok(()),
            removed => Ok(removed?),
        }
    }
}

/// How the machine is to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Same,
    Task(Task),
    /// Something of another kind is there, or a file with several names.
    Other,
    /// A directory is there, where none should be.
    Directory,
    /// The way there leads through what is no directory.
    Unreachable,
}

/// The path of an entry as text, if no part of it means something to git, a terminal or the file system.
fn name(path: Vec<u8>) -> Result<String, Refusal> {
    let path = String::from_utf8(path).map_err(|error| {
        unsafe_entry(format!("a file's name is no UTF-8: {:?}", String::from_utf8_lossy(error.as_bytes())))
    })?;
    let is_bad = |part: &str| {
        matches!(part, "" | "." | "..")
            || part.eq_ignore_ascii_case(".git")
            || part.len() > 255
            || part.contains(char::is_control)
    };
    if path.split('/').any(is_bad) {
        return Err(unsafe_entry(format!("{path:?} is no name for a file of a checkout")));
    }
    Ok(path)
}

/// What git calls a file of that length and content.
fn blob_id(file: &mut File, size: u64) -> io::Result<[u8; 20]> {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {size}\0").as_bytes());
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => context.update(&buffer[..length]),
        }
    }
    let mut id = [0; 20];
    id.copy_from_slice(context.finish().as_ref());
    Ok(id)
}

fn short(commit: Oid) -> String {
    commit.to_string().chars().take(12).collect()
}

impl Module for Checkout<'_> {
    type Observed = Plan;
    type Change = ();

    fn path(&self) -> &str {
        &self.path
    }

    fn observe(&self, host: &Host) -> Result<Plan, Refusal> {
        let makes_top = self.below().is_missing(host)?;
        let before = self.store.and_then(|store| Some((store, store.checked_out()?)));
        let new = self.tree(self.objects, self.commit)?;
        let old = match before {
            Some((store, before)) if before != self.commit => self.tree(store, before)?,
            Some(_) => new.clone(),
            None => Tree::new(),
        };
        let before = before.map(|(_, before)| before);
        let mut plan = Plan { makes_top, before, removals: Vec::new(), tasks: Vec::new(), conflicts: Vec::new() };
        self.removals(&old, &new, host, &mut plan)?;
        self.compare(&old, &new, host, &mut plan)?;
        Ok(plan)
    }

    fn difference(&self, _host: &Host, plan: &Plan) -> Result<Option<()>, Refusal> {
        if !self.force && !plan.conflicts.is_empty() {
            let first: Vec<&str> = plan.conflicts.iter().take(3).map(String::as_str).collect();
            let more = if plan.conflicts.len() > 3 { ", …" } else { "" };
            let message = format!(
                "{} of {} were changed or made by somebody else: {}{more}; force: true overwrites them",
                plan.conflicts.len(),
                self.path,
                first.join(", ")
            );
            return Err(Refusal::Module { reason: "LocalChanges", message });
        }
        let differs = plan.makes_top || !plan.tasks.is_empty() || !plan.removals.is_empty();
        Ok((differs || plan.before != Some(self.commit)).then_some(()))
    }

    fn summary(&self, plan: &Plan, (): &()) -> String {
        let mut parts = Vec::new();
        if !plan.tasks.is_empty() {
            parts.push(tree::counted(plan.tasks.iter().map(|(_, _, task)| *task)));
        }
        if !plan.removals.is_empty() {
            parts.push(format!("{} removed", plan.removals.len()));
        }
        if parts.is_empty() {
            parts.push("no file differs".to_owned());
        }
        let commit = match plan.before.filter(|before| *before != self.commit) {
            Some(before) => format!("{} → {}", short(before), short(self.commit)),
            None => short(self.commit),
        };
        format!("{commit}: {}", parts.join(", "))
    }

    fn show(&self, _host: &Host, plan: &Plan, (): &(), _sensitive: bool) -> String {
        let mut text = format!("{}: {}\n", self.path, self.summary(plan, &()));
        for entry in &plan.removals {
            text.push_str(&format!("{}: removed\n", self.below().path_of(&entry.path)));
        }
        for (entry, _, task) in &plan.tasks {
            text.push_str(&format!("{}: {}\n", self.below().path_of(&entry.path), task.word()));
        }
        diff::bounded(text)
    }

    fn apply(&self, plan: Plan, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        if plan.makes_top {
            self.below().make(scope)?;
        }
        for entry in &plan.removals {
            self.remove(entry, scope)?;
        }
        for (entry, id, task) in &plan.tasks {
            if scope.cancel.is_thrown() {
                return Err(Done::new(
                    Outcome::Cancelled,
                    "cancelled while files were written; a next run goes on",
                    [],
                ));
            }
            let content = match (&entry.kind, task) {
                (Kind::File { .. }, Task::Make | Task::Replace) => self.objects.blob(*id)?,
                _ => Vec::new(),
            };
            self.below().put(entry, *task, &mut content.as_slice(), scope)?;
        }
        match self.store {
            Some(store) => Ok(store.note(self.commit)?),
            None => Ok(()),
        }
    }
}
