//! Removes files and trees. A tree is emptied through descriptors, never by path, and never across a mount.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::filesystem::Durability;
use super::owner::{Owner, acting};
use super::{Host, HostError, Kind, Place, Seen, Unsynced};

/// Deepest tree that is removed: each level holds a descriptor, and a process has 1,024 by default.
const DEPTH: usize = 400;

/// Never removed with what is in them: a slip in a variable must not cost the machine.
const VITAL: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/log",
];

impl Host {
    /// Removes what was seen. A directory only if it is empty, or with all that is in it if `recursive`.
    ///
    /// # Errors
    /// Of a tree, a part may be gone: as far as it could be removed.
    pub(crate) fn remove(
        &self,
        place: &Place,
        seen: &Seen,
        recursive: bool,
        unsynced: &mut Unsynced,
    ) -> Result<(), HostError> {
        let owner = self.owner(&place.dir);
        if seen.kind == Kind::Directory {
            if recursive {
                self.check_removable(place)?;
                // In it may be what is others', which its owner cannot remove: root does it, through descriptors alone.
                empty(&place.dir.fd, &place.name, 0).map_err(|fault| fault.named(place))?;
            }
            unlink(owner.as_deref(), place, AtFlags::REMOVEDIR)?;
        } else {
            unlink(owner.as_deref(), place, AtFlags::empty())?;
        }
        self.forget();
        if self.durability(&place.dir) != Durability::Volatile {
            unsynced.add_dir(&place.dir);
        }
        Ok(())
    }

    /// Refuses directories without which the machine does not start.
    pub(crate) fn check_removable(&self, place: &Place) -> Result<(), HostError> {
        if VITAL.contains(&place.real().as_str()) || VITAL.contains(&place.path.as_str()) {
            return Err(HostError::Vital { path: place.path.clone() });
        }
        Ok(())
    }
}

fn unlink(owner: Option<&Owner>, place: &Place, flags: AtFlags) -> Result<(), HostError> {
    match acting(owner, || rustix::fs::unlinkat(&place.dir.fd, &place.name, flags)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(place.errno("remove", errno)),
    }
}

enum Fault {
    Errno(Errno),
    TooDeep,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault::Errno(errno)
    }
}

impl Fault {
    fn named(self, place: &Place) -> HostError {
        match self {
            Fault::Errno(Errno::LOOP | Errno::NOTDIR) => HostError::Unsteady { path: place.path.clone() },
            Fault::Errno(errno) => place.errno("remove what is in", errno),
            Fault::TooDeep => HostError::Failed {
                operation: "remove",
                path: place.path.clone(),
                source: std::io::Error::other("the tree is deeper than 400 directories"),
            },
        }
    }
}

fn empty(parent: &OwnedFd, name: impl rustix::path::Arg + Copy, depth: usize) -> Result<(), Fault> {
    if depth > DEPTH {
        return Err(Fault::TooDeep);
    }
    let fd = enter(parent, name)?;
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let directory = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => {
                let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                Kind::of(stat.st_mode) == Kind::Directory
            }
            _ => false,
        };
        if directory {
            empty(&fd, name, depth + 1)?;
        }
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(&fd, name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Opens a directory, no link and no mount point: `EXDEV` for those, bind mounts included.
fn enter(parent: impl AsFd + Copy, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS) => {
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            let same = rustix::fs::fstat(parent)?.st_dev == rustix::fs::fstat(&fd)?.st_dev;
            if same { Ok(fd) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}
