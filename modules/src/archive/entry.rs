//! What an archive says it holds, and which of it is taken. Pure: judges names, kinds and links, reads no disk.

use std::io::Read;

use tar::EntryType;

use crate::module::Refusal;
use crate::tree::{Entry, Kind, plain_parts, stays_inside, unsafe_entry};

/// Entries of one archive at most.
pub(super) const ENTRIES: usize = 200_000;

/// Longest long name or extended header, in bytes: they are held in memory.
const HEADER_BYTES: u64 = 1 << 20;

/// The fault of an archive that cannot be read.
pub(super) fn broken(source: &str, error: &std::io::Error) -> Refusal {
    Refusal::Module { reason: "BrokenArchive", message: format!("{source} cannot be read as an archive: {error}") }
}

/// The fault of an archive that is more than it may be.
pub(super) fn too_large(source: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::Module { reason: "ArchiveTooLarge", message: format!("{source} {what}") }
}

/// Where an entry of that name goes, below the destination; `None`: it is left out.
pub(super) fn placed(name: &str, strip: usize) -> Result<Option<String>, Refusal> {
    let parts =
        plain_parts(name).ok_or_else(|| unsafe_entry(format!("the entry {name:?} leads out of the archive")))?;
    Ok((parts.len() > strip).then(|| parts[strip..].join("/")))
}

/// Reads all headers once and holds them to the limits, before anything is held in memory.
pub(super) fn check_limits(source: &str, reader: impl Read, max_bytes: u64) -> Result<(), Refusal> {
    let too_large = |what: String| too_large(source, what);
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
    let Some(path) = placed(&name, strip)? else { return Ok(None) };
    let mode =
        entry.header().mode().map_err(|error| unsafe_entry(format!("the entry {name:?} has no mode: {error}")))?;
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File { size: entry.size() },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let target = entry.link_name_bytes().and_then(|target| String::from_utf8(target.into_owned()).ok());
            let target = target.unwrap_or_default();
            if !stays_inside(&target, path.matches('/').count()) {
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
    Ok(Some(Entry { path, mode, kind }))
}
