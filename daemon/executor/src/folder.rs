//! The folder of one attempt: where its work, journal, output, lock and marks are, and who is alive in it.
//! Knows names and locks; the records inside are the journal's.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use lockstep_apis::v1alpha::{AttemptRef, Work};
use lockstep_modules::Cgroup;
use prost::Message;
use rustix::fs::{FlockOperation, flock};

/// A prober holds the lock for microseconds; an executor that starts in them tries again so often.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Largest work of one segment that is read back.
const MAX_WORK_BYTES: u64 = 64 * 1024 * 1024;

/// The name of an attempt's folder below `segments/`.
pub fn name(attempt: &AttemptRef) -> String {
    let AttemptRef { run_uid, segment, for_uid, node_uid, attempt } = attempt;
    format!("{run_uid}-{segment}-{for_uid}-{node_uid}-{attempt}")
}

/// Paths inside one attempt's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// Held while the executor lives; the system gives it back when it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// What the executor wrote about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its process, which leads the session of everything it started.
    pub pid: i32,
    /// When it started, in ticks since boot: tells it from a later process with its number.
    pub start_ticks: u64,
    /// It leads a session of its own; only then may the session be killed.
    pub leads_session: bool,
}

impl Folder {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(path)?;
        Ok(Self::at(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    /// Events that were raised and that the agent has not taken yet.
    pub(crate) fn events(&self) -> PathBuf {
        self.path.join("events")
    }

    /// Why the journal could not be kept; absent if it could.
    pub(crate) fn failure(&self) -> PathBuf {
        self.path.join("failed")
    }

    pub(crate) fn cancel(&self) -> PathBuf {
        self.path.join("cancel")
    }

    /// Made by the guard when it kills what is in progress.
    pub(crate) fn fenced(&self) -> PathBuf {
        self.path.join("fenced")
    }

    /// The control group of the executor and all that it starts. `None`: it has none.
    pub(crate) fn cgroup(&self) -> Option<Cgroup> {
        let path = fs::read_to_string(self.path.join("cgroup")).ok()?;
        Some(Cgroup::at(Path::new(path.strip_suffix('\n')?)))
    }

    pub(crate) fn write_cgroup(&self, group: &Cgroup) -> io::Result<()> {
        fs::write(self.path.join("cgroup"), format!("{}\n", group.folder().display()))
    }

    /// When what was acknowledged last was sent, by the clock of this boot. `None`: never, or just being written.
    pub(crate) fn renewed_ms(&self) -> Option<u64> {
        fs::read_to_string(self.path.join("renewed")).ok()?.strip_suffix('\n')?.parse().ok()
    }

    pub(crate) fn write_renewed_ms(&self, boot_ms: u64) -> io::Result<()> {
        fs::write(self.path.join("renewed"), format!("{boot_ms}\n"))
    }

    pub(crate) fn write_work(&self, work: &Work) -> io::Result<()> {
        // It may hold secrets: 0600 in a folder of 0700.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join("work"))?;
        file.write_all(&work.encode_to_vec())
    }

    pub(crate) fn read_work(&self) -> io::Result<Work> {
        let mut bytes = Vec::new();
        File::open(self.path.join("work"))?.take(MAX_WORK_BYTES).read_to_end(&mut bytes)?;
        Work::decode(&bytes[..]).map_err(io::Error::other)
    }

    /// Takes the lock; `None`: an executor is alive in this folder.
    pub(crate) fn lock(&self) -> io::Result<Option<Lock>> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.path.join("lock"))?;
        for _ in 0..LOCK_TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }

    /// Whether an executor is alive in this folder now.
    pub(crate) fn is_locked(&self) -> io::Result<bool> {
        let file = match File::open(self.path.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn write_identity(&self, identity: Identity) -> io::Result<()> {
        let Identity { pid, start_ticks, leads_session } = identity;
        fs::write(self.path.join("pid"), format!("{pid} {start_ticks} {}\n", u8::from(leads_session)))
    }

    /// `None`: no executor ever got so far, or it died while it wrote.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let text = fs::read_to_string(self.path.join("pid")).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        Some(Identity {
            pid: words.next()?.parse().ok()?,
            start_ticks: words.next()?.parse().ok()?,
            leads_session: words.next()? == "1",
        })
    }

    /// Brings the names in the folder to the disk, and what `work` holds.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(self.path.join("work"))?.sync_data()?;
        File::open(&self.path)?.sync_all()
    }

    /// Brings the folder's own name to the disk.
    pub(crate) fn sync_parent(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits a little; false.
    fn rest() -> bool {
        thread::sleep(LOCK_PAUSE);
        false
    }

    #[test]
    fn lock_tells_who_is_alive_and_goes_with_its_holder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::make(&parent.path().join("a")).unwrap();
        assert!(!folder.is_locked().unwrap());
        let lock = folder.lock().unwrap().unwrap();
        assert!(folder.is_locked().unwrap());
        assert!(folder.lock().unwrap().is_none());
        drop(lock);
        // A test beside this one may be starting a command: until it has begun it holds all that we held.
        assert!((0..LOCK_TRIES * 10).any(|_| !folder.is_locked().unwrap() || rest()), "the lock outlives its holder");
    }

    #[test]
    fn identity_that_was_cut_is_none() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::make(&parent.path().join("a")).unwrap();
        assert_eq!(folder.identity(), None);
        let identity = Identity { pid: 42, start_ticks: 7, leads_session: true };
        folder.write_identity(identity).unwrap();
        assert_eq!(folder.identity(), Some(identity));
        fs::write(folder.path().join("pid"), "42 7").unwrap();
        assert_eq!(folder.identity(), None);
    }

    #[test]
    fn folder_is_made_once_and_for_root_only() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a");
        Folder::make(&path).unwrap();
        assert_eq!(Folder::make(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
