//! One attempt of one segment, in a folder and a process of its own: made by the agent, done by `lockstepd execute`,
//! watched and ended by whichever agent is there then.
//!
//! The journal holds the results that other tasks read, secret ones too, because the report may have to be sent again:
//! the folder is root's alone (0700, files 0600) and goes when the report is acknowledged.

mod executing;
mod status;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use lockstep_apis::v1alpha::{JournalClaim, OutputChunk, Work};
use lockstep_modules::Cgroup;
use prost::Message;

pub use crate::folder::name as folder_name;
pub use crate::raised::raised;
pub use executing::{Exit, Options, execute};
pub use status::{Status, status};

use crate::{
    folder::Folder,
    frame,
    journal::{Journal, JournalError},
    leftovers,
};

/// Folders that are being made or removed end so; [`list`] clears what a crash left of them.
const MAKING: &str = ".making";
const REMOVING: &str = ".removing";

/// Most bytes of output that one [`read_output`] returns, roughly.
const OUTPUT_READ_BYTES: u64 = 1024 * 1024;

/// Why a segment's folder cannot be made, read or removed. None of them changes what happened on the machine.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The folder of this attempt exists: it was claimed before.
    #[error("{} exists already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the folder cannot be used.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal cannot be used.
    #[error("{}", path.display())]
    Journal {
        /// The folder.
        path: PathBuf,
        /// What failed.
        #[source]
        source: JournalError,
    },
}

impl SegmentError {
    fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { verb, path: path.to_owned(), source }
    }

    fn journal(path: &Path) -> impl FnOnce(JournalError) -> Self {
        move |source| Self::Journal { path: path.to_owned(), source }
    }
}

/// Makes the folder of an attempt, with its work and its claim, synced. The folder appears whole or not at all.
///
/// # Errors
/// [`SegmentError::Exists`] if the attempt has a folder; nothing is started then, whatever the other folder says.
pub fn create(path: &Path, work: &Work, boot_id: &str) -> Result<(), SegmentError> {
    if path.exists() {
        return Err(SegmentError::Exists { path: path.to_owned() });
    }
    let making = beside(path, MAKING);
    match fs::remove_dir_all(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SegmentError::file("clear", &making)(error));
        }
        _ => {}
    }
    let folder = Folder::make(&making).map_err(SegmentError::file("make", &making))?;
    folder.write_work(work).map_err(SegmentError::file("write the work into", &making))?;
    let mut journal =
        Journal::create(&folder.journal(), claim(work, boot_id)).map_err(SegmentError::journal(&making))?;
    journal.sync().map_err(SegmentError::journal(&making))?;
    folder.sync().map_err(SegmentError::file("sync", &making))?;
    fs::rename(&making, path).map_err(SegmentError::file("name", path))?;
    Folder::at(path).sync_parent().map_err(SegmentError::file("sync the parent of", path))
}

fn claim(work: &Work, boot_id: &str) -> JournalClaim {
    JournalClaim {
        run_uid: work.run_uid.clone(),
        segment: work.segment,
        for_uid: work.for_uid.clone(),
        node_uid: work.node_uid.clone(),
        attempt: work.attempt,
        boot_id: boot_id.to_owned(),
    }
}

/// The attempts that have folders below `segments`, in no order. Clears what a crash left half made or half removed.
pub fn list(segments: &Path) -> Result<Vec<PathBuf>, SegmentError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(segments).map_err(SegmentError::file("list", segments))? {
        let path = entry.map_err(SegmentError::file("list", segments))?.path();
        let name = path.as_os_str().as_encoded_bytes();
        if name.ends_with(MAKING.as_bytes()) || name.ends_with(REMOVING.as_bytes()) {
            fs::remove_dir_all(&path).map_err(SegmentError::file("clear", &path))?;
        } else if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// The work of the attempt.
pub fn work(path: &Path) -> Result<Work, SegmentError> {
    Folder::at(path).read_work().map_err(SegmentError::file("read the work of", path))
}

/// The process of the living executor, for an agent that finds one: to wait for its end by a handle on it (pidfd), and
/// then to ask for the status again. `None`: it is dead, or has only just been started.
pub fn executor(path: &Path) -> Option<u32> {
    let identity = Folder::at(path).identity()?;
    leftovers::is_there(identity).then_some(identity.pid.cast_unsigned())
}

/// Asks for an end: a running task gets SIGTERM, after its grace SIGKILL, and no other is started. Works whether or not
/// an executor is alive; asking twice is asking once.
pub fn cancel(path: &Path) -> Result<(), SegmentError> {
    let folder = Folder::at(path);
    File::create(folder.cancel()).map(drop).map_err(SegmentError::file("cancel", path))?;
    // After the mark: an executor that has no handler yet dies of this without having begun a task, the next one sees
    // the mark.
    if let Some(identity) = folder.identity() {
        leftovers::terminate(identity);
    }
    Ok(())
}

/// Says that what was sent at `boot_ms` was acknowledged: the guard counts from then. First before an executor is
/// started, for work with a fence.
pub fn renew(path: &Path, boot_ms: u64) -> Result<(), SegmentError> {
    Folder::at(path).write_renewed_ms(boot_ms).map_err(SegmentError::file("renew", path))
}

/// Whole chunks of output from byte `from` on, and where the next read goes on. Empty: nothing more is there yet.
pub fn read_output(path: &Path, from: u64) -> Result<(Vec<OutputChunk>, u64), SegmentError> {
    let mut bytes = Vec::new();
    let read = || -> io::Result<()> {
        let mut file = File::open(Folder::at(path).output())?;
        file.seek(SeekFrom::Start(from))?;
        file.take(OUTPUT_READ_BYTES).read_to_end(&mut bytes)?;
        Ok(())
    };
    match { read }() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
        other => other.map_err(SegmentError::file("read the output of", path))?,
    }
    let mut frames = frame::Records::new(&bytes);
    // A chunk that does not decode was written by a newer version: passed over, so that what follows is still seen.
    let chunks = frames.by_ref().filter_map(|frame| OutputChunk::decode(frame).ok()).collect();
    Ok((chunks, from + frames.position() as u64))
}

/// Removes the folder. Only after the report is acknowledged: with it goes the memory that the attempt ever was.
pub fn remove(path: &Path) -> Result<(), SegmentError> {
    let removing = beside(path, REMOVING);
    let group = Folder::at(path).cgroup();
    match fs::rename(path, &removing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(SegmentError::file("remove", path))?,
    }
    // What the tasks left running keeps it.
    group.iter().for_each(Cgroup::remove);
    fs::remove_dir_all(&removing).map_err(SegmentError::file("remove", &removing))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
