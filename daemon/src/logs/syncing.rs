//! Brings what was appended onto the disk, many files at a time: what comes while the disk is busy shares the next turn.
//! Knows files and how far they are synced; nothing of chunks.
//!
//! # Guarantees
//! - Who waited for [`Syncing::sync`] finds all that was written before it after a power cut.
//! - Of what could not be synced nothing counts as written: the file is cut back to what is on the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::locked;

/// From so many files on one sync of the file system costs less than one of each.
const MANY: usize = 8;

/// How far a file goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes.
    pub(super) end: u64,
    /// Of the last chunk.
    pub(super) number: u64,
    /// Nothing follows.
    pub(super) last: bool,
}

/// A file that is appended to.
#[derive(Debug)]
pub(super) struct Appended {
    file: Arc<File>,
    path: PathBuf,
    written: Mark,
    /// Of that, what is on the disk.
    synced: Mark,
    /// Its name may not be on the disk yet.
    is_new: bool,
}

impl Appended {
    /// A file with what it holds; that is on the disk afterwards.
    pub(super) fn new(file: File, path: PathBuf, mark: Mark) -> io::Result<Self> {
        let is_new = mark == Mark::default();
        if !is_new {
            file.sync_data()?;
        }
        Ok(Self { file: Arc::new(file), path, written: mark, synced: mark, is_new })
    }

    /// How far it goes.
    pub(super) fn mark(&self) -> Mark {
        self.written
    }

    /// Writes behind what it holds; what a failed write left there is written over.
    pub(super) fn append(&mut self, bytes: &[u8], number: u64, last: bool) -> io::Result<()> {
        let Mark { end, .. } = self.written;
        self.file.write_all_at(bytes, end)?;
        self.written = Mark { end: end + bytes.len() as u64, number, last };
        Ok(())
    }

    fn is_synced(&self) -> bool {
        self.synced == self.written
    }

    fn take_synced(&mut self, mark: Mark) {
        self.synced = mark;
        self.is_new = false;
    }

    fn cut_back(&mut self) {
        self.written = self.synced;
        // What this leaves in the file is written over, and after a restart read again: more than was promised.
        let _ = self.file.set_len(self.synced.end);
    }
}

/// A shared file.
pub(super) type Shared = Arc<Mutex<Appended>>;

/// The turns at the disk.
#[derive(Default)]
pub(super) struct Syncing {
    /// Files that wait for the next turn.
    gathering: Mutex<Arc<Batch>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Batch {
    files: Mutex<Vec<Shared>>,
    /// Why it failed, if it did.
    done: OnceCell<Option<String>>,
}

impl Syncing {
    /// Returns when all that was written to the file before is on the disk.
    pub(super) async fn sync(&self, file: &Shared) -> io::Result<()> {
        if locked(file).is_synced() {
            return Ok(());
        }
        let batch = {
            let gathering = locked(&self.gathering);
            locked(&gathering.files).push(file.clone());
            gathering.clone()
        };
        let _turn = self.turn.lock().await;
        let failure = batch.done.get_or_init(|| async {
            let files = {
                let mut gathering = locked(&self.gathering);
                if Arc::ptr_eq(&gathering, &batch) {
                    *gathering = Arc::default();
                }
                locked(&batch.files).clone()
            };
            let synced = tokio::task::spawn_blocking(move || sync_all(&files)).await;
            synced.map_err(io::Error::other).flatten().err().map(|problem| problem.to_string())
        });
        match failure.await {
            None => Ok(()),
            Some(problem) => Err(io::Error::other(problem.clone())),
        }
    }
}

/// Blocks on the disk.
fn sync_all(files: &[Shared]) -> io::Result<()> {
    let mut waiting: Vec<(&Shared, Mark)> = Vec::with_capacity(files.len());
    for file in files {
        let is_known = waiting.iter().any(|(known, _)| Arc::ptr_eq(known, file));
        let of = locked(file);
        if !is_known && !of.is_synced() {
            waiting.push((file, of.written));
        }
    }
    let synced = if waiting.len() >= MANY { sync_together(waiting[0].0) } else { sync_each(&waiting) };
    for (file, mark) in waiting {
        let mut of = locked(file);
        match &synced {
            Ok(()) => of.take_synced(mark),
            Err(_) => of.cut_back(),
        }
    }
    synced
}

/// All are in one file system: below one folder.
fn sync_together(file: &Shared) -> io::Result<()> {
    let file = locked(file).file.clone();
    Ok(rustix::fs::syncfs(&*file)?)
}

fn sync_each(files: &[(&Shared, Mark)]) -> io::Result<()> {
    for (file, _) in files {
        let (file, path, is_new) = {
            let of = locked(file);
            (of.file.clone(), of.path.clone(), of.is_new)
        };
        file.sync_data()?;
        if is_new {
            // The Run's folder, and the one that it is in.
            for folder in path.ancestors().skip(1).take(2) {
                sync_folder(folder)?;
            }
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str) -> Shared {
        let path = folder.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        Arc::new(Mutex::new(Appended::new(file, path, Mark::default()).unwrap()))
    }

    fn append(file: &Shared, number: u64) {
        locked(file).append(b"bytes", number, false).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_together_is_synced_together_and_each_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let syncing = Arc::new(Syncing::default());
        let files: Vec<Shared> = (0..3 * MANY).map(|at| file(folder.path(), &at.to_string())).collect();
        files.iter().for_each(|file| append(file, 1));
        let turn = syncing.turn.lock().await;
        let waiting: Vec<_> = files
            .iter()
            .map(|file| {
                let (syncing, file) = (syncing.clone(), file.clone());
                tokio::spawn(async move { syncing.sync(&file).await })
            })
            .collect();
        while locked(&locked(&syncing.gathering).files).len() < files.len() {
            tokio::task::yield_now().await;
        }
        let batch = locked(&syncing.gathering).clone();
        drop(turn);
        for waits in waiting {
            waits.await.unwrap().unwrap();
        }
        assert_eq!(batch.done.get(), Some(&None), "one turn for all");
        assert!(files.iter().all(|file| locked(file).is_synced()));
        assert!(locked(&locked(&syncing.gathering).files).is_empty());
    }

    #[tokio::test]
    async fn what_is_written_meanwhile_waits_for_the_next_turn() {
        let folder = tempfile::tempdir().unwrap();
        let (syncing, one) = (Syncing::default(), file(folder.path(), "one"));
        append(&one, 1);
        syncing.sync(&one).await.unwrap();
        append(&one, 2);
        assert_eq!(locked(&one).synced.number, 1);
        assert!(!locked(&one).is_synced());
        syncing.sync(&one).await.unwrap();
        assert_eq!(locked(&one).synced.number, 2);
    }

    #[tokio::test]
    async fn of_what_could_not_be_synced_nothing_counts() {
        let folder = tempfile::tempdir().unwrap();
        let syncing = Syncing::default();
        let one = file(folder.path(), "one");
        append(&one, 1);
        syncing.sync(&one).await.unwrap();
        append(&one, 2);
        // A pipe cannot be synced: as if the disk had failed.
        let (pipe, _keep) = rustix::pipe::pipe().unwrap();
        let sound = std::mem::replace(&mut locked(&one).file, Arc::new(File::from(pipe)));
        assert!(syncing.sync(&one).await.is_err());
        locked(&one).file = sound;
        assert_eq!(locked(&one).mark(), Mark { end: 5, number: 1, last: false });
        append(&one, 2);
        syncing.sync(&one).await.unwrap();
        assert_eq!(locked(&one).synced.number, 2);
    }
}
