//! A name in an open directory: where something is, or will be. Every operation goes through the directory's
//! descriptor and never follows the name.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{IFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{HostError, Kind};
use super::{Dir, Host, filesystem, walk};

/// Where a path leads: an open directory and a name in it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) dir: Arc<Dir>,
    pub(crate) name: String,
    /// As the user wrote it, for messages.
    pub(crate) path: String,
}

/// What is at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    /// The permission bits, 07777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl From<&Stat> for Seen {
    fn from(stat: &Stat) -> Seen {
        Seen {
            kind: Kind::of(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            links: stat.st_nlink,
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

impl Host {
    /// Finds the place of `path`, for writing: refused on file systems that are the kernel's switches.
    pub(crate) fn place(&self, path: &str, make_parents: bool) -> Result<Place, HostError> {
        let (dir, name) = self.resolve(path, make_parents)?;
        ordinary(Place { dir, name: name.to_owned(), path: path.to_owned() })
    }

    /// Finds the place that the links at `path`'s end lead to, where only root (or we) can have put them.
    pub(crate) fn place_followed(&self, path: &str, make_parents: bool) -> Result<Place, HostError> {
        let mut place = self.place(path, make_parents)?;
        for _ in 0..40 {
            match place.look()? {
                Some(seen) if seen.kind == Kind::Symlink => place = self.through(&place)?,
                _ => return Ok(place),
            }
        }
        Err(HostError::TooManyLinks { path: path.to_owned() })
    }

    /// The place that the link at `place` points to.
    fn through(&self, place: &Place) -> Result<Place, HostError> {
        let path = place.path.clone();
        if !place.dir.private {
            let link = format!("{}/{}", place.dir.real, place.name);
            return Err(HostError::UntrustedSymlink { path, link });
        }
        let target = place.link()?;
        let full = if target.starts_with('/') { target } else { format!("{}/{target}", place.dir.real) };
        match full.trim_end_matches('/').rsplit_once('/') {
            None | Some((_, "" | "." | "..")) => {
                Err(HostError::WrongKind { path, found: Kind::Directory, wanted: Kind::File })
            }
            Some((parent, name)) => {
                ordinary(Place { dir: self.dir(parent, false, &path)?, name: name.to_owned(), path })
            }
        }
    }

    /// Whether something is at `path`; links are followed where that is safe, and count as something themselves.
    pub(crate) fn exists(&self, path: &str) -> Result<bool, HostError> {
        match self.resolve(path, false) {
            Ok((dir, name)) => walk::look(&dir, name)
                .map(|found| found.is_some())
                .map_err(|errno| HostError::from_errno("read", path, errno)),
            Err(HostError::ParentMissing { .. } | HostError::ParentNotDirectory { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn ordinary(place: Place) -> Result<Place, HostError> {
    match filesystem::special(place.dir.magic) {
        Some(filesystem) => Err(HostError::SpecialFilesystem { path: place.path, filesystem }),
        None => Ok(place),
    }
}

impl Place {
    /// What is there; `None` is nothing.
    pub(crate) fn look(&self) -> Result<Option<Seen>, HostError> {
        let found = walk::look(&self.dir, &self.name).map_err(|errno| self.errno("read", errno))?;
        Ok(found.as_ref().map(Seen::from))
    }

    /// Where the symbolic link there points.
    pub(crate) fn link(&self) -> Result<String, HostError> {
        walk::read_link(&self.dir.fd, &self.name).map_err(|errno| self.errno("read the symbolic link", errno))
    }

    /// The path as it is without symbolic links, below the root.
    pub(crate) fn real(&self) -> String {
        format!("{}/{}", self.dir.real, self.name)
    }

    /// Opens what `seen` saw there, if it is still that; `None` if something else took its place.
    /// Only for regular files and directories: opening a device can do things.
    pub(crate) fn open(&self, seen: &Seen) -> Result<Option<OwnedFd>, HostError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.dir.fd, &self.name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(self.errno("open", errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.errno("read", errno))?;
        Ok((stat.st_ino == seen.inode && stat.st_dev == seen.device).then_some(fd))
    }

    /// Names what a failed system call on this place means.
    pub(crate) fn errno(&self, operation: &'static str, errno: Errno) -> HostError {
        if errno == Errno::PERM && self.is_immutable() {
            return HostError::Immutable { path: self.path.clone() };
        }
        HostError::from_errno(operation, &self.path, errno)
    }

    /// Whether `chattr +i` or `+a` guards what is there, or the directory it is in.
    fn is_immutable(&self) -> bool {
        let guarded = |fd: OwnedFd| {
            rustix::fs::ioctl_getflags(fd).is_ok_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND))
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let plain = matches!(self.look(), Ok(Some(seen)) if matches!(seen.kind, Kind::File | Kind::Directory));
        plain && rustix::fs::openat(&self.dir.fd, &self.name, flags, Mode::empty()).is_ok_and(guarded)
            || super::reopen(&self.dir).is_ok_and(guarded)
    }
}
