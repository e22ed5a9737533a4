//! Makes symbolic links; one that is replaced never leaves a gap.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::filesystem::Durability;
use super::owner::Owner;
use super::replace::{sweep, temporary_name};
use super::{Host, HostError, Place, Unsynced};

impl Host {
    /// Puts a link to `target` at the place: over the link that is there if `replaces`, else where nothing is.
    pub(crate) fn put_link(
        &self,
        place: &Place,
        target: &str,
        replaces: bool,
        unsynced: &mut Unsynced,
    ) -> Result<(), HostError> {
        let owner = self.owner(&place.dir);
        let acting = owner.as_deref().map(Owner::act).transpose();
        let acting = acting.map_err(|errno| place.errno("make the link", errno))?;
        sweep(&place.dir);
        let (fd, name) = (&place.dir.fd, temporary_name());
        rustix::fs::symlinkat(target, fd, &name).map_err(|errno| place.errno("make the link", errno))?;
        let flags = if replaces { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let renamed = match rustix::fs::renameat_with(fd, &name, fd, &place.name, flags) {
            // File systems without NOREPLACE; what came in between is then replaced, if it is no directory.
            Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(fd, &name, fd, &place.name),
            renamed => renamed,
        };
        if let Err(errno) = renamed {
            // Best effort: the next writer in this directory removes it otherwise.
            let _ = rustix::fs::unlinkat(fd, &name, AtFlags::empty());
            return Err(match errno {
                Errno::EXIST | Errno::ISDIR => HostError::Unsteady { path: place.path.clone() },
                errno => place.errno("make the link", errno),
            });
        }
        drop(acting);
        self.forget();
        if self.durability(&place.dir) != Durability::Volatile {
            unsynced.add_dir(&place.dir);
        }
        Ok(())
    }
}
