//! Opens directories one component at a time. Symbolic links are followed only where nobody but root (or we) could have
//! put or changed them; `..` in a link never leaves the root folder.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{HostError, Kind};
use super::owner::Owner;
use super::{DIRS, Host, KEPT, filesystem, locked, path};

/// Symbolic links on one path at most, as in Linux (`MAXSYMLINKS`).
const LINKS: usize = 40;

const OPEN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory, and how far its entries can be trusted.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) fd: OwnedFd,
    /// The path without symbolic links; "" for the root.
    pub(crate) real: String,
    pub(crate) device: u64,
    pub(crate) magic: u32,
    /// Who owns it.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The group that new entries get, if the directory passes its own on.
    pub(crate) passes_group: Option<u32>,
    /// Only root (or we) can change its entries, all the way from the root.
    pub(crate) private: bool,
    /// Whether leftovers of dead writers were looked for.
    pub(crate) swept: AtomicBool,
}

/// A directory on the way.
struct Level {
    fd: OwnedFd,
    stat: Stat,
    private: bool,
    /// A directory of root's (or ours) in it stays where it is: private, or sticky on a way that is firm.
    firm: bool,
    /// Length of the real path up to it.
    length: usize,
}

impl Level {
    fn new(fd: OwnedFd, stat: Stat, firm_parent: bool, euid: u32, length: usize) -> Level {
        let ours = firm_parent && (stat.st_uid == 0 || stat.st_uid == euid);
        let private = ours && stat.st_mode & 0o022 == 0;
        Level { fd, stat, private, firm: private || ours && stat.st_mode & 0o1000 != 0, length }
    }
}

impl Dir {
    /// The root itself.
    pub(super) fn base(fd: OwnedFd, euid: u32) -> Result<Dir, HostError> {
        let stat = rustix::fs::fstat(&fd).map_err(|errno| HostError::from_errno("read", "/", errno))?;
        Ok(Dir::new(Level::new(fd, stat, true, euid, 0), String::new()))
    }

    fn new(level: Level, real: String) -> Dir {
        Dir {
            magic: filesystem::magic(&level.fd),
            device: level.stat.st_dev,
            uid: level.stat.st_uid,
            gid: level.stat.st_gid,
            passes_group: (level.stat.st_mode & 0o2000 != 0).then_some(level.stat.st_gid),
            private: level.private,
            swept: AtomicBool::new(false),
            fd: level.fd,
            real,
        }
    }
}

impl Host {
    /// The directory at `parent` (as [`path::split`] returned it), from the cache if it was opened lately.
    /// `make`: missing ones are made, mode 0755. `path` is what the error names.
    pub(super) fn dir(&self, parent: &str, make: bool, path: &str) -> Result<Arc<Dir>, HostError> {
        if parent.is_empty() {
            return Ok(Arc::clone(&self.base));
        }
        let now = Instant::now();
        if let Some((at, dir)) = locked(&self.dirs).get(parent)
            && now.duration_since(*at) < KEPT
        {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(self.walk(parent, make, path)?);
        let mut dirs = locked(&self.dirs);
        if dirs.len() >= DIRS {
            dirs.clear();
        }
        dirs.insert(parent.to_owned(), (now, Arc::clone(&dir)));
        Ok(dir)
    }

    fn walk(&self, parent: &str, make: bool, path: &str) -> Result<Dir, HostError> {
        let mut walk = Walk { host: self, path, levels: Vec::new(), real: String::new(), links: 0 };
        walk.restart()?;
        let mut pending: Vec<String> = parent.split('/').rev().map(str::to_owned).collect();
        while let Some(component) = pending.pop() {
            walk.enter(&component, make, &mut pending)?;
        }
        let level = walk.levels.pop().expect("the root is never popped");
        Ok(Dir::new(level, walk.real))
    }
}

struct Walk<'a> {
    host: &'a Host,
    path: &'a str,
    levels: Vec<Level>,
    real: String,
    links: usize,
}

impl Walk<'_> {
    fn restart(&mut self) -> Result<(), HostError> {
        let base = &self.host.base.fd;
        let fd = base.try_clone().map_err(|source| self.failed("open", source))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| HostError::from_errno("read", "/", errno))?;
        self.levels = vec![Level::new(fd, stat, true, self.host.euid, 0)];
        self.real.clear();
        Ok(())
    }

    fn enter(&mut self, component: &str, make: bool, pending: &mut Vec<String>) -> Result<(), HostError> {
        match component {
            "" | "." => return Ok(()),
            ".." => {
                if self.levels.len() > 1 {
                    self.levels.pop();
                }
                let length = self.levels.last().expect("the root is never popped").length;
                self.real.truncate(length);
                return Ok(());
            }
            _ => {}
        }
        let (fd, stat) = self.open(component, make)?;
        match Kind::of(stat.st_mode) {
            Kind::Directory => {
                self.real.push('/');
                self.real.push_str(component);
                let firm = self.here().firm;
                self.levels.push(Level::new(fd, stat, firm, self.host.euid, self.real.len()));
                Ok(())
            }
            Kind::Symlink => self.follow(component, &fd, pending),
            found => {
                let parent = format!("{}/{component}", self.real);
                Err(HostError::ParentNotDirectory { path: self.path.to_owned(), parent, found })
            }
        }
    }

    fn open(&self, component: &str, make: bool) -> Result<(OwnedFd, Stat), HostError> {
        let here = self.here();
        let fd = match rustix::fs::openat(&here.fd, component, OPEN, Mode::empty()) {
            Err(Errno::NOENT) if make => self.make(component)?,
            Err(Errno::NOENT) => {
                let parent = format!("{}/{component}", self.real);
                return Err(HostError::ParentMissing { path: self.path.to_owned(), parent });
            }
            opened => opened.map_err(|errno| self.errno("open the parent directory of", errno))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.errno("read the parent directory of", errno))?;
        Ok((fd, stat))
    }

    /// Makes a missing parent, mode 0755: its maker's and 0700 until then. In a directory of another user's, as that user.
    fn make(&self, component: &str) -> Result<OwnedFd, HostError> {
        let here = self.here();
        let owner = self.host.owner_of(here.stat.st_uid, here.stat.st_gid);
        let acting = owner.as_deref().map(Owner::act).transpose();
        let _acting = acting.map_err(|errno| self.errno("make the parent directory of", errno))?;
        if let Some(filesystem) = filesystem::special(filesystem::magic(&here.fd)) {
            return Err(HostError::SpecialFilesystem { path: self.path.to_owned(), filesystem });
        }
        match rustix::fs::mkdirat(&here.fd, component, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.errno("make the parent directory of", errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&here.fd, component, flags, Mode::empty())
            .map_err(|errno| self.errno("open the parent directory of", errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.errno("read the parent directory of", errno))?;
        let maker = owner.as_ref().map_or(self.host.euid, |owner| owner.uid);
        if stat.st_uid == maker && stat.st_mode & 0o777 == 0o700 {
            let mode = Mode::from_raw_mode(0o755 | stat.st_mode & 0o2000);
            rustix::fs::fchmod(&fd, mode).map_err(|errno| self.errno("set the mode of the parent of", errno))?;
        }
        Ok(fd)
    }

    fn follow(&mut self, component: &str, link: &OwnedFd, pending: &mut Vec<String>) -> Result<(), HostError> {
        if !self.here().private {
            let link = format!("{}/{component}", self.real);
            return Err(HostError::UntrustedSymlink { path: self.path.to_owned(), link });
        }
        self.links += 1;
        if self.links > LINKS {
            return Err(HostError::TooManyLinks { path: self.path.to_owned() });
        }
        let target = read_link(link, "").map_err(|errno| self.errno("read a symbolic link on the way to", errno))?;
        if target.starts_with('/') {
            self.restart()?;
        }
        pending.extend(target.split('/').rev().map(str::to_owned));
        Ok(())
    }

    fn here(&self) -> &Level {
        self.levels.last().expect("the root is never popped")
    }

    fn errno(&self, operation: &'static str, errno: Errno) -> HostError {
        HostError::from_errno(operation, self.path, errno)
    }

    fn failed(&self, operation: &'static str, source: std::io::Error) -> HostError {
        HostError::Failed { operation, path: self.path.to_owned(), source }
    }
}

/// Where a symbolic link points; a target that is no UTF-8 comes back with replacement characters, so as no path.
pub(super) fn read_link(dir: impl AsFd, name: &str) -> rustix::io::Result<String> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(String::from_utf8_lossy(target.as_bytes()).into_owned())
}

/// Whether something, not followed, is at `name`.
pub(super) fn look(dir: &Dir, name: &str) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

impl Host {
    /// The directory and name that `path` (as a user wrote it) leads to.
    pub(super) fn resolve<'p>(&self, path: &'p str, make: bool) -> Result<(Arc<Dir>, &'p str), HostError> {
        let (parent, name) = path::split(path)?;
        Ok((self.dir(parent, make, path)?, name))
    }
}
