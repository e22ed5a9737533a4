//! Writes files so that a reader sees the old one or the new one, whole, with its final owner and mode: a temporary
//! file in the same directory, then a rename. In a directory of another user's, names are changed as that user.

use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::filesystem::Durability;
use super::owner::{Owner, acting};
use super::{Content, Dir, Host, HostError, Place, Seen, Unsynced, reopen, timestamp, walk};

/// How temporary names begin: a dot, and none of the target's suffix, so that no program that reads `*.conf` takes one.
const TEMPORARY: &str = ".lockstep-";

/// A leftover older than this is removed although a process with its number lives.
const LEFTOVER_AGE_S: i64 = 86_400;

/// Longest file that a backup copies where the file system has no hard links.
const COPIED: u64 = 256 << 20;

/// A file's content and attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replacement<'a> {
    pub(crate) content: &'a [u8],
    /// The permission bits, 07777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A complete file under a temporary name; removed when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    dir: Arc<Dir>,
    /// Of the directory.
    owner: Option<Arc<Owner>>,
    name: String,
    fd: Option<OwnedFd>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Nothing to be done if this fails too: the next writer in this directory removes it.
            let _ = rustix::fs::unlinkat(&self.dir.fd, &self.name, AtFlags::empty());
        }
    }
}

impl Temporary {
    /// The path, below the root.
    pub(crate) fn real(&self) -> String {
        format!("{}/{}", self.dir.real, self.name)
    }

    /// Appends to a file that was begun.
    pub(crate) fn write(&self, place: &Place, bytes: &[u8]) -> Result<(), HostError> {
        write_all(self.open_fd(), bytes).map_err(|errno| place.errno("write", errno))
    }

    fn open_fd(&self) -> &OwnedFd {
        self.fd.as_ref().expect("invariant: a file is open until it has its name")
    }
}

impl Host {
    /// Writes the file under a temporary name beside its place. `replaced` is what is there now: its extended
    /// attributes (SELinux label, ACL) are taken over.
    ///
    /// # Errors
    /// Nothing is left of the file, and the old one is as it was.
    pub(crate) fn write_beside(
        &self,
        place: &Place,
        replaced: Option<&Seen>,
        new: &Replacement<'_>,
    ) -> Result<Temporary, HostError> {
        self.fill_beside(place, replaced, new, &mut |fd| write_all(fd, new.content))
    }

    /// The same with content that comes from elsewhere, in place of `new.content`.
    pub(crate) fn pour_beside(
        &self,
        place: &Place,
        replaced: Option<&Seen>,
        new: &Replacement<'_>,
        content: &mut dyn Read,
    ) -> Result<Temporary, HostError> {
        let (mut buffer, mut cause) = (vec![0; 64 << 10], None);
        let poured = self.fill_beside(place, replaced, new, &mut |fd| {
            loop {
                match content.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(length) => write_all(fd, &buffer[..length])?,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        cause = Some(error);
                        return Err(Errno::IO);
                    }
                }
            }
        });
        match cause {
            Some(source) => Err(HostError::Failed { operation: "read what goes to", path: place.path.clone(), source }),
            None => poured,
        }
    }

    fn fill_beside(
        &self,
        place: &Place,
        replaced: Option<&Seen>,
        new: &Replacement<'_>,
        fill: &mut dyn FnMut(&OwnedFd) -> rustix::io::Result<()>,
    ) -> Result<Temporary, HostError> {
        let failed = |errno| place.errno("write", errno);
        let old = replaced.map(|seen| place.open(seen)).transpose()?.flatten();
        let owner = self.owner(&place.dir);
        // A file that is to be another's is made by root, who alone can give it away: the directory's owner never has it
        // open for writing.
        let maker = owner.as_deref().filter(|owner| owner.may_give(new.uid, new.gid));
        let _acting = maker.map(Owner::act).transpose().map_err(failed)?;
        let temporary = self.begin(place, old.as_ref())?;
        fill(temporary.open_fd()).map_err(failed)?;
        self.finish_beside(temporary, place, replaced.is_some(), new)
    }

    /// Begins a file under a temporary name beside its place, for content that comes bit by bit, by
    /// [`Temporary::write`]. Nobody but us can read it before [`Host::finish_beside`].
    pub(crate) fn begin_beside(&self, place: &Place, replaced: Option<&Seen>) -> Result<Temporary, HostError> {
        let old = replaced.map(|seen| place.open(seen)).transpose()?.flatten();
        self.begin(place, old.as_ref())
    }

    fn begin(&self, place: &Place, old: Option<&OwnedFd>) -> Result<Temporary, HostError> {
        sweep(&place.dir);
        let mut temporary = create(&place.dir).map_err(|errno| place.errno("write", errno))?;
        temporary.owner = self.owner(&place.dir);
        if let Some(old) = old {
            copy_attributes(old, temporary.open_fd());
        }
        Ok(temporary)
    }

    /// Gives a file that is written its owner and mode; the content of `new` is not looked at.
    pub(crate) fn finish_beside(
        &self,
        mut temporary: Temporary,
        place: &Place,
        replaces: bool,
        new: &Replacement<'_>,
    ) -> Result<Temporary, HostError> {
        let failed = |errno| place.errno("write", errno);
        let fd = temporary.open_fd();
        let group = place.dir.passes_group.unwrap_or_else(|| rustix::process::getegid().as_raw());
        if (new.uid, new.gid) != (rustix::process::geteuid().as_raw(), group) {
            chown(fd, Some(new.uid), Some(new.gid)).map_err(failed)?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(new.mode)).map_err(failed)?;
        if replaces && self.durability(&place.dir) == Durability::Synced {
            rustix::fs::fsync(fd).map_err(failed)?;
        }
        // A program may be run to validate itself, which the kernel refuses while it is open for writing.
        if new.mode & 0o111 != 0 {
            temporary.fd = temporary.fd.take().map(for_reading);
        }
        Ok(temporary)
    }

    /// Gives the temporary file its name, over what is there.
    pub(crate) fn put(
        &self,
        mut temporary: Temporary,
        place: &Place,
        replaces: bool,
        unsynced: &mut Unsynced,
    ) -> Result<(), HostError> {
        acting(temporary.owner.as_deref(), || {
            rustix::fs::renameat(&temporary.dir.fd, &temporary.name, &place.dir.fd, &place.name)
        })
        .map_err(|errno| match errno {
            Errno::ISDIR | Errno::NOTDIR => HostError::Unsteady { path: place.path.clone() },
            errno => place.errno("replace", errno),
        })?;
        temporary.name.clear();
        if self.durability(&place.dir) != Durability::Volatile {
            if let Some(fd) = temporary.fd.take().filter(|_| !replaces) {
                unsynced.add_file(place.dir.device, fd);
            }
            unsynced.add_dir(&place.dir);
        }
        Ok(())
    }

    /// A second, temporary name for what is at the place, to put it back by.
    pub(crate) fn keep(&self, place: &Place) -> Result<Temporary, HostError> {
        let name = temporary_name();
        // As root: the kernel may keep a directory's owner from linking what is another's, and a second name in the same
        // directory gives nobody anything.
        rustix::fs::linkat(&place.dir.fd, &place.name, &place.dir.fd, &name, AtFlags::empty())
            .map_err(|errno| place.errno("keep the former", errno))?;
        Ok(Temporary { dir: Arc::clone(&place.dir), owner: self.owner(&place.dir), name, fd: None })
    }

    /// Keeps what is at the place under `NAME.TIMESTAMP~` as well, and returns that name.
    pub(crate) fn back_up(&self, place: &Place, seen: &Seen, unsynced: &mut Unsynced) -> Result<String, HostError> {
        let stamp = timestamp();
        for attempt in 1..100 {
            let suffix = if attempt == 1 { String::new() } else { format!("-{attempt}") };
            let name = format!("{}.{stamp}{suffix}~", place.name);
            let backup = Place { dir: Arc::clone(&place.dir), name, path: place.path.clone() };
            match rustix::fs::linkat(&place.dir.fd, &place.name, &place.dir.fd, &backup.name, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => self.copy(place, seen, &backup, unsynced)?,
                Err(errno) => return Err(place.errno("back up", errno)),
            }
            return Ok(backup.name);
        }
        Err(HostError::Unsteady { path: place.path.clone() })
    }

    fn copy(&self, place: &Place, seen: &Seen, to: &Place, unsynced: &mut Unsynced) -> Result<(), HostError> {
        let Content::Read(content) = self.content(place, seen, COPIED)? else {
            return Err(HostError::Unsteady { path: place.path.clone() });
        };
        let copy = Replacement { content: &content, mode: seen.mode, uid: seen.uid, gid: seen.gid };
        let temporary = self.write_beside(to, None, &copy)?;
        self.put(temporary, to, false, unsynced)
    }

    /// Removes a name that was just made (a backup, or a file that did not pass its check).
    pub(crate) fn take_back(&self, dir: &Dir, name: &str) {
        // Best effort on the way out of another error, which is the one to report.
        let _ = rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty());
    }

    /// Changes owner and mode of what was seen, in place. `None` leaves as is.
    pub(crate) fn set_attributes(
        &self,
        place: &Place,
        seen: &Seen,
        mode: u32,
        (uid, gid): (u32, u32),
        unsynced: &mut Unsynced,
    ) -> Result<(), HostError> {
        let failed = |errno| place.errno("change the attributes of", errno);
        let Some(fd) = place.open(seen)? else {
            return Err(HostError::Unsteady { path: place.path.clone() });
        };
        let owner = self.owner(&place.dir).filter(|owner| owner.uid == seen.uid && owner.may_give(uid, gid));
        let acting = owner.as_deref().map(Owner::act).transpose().map_err(failed)?;
        if (uid, gid) != (seen.uid, seen.gid) {
            // Neither the old nor the new owner ever has more rights than both modes give.
            let narrow = mode & seen.mode & 0o1777;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(narrow)).map_err(failed)?;
            chown(&fd, (uid != seen.uid).then_some(uid), (gid != seen.gid).then_some(gid)).map_err(failed)?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(failed)?;
        drop(acting);
        if self.durability(&place.dir) != Durability::Volatile {
            unsynced.add_file(seen.device, fd);
        }
        Ok(())
    }
}

/// The same file, open for reading only. As it is if that cannot be had: without /proc, or if its mode forbids it.
pub(super) fn for_reading(fd: OwnedFd) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap_or(fd)
}

pub(super) fn chown(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
    rustix::fs::fchown(fd, uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw))
}

fn create(dir: &Arc<Dir>) -> rustix::io::Result<Temporary> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..16 {
        let name = temporary_name();
        match rustix::fs::openat(&dir.fd, &name, flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::EXIST) => {}
            opened => return Ok(Temporary { dir: Arc::clone(dir), owner: None, name, fd: Some(opened?) }),
        }
    }
    Err(Errno::EXIST)
}

/// `.lockstep-PID-RANDOM`: the number tells a later sweep whether the writer lives; the rest cannot be guessed.
pub(super) fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new().hash_one(NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{TEMPORARY}{}-{random:016x}", std::process::id())
}

fn write_all(fd: &OwnedFd, mut content: &[u8]) -> rustix::io::Result<()> {
    while !content.is_empty() {
        match rustix::io::write(fd, content) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => content = &content[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Label, ACL and the user's own attributes; not capabilities or signatures, which belong to the content. Best effort:
/// file systems without them have nothing to lose.
fn copy_attributes(from: &OwnedFd, to: &OwnedFd) {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::flistxattr(from, &mut names[..]) else { return };
    let kept =
        |name: &[u8]| name.starts_with(b"user.") || name == b"security.selinux" || name == b"system.posix_acl_access";
    for name in names[..length].split_inclusive(|byte| *byte == 0).filter(|name| kept(&name[..name.len() - 1])) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let mut value = vec![0; 65_536];
        if let Ok(length) = rustix::fs::fgetxattr(from, name, &mut value[..]) {
            let _ = rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty());
        }
    }
}

/// Removes what writers that died left in the directory, once while it is open.
pub(super) fn sweep(dir: &Dir) {
    if dir.swept.swap(true, Ordering::Relaxed) {
        return;
    }
    let Ok(Ok(entries)) = reopen(dir).map(rustix::fs::Dir::new) else { return };
    for entry in entries.flatten() {
        if let Ok(name) = entry.file_name().to_str()
            && let Some(rest) = name.strip_prefix(TEMPORARY)
            && is_leftover(dir, name, rest)
        {
            let _ = rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty());
        }
    }
}

fn is_leftover(dir: &Dir, name: &str, rest: &str) -> bool {
    let Some(pid) = rest.split('-').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) else {
        return false;
    };
    if rustix::process::test_kill_process(pid) == Err(Errno::SRCH) {
        return true;
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    matches!(walk::look(dir, name), Ok(Some(stat)) if now - stat.st_mtime > LEFTOVER_AGE_S)
}
