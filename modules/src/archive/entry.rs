//! What an archive says it holds, and which of it is taken. Pure: judges names, kinds and links, reads no disk.

use std::collections::BTreeSet;
use std::io::Read;

use tar::EntryType;

use crate::module::Refusal;

/// Entries of one archive at most.
const ENTRIES: usize = 200_000;

/// Longest long name or extended header, in bytes: they are held in memory.
const HEADER_BYTES: u64 = 1 << 20;

/// One entry, with its path below the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File { size: u64 },
    Directory,
    Link { target: String },
}

fn unsafe_entry(message: String) -> Refusal {
    Refusal::Module { reason: "UnsafeEntry", message }
}

/// The fault of an archive that cannot be read.
pub(super) fn broken(source: &str, error: &std::io::Error) -> Refusal {
    Refusal::Module { reason: "BrokenArchive", message: format!("{source} cannot be read as a tar archive: {error}") }
}

/// Reads all headers once and holds them to the limits, before anything is held in memory.
pub(super) fn check_limits(source: &str, reader: impl Read, max_bytes: u64) -> Result<(), Refusal> {
    let too_large = |what: String| Refusal::Module { reason: "ArchiveTooLarge", message: format!("{source} {what}") };
    // A blank archive may go on for ever: all of it counts, not only what has a header.
    let limit = max_bytes.saturating_add((ENTRIES as u64) * 2048);
    let mut archive = tar::Archive::new(reader.take(limit));
    let (mut count, mut bytes) = (0, 0u64);
    for entry in archive.entries().map_err(|error| broken(source, &error))?.raw(true) {
        let entry = entry.map_err(|error| broken(source, &error))?;
        count += 1;
        if count > ENTRIES {
            return Err(too_large(format!("holds more than {ENTRIES} entries")));
        }
        let extends = matches!(
            entry.header().entry_type(),
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if extends && entry.size() > HEADER_BYTES {
            return Err(too_large(format!("has a header of {} bytes", entry.size())));
        }
        bytes = bytes.saturating_add(entry.size());
        if bytes > max_bytes {
            return Err(too_large(format!("holds more than {max_bytes} bytes; raise maxBytes if that is meant")));
        }
    }
    Ok(())
}

/// The entry of the archive; `None` if there is nothing to do for it.
pub(super) fn read<R: Read>(entry: &tar::Entry<'_, R>, strip: usize) -> Result<Option<Entry>, Refusal> {
    let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|error| {
        unsafe_entry(format!("an entry's name is no UTF-8: {:?}", String::from_utf8_lossy(error.as_bytes())))
    })?;
    if entry.header().entry_type() == EntryType::XGlobalHeader {
        return Ok(None);
    }
    let parts =
        plain_parts(&name).ok_or_else(|| unsafe_entry(format!("the entry {name:?} leads out of the archive")))?;
    if parts.len() <= strip {
        return Ok(None);
    }
    let parts = &parts[strip..];
    let mode =
        entry.header().mode().map_err(|error| unsafe_entry(format!("the entry {name:?} has no mode: {error}")))?;
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File { size: entry.size() },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let target = entry.link_name_bytes().and_then(|target| String::from_utf8(target.into_owned()).ok());
            let target = target.unwrap_or_default();
            if !stays_inside(&target, parts.len() - 1) {
                return Err(unsafe_entry(format!("the link {name:?} leads out of the archive, to {target:?}")));
            }
            Kind::Link { target }
        }
        other => {
            let what = match other {
                EntryType::Link => "a hard link",
                EntryType::Char | EntryType::Block => "a device",
                EntryType::Fifo => "a named pipe",
                _ => "of a kind that is not unpacked",
            };
            return Err(unsafe_entry(format!(
                "the entry {name:?} is {what}; only files, directories and links are taken"
            )));
        }
    };
    let mode = match kind {
        // Nobody but the owner may change what an archive brings, and nothing in it gets rights by itself.
        Kind::Directory => mode & 0o755 | 0o700,
        _ => mode & 0o755,
    };
    Ok(Some(Entry { path: parts.join("/"), mode, kind }))
}

/// The names of a relative path without `..`.
fn plain_parts(name: &str) -> Option<Vec<&str>> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then_some(parts)
}

/// Whether a link in a directory `depth` levels deep points into the tree: up first, if at all, then only down.
fn stays_inside(target: &str, depth: usize) -> bool {
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
pub(super) fn check_tree(entries: &[Entry]) -> Result<(), Refusal> {
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
