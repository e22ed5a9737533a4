//! What was written but may not be on the disk yet. Gathered over a segment and synced together before its report.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::replace::for_reading;
use super::{Dir, HostError, reopen};

/// Files kept open to be synced one by one. With more on one device, one sync of the whole file system is cheaper, and
/// descriptors are short.
const FILES: usize = 32;

/// The files and directories that a report must wait for.
#[derive(Debug, Default)]
pub struct Unsynced {
    files: Vec<(u64, OwnedFd)>,
    /// By device and path.
    dirs: BTreeMap<(u64, String), Arc<Dir>>,
    /// Devices with too many files, each with a descriptor on it.
    whole: BTreeMap<u64, OwnedFd>,
}

impl Unsynced {
    /// Nothing to sync.
    pub fn new() -> Unsynced {
        Unsynced::default()
    }

    /// Whether a sync would do nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.dirs.is_empty() && self.whole.is_empty()
    }

    /// Takes over what another gathered.
    pub fn append(&mut self, other: Unsynced) {
        self.files.extend(other.files);
        self.dirs.extend(other.dirs);
        self.whole.extend(other.whole);
    }

    /// Puts all on the disk. Afterwards nothing is unsynced.
    ///
    /// # Errors
    /// The first that the kernel reports. What was written may then be lost at a power cut, and trying again proves
    /// nothing: the report must not say that it was done.
    pub fn sync(&mut self) -> Result<(), HostError> {
        let failed = |errno: Errno| HostError::from_errno("sync what was written on", "the disk", errno);
        let Unsynced { files, dirs, whole } = std::mem::take(self);
        for fd in whole.values() {
            rustix::fs::syncfs(fd).map_err(failed)?;
        }
        for (_, fd) in files.iter().filter(|(device, _)| !whole.contains_key(device)) {
            rustix::fs::fsync(fd).map_err(failed)?;
        }
        for ((device, _), dir) in &dirs {
            if !whole.contains_key(device) {
                let fd = match reopen(dir) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT) => continue, // Removed since; its removal is another directory's entry.
                    Err(errno) => return Err(failed(errno)),
                };
                rustix::fs::fsync(fd).map_err(failed)?;
            }
        }
        Ok(())
    }

    pub(super) fn add_file(&mut self, device: u64, fd: OwnedFd) {
        if self.whole.contains_key(&device) {
            return;
        }
        if self.files.len() >= FILES {
            for (device, fd) in self.files.drain(..) {
                self.whole.entry(device).or_insert(fd);
            }
            if self.whole.contains_key(&device) {
                return;
            }
        }
        // Until the sync a command may want to run the file, which the kernel refuses while it is open for writing.
        self.files.push((device, for_reading(fd)));
    }

    pub(super) fn add_dir(&mut self, dir: &Arc<Dir>) {
        if self.whole.contains_key(&dir.device) {
            return;
        }
        if self.dirs.len() >= FILES
            && let Ok(fd) = reopen(dir)
        {
            self.dirs.retain(|(device, _), _| *device != dir.device);
            self.whole.insert(dir.device, fd);
            return;
        }
        self.dirs.entry((dir.device, dir.real.clone())).or_insert_with(|| Arc::clone(dir));
    }
}
