//! A tree of files below a directory: what it holds, what of that differs from the machine, and how one entry is put
//! there. Knows not where the content comes from: archives and git have that in common.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use crate::action::{Done, Scope};
use crate::file::Attributes;
use crate::host::{Host, HostError, Kind as Found, Place, Replacement, Seen};
use crate::module::Refusal;

/// One entry, with its path below the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File { size: u64 },
    Directory,
    Link { target: String },
}

/// A refusal of an entry that nothing may be made of.
pub(crate) fn unsafe_entry(message: String) -> Refusal {
    Refusal::Module { reason: "UnsafeEntry", message }
}

/// The names of a relative path without `..`.
pub(crate) fn plain_parts(name: &str) -> Option<Vec<&str>> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then_some(parts)
}

/// Whether a link in a directory `depth` levels deep points into the tree: up first, if at all, then only down.
pub(crate) fn stays_inside(target: &str, depth: usize) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut parts = target.split('/').filter(|part| !matches!(*part, "" | ".")).peekable();
    let mut up = 0;
    while parts.next_if(|part| *part == "..").is_some() {
        up += 1;
    }
    up <= depth && parts.all(|part| part != "..")
}

/// Refuses archives that name a path twice, or that put something below a file or link of their own.
pub(crate) fn check_tree(entries: &[Entry]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for entry in entries.iter().filter(|entry| entry.kind != Kind::Directory) {
        if !seen.insert(entry.path.as_str()) {
            return Err(unsafe_entry(format!("{:?} is there twice; which one is meant?", entry.path)));
        }
    }
    for entry in entries {
        let ancestors = entry.path.match_indices('/').map(|(at, _)| &entry.path[..at]);
        let own = (entry.kind == Kind::Directory).then_some(entry.path.as_str());
        if let Some(parent) = ancestors.chain(own).find(|parent| seen.contains(parent)) {
            return Err(unsafe_entry(format!("{:?} is below {parent:?}, which is no directory", entry.path)));
        }
    }
    Ok(())
}

/// What has to be done for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Make,
    Replace,
    Attributes,
}

impl Task {
    /// In one word, for diffs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Task::Make => "made",
            Task::Replace => "replaced",
            Task::Attributes => "attributes",
        }
    }
}

/// What tasks come to, as `2 made, 1 replaced`.
pub(crate) fn counted(tasks: impl Iterator<Item = Task> + Clone) -> String {
    let count = |wanted: Task| tasks.clone().filter(|task| *task == wanted).count();
    let parts = [
        (count(Task::Make), "made"),
        (count(Task::Replace), "replaced"),
        (count(Task::Attributes), "given other attributes"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// Whether a file of the machine holds what the entry does; both have the same length.
pub(crate) type Same<'a> = &'a mut dyn FnMut(&mut File) -> io::Result<bool>;

/// The directory of a tree, and whose everything in it is.
#[derive(Debug)]
pub(crate) struct Below<'a> {
    pub(crate) path: &'a str,
    pub(crate) attributes: &'a Attributes,
}

impl Below<'_> {
    /// The path of an entry on the machine.
    pub(crate) fn path_of(&self, entry: &str) -> String {
        format!("{}/{entry}", self.path)
    }

    /// Whether the directory itself has to be made.
    pub(crate) fn is_missing(&self, host: &Host) -> Result<bool, HostError> {
        match host.place(self.path, false)?.look()? {
            None => Ok(true),
            Some(seen) if seen.kind == Found::Directory => Ok(false),
            Some(seen) => {
                Err(HostError::WrongKind { path: self.path.to_owned(), found: seen.kind, wanted: Found::Directory })
            }
        }
    }

    /// Makes the directory itself, mode 0755.
    pub(crate) fn make(&self, scope: &mut Scope<'_>) -> Result<(), HostError> {
        let place = scope.host.place(self.path, false)?;
        let (uid, gid) = scope.host.default_owner(&place.dir);
        let (uid, gid) = (self.attributes.uid.unwrap_or(uid), self.attributes.gid.unwrap_or(gid));
        scope.host.make_directory(&place, NEW_MODE, uid, gid, scope.unsynced)
    }

    /// Where an entry goes; never through a link, whoever made it.
    pub(crate) fn place(&self, entry: &str, host: &Host, make: bool) -> Result<Place, HostError> {
        let path = self.path_of(entry);
        let top = host.place(self.path, make)?.real();
        let place = host.place(&path, make)?;
        let below = entry.rsplit_once('/').map(|(parent, _)| format!("/{parent}")).unwrap_or_default();
        if place.dir.real != format!("{top}{below}") {
            return Err(HostError::LinkInTheWay { path, real: place.dir.real.clone() });
        }
        Ok(place)
    }

    fn settled(&self, entry: &Entry, place: &Place, host: &Host) -> (u32, u32, u32) {
        let (uid, gid) = host.default_owner(&place.dir);
        (entry.mode, self.attributes.uid.unwrap_or(uid), self.attributes.gid.unwrap_or(gid))
    }

    /// What differs of one entry.
    pub(crate) fn compare(&self, entry: &Entry, host: &Host, same: Same<'_>) -> Result<Option<Task>, HostError> {
        let place = match self.place(&entry.path, host, false) {
            Err(HostError::ParentMissing { .. }) => return Ok(Some(Task::Make)),
            place => place?,
        };
        let Some(seen) = place.look()? else { return Ok(Some(Task::Make)) };
        let path = || self.path_of(&entry.path);
        let wanted = match entry.kind {
            Kind::File { .. } => Found::File,
            Kind::Directory => Found::Directory,
            Kind::Link { .. } => Found::Symlink,
        };
        if seen.kind != wanted {
            return Err(HostError::WrongKind { path: path(), found: seen.kind, wanted });
        }
        let same_attributes = self.settled(entry, &place, host) == (seen.mode, seen.uid, seen.gid);
        match &entry.kind {
            Kind::Link { target } => Ok((place.link()? != *target).then_some(Task::Replace)),
            Kind::Directory => Ok((!same_attributes).then_some(Task::Attributes)),
            Kind::File { .. } if seen.links > 1 => Err(HostError::HardLinked { path: path(), links: seen.links }),
            Kind::File { size } => {
                let same = seen.size == *size && holds(&place, &seen, same)?;
                Ok(if !same { Some(Task::Replace) } else { (!same_attributes).then_some(Task::Attributes) })
            }
        }
    }

    /// Makes of one entry what it should be. Parents that are missing are made, mode 0755.
    pub(crate) fn put(
        &self,
        entry: &Entry,
        task: Task,
        content: &mut dyn Read,
        scope: &mut Scope<'_>,
    ) -> Result<(), Done> {
        let host = scope.host;
        let place = self.place(&entry.path, host, true)?;
        let seen = place.look()?;
        let (mode, uid, gid) = self.settled(entry, &place, host);
        match (&entry.kind, seen) {
            (Kind::Link { target }, seen) => host.put_link(&place, target, seen.is_some(), scope.unsynced)?,
            (_, Some(seen)) if task == Task::Attributes || entry.kind == Kind::Directory => {
                host.set_attributes(&place, &seen, mode, (uid, gid), scope.unsynced)?;
            }
            (Kind::Directory, _) => host.make_directory(&place, mode, uid, gid, scope.unsynced)?,
            (Kind::File { .. }, seen) => {
                let new = Replacement { content: &[], mode, uid, gid };
                let temporary = host.pour_beside(&place, seen.as_ref(), &new, content)?;
                host.put(temporary, &place, seen.is_some(), scope.unsynced)?;
            }
        }
        Ok(())
    }
}

/// Mode of the directory itself, if it is made.
const NEW_MODE: u32 = 0o755;

/// Whether the file that was seen is still that, and holds the same.
fn holds(place: &Place, seen: &Seen, same: Same<'_>) -> Result<bool, HostError> {
    let Some(fd) = place.open(seen)? else { return Ok(false) };
    let failed = |source| HostError::Failed { operation: "compare", path: place.path.clone(), source };
    same(&mut File::from(fd)).map_err(failed)
}

/// Whether two contents of one length are the same.
pub(crate) fn are_same(wanted: &mut dyn Read, found: &mut File) -> io::Result<bool> {
    let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = wanted.read(&mut ours)?;
        if length == 0 {
            return Ok(true);
        }
        match found.read_exact(&mut theirs[..length]) {
            Ok(()) if theirs[..length] == ours[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_tree_whatever_other_links_say() {
        for (target, depth, inside) in [
            ("a", 0, true),
            ("../a", 1, true),
            ("../../a/b", 2, true),
            ("./a", 0, true),
            ("../a", 0, false),
            ("/etc", 3, false),
            ("a/../../b", 1, false),
            ("a/..", 5, false),
            ("", 0, false),
        ] {
            assert_eq!(stays_inside(target, depth), inside, "{target} {depth}");
        }
    }

    #[test]
    fn names_that_lead_out_are_none() {
        assert_eq!(plain_parts("./a//b/"), Some(vec!["a", "b"]));
        for bad in ["/a", "a/../../b", "..", "a\0b"] {
            assert_eq!(plain_parts(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn nothing_goes_below_what_is_no_directory() {
        let entry = |path: &str, kind: Kind| Entry { path: path.into(), mode: 0o644, kind };
        let (file, link) = (Kind::File { size: 0 }, Kind::Link { target: "x".into() });
        assert!(
            check_tree(&[entry("a", Kind::Directory), entry("a/b", file.clone()), entry("a", Kind::Directory)]).is_ok()
        );
        for bad in [
            [entry("a", link.clone()), entry("a/b", file.clone())],
            [entry("a/b", file.clone()), entry("a", link)],
            [entry("a", file.clone()), entry("a", file.clone())],
            [entry("a", file), entry("a", Kind::Directory)],
        ] {
            assert!(check_tree(&bad).is_err(), "{bad:?}");
        }
    }
}
