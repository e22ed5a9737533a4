//! zip: entries by its directory at the end. What an entry says of its length is kept to; entries that share bytes, as
//! bombs have them, and names that are there twice are refused.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use zip::ZipArchive;
use zip::read::ZipFile;

use super::super::Unpacked;
use super::super::entry::{ENTRIES, broken, placed, too_large};
use super::Visit;
use crate::module::Refusal;
use crate::tree::{Entry, Kind, stays_inside, unsafe_entry};

/// Longest directory of a zip: it is held in memory.
const DIRECTORY_BYTES: u64 = 64 << 20;

/// Longest target of a link.
const TARGET_BYTES: u64 = 4095;

/// Kinds in the upper bits of a Unix mode.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

type Archive<'f> = ZipArchive<BufReader<Metered<'f>>>;

fn open<'f>(source: &str, file: &'f mut File) -> Result<Archive<'f>, Refusal> {
    let left = Rc::new(Cell::new(DIRECTORY_BYTES));
    let metered = Metered { file, left: Rc::clone(&left) };
    let archive = ZipArchive::new(BufReader::new(metered)).map_err(|error| told(source, error))?;
    // Only the directory is read whole; what entries hold goes through.
    left.set(u64::MAX);
    Ok(archive)
}

fn told(source: &str, error: zip::result::ZipError) -> Refusal {
    broken(source, &io::Error::from(error))
}

pub(super) fn check_limits(archive: &Unpacked, file: &mut File) -> Result<(), Refusal> {
    let source = &archive.source;
    let mut found = open(source, file)?;
    if found.len() > ENTRIES {
        return Err(too_large(source, format!("holds more than {ENTRIES} entries")));
    }
    if found.has_duplicate_names() {
        return Err(unsafe_entry(format!("{source} names an entry twice; which one is meant?")));
    }
    if found.has_overlapping_files().map_err(|error| told(source, error))? {
        return Err(unsafe_entry(format!("entries of {source} share bytes, as bombs do")));
    }
    let mut bytes = 0u64;
    for number in 0..found.len() {
        let entry = found.by_index_data(number).map_err(|error| told(source, error))?;
        bytes = bytes.saturating_add(entry.size());
        if entry.encrypted() {
            let message = format!("{source} is encrypted; nothing of it is unpacked");
            return Err(Refusal::Module { reason: "UnknownFormat", message });
        }
        if bytes > archive.max_bytes {
            let message = format!("holds more than {} bytes; raise maxBytes if that is meant", archive.max_bytes);
            return Err(too_large(source, message));
        }
    }
    Ok(())
}

pub(super) fn each<E: From<Refusal>>(archive: &Unpacked, file: &mut File, visit: Visit<'_, E>) -> Result<(), E> {
    let source = &archive.source;
    let mut found = open(source, file)?;
    for number in 0..found.len() {
        let mut content = found.by_index(number).map_err(|error| told(source, error))?;
        let Some(entry) = read(source, &mut content, archive.strip)? else { continue };
        let left = content.size();
        visit(number, entry, &mut Exactly { inner: &mut content, left })?;
    }
    Ok(())
}

/// The entry; `None` if there is nothing to do for it.
fn read<R: Read + Seek>(source: &str, file: &mut ZipFile<'_, R>, strip: usize) -> Result<Option<Entry>, Refusal> {
    let name = file.name().map_err(|error| told(source, error))?.into_owned();
    let Some(parts) = placed(&name, strip)? else { return Ok(None) };
    // What was not made on Unix says nothing of modes.
    let mode = file.unix_mode().unwrap_or(0o644);
    let size = file.size();
    let (mode, kind) = match mode & KIND {
        _ if file.is_dir() => (mode & 0o755 | 0o700, Kind::Directory),
        DIRECTORY => (mode & 0o755 | 0o700, Kind::Directory),
        LINK if size <= TARGET_BYTES => {
            let mut target = String::new();
            file.take(TARGET_BYTES).read_to_string(&mut target).map_err(|error| broken(source, &error))?;
            if !stays_inside(&target, parts.matches('/').count()) {
                return Err(unsafe_entry(format!("the link {name:?} leads out of the archive, to {target:?}")));
            }
            (0o755, Kind::Link { target })
        }
        FILE | 0 => (mode & 0o755, Kind::File { size }),
        _ => return Err(unsafe_entry(format!("the entry {name:?} is no file, directory or link"))),
    };
    Ok(Some(Entry { path: parts, mode, kind }))
}

/// A file of which only so much may be read.
struct Metered<'f> {
    file: &'f mut File,
    left: Rc<Cell<u64>>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        match self.left.get().checked_sub(length as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::other("its directory is longer than 64 MiB")),
        }
        Ok(length)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A content that is as long as it says, or an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        match self.left.checked_sub(length as u64) {
            Some(left) if length > 0 || left == 0 || buffer.is_empty() => self.left = left,
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry is shorter than it says")),
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry is longer than it says")),
        }
        Ok(length)
    }
}
