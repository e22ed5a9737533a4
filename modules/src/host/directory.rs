//! Makes directories.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::filesystem::Durability;
use super::owner::Owner;
use super::replace::chown;
use super::{Host, HostError, Place, Unsynced};

impl Host {
    /// Makes a directory where nothing is. Only its maker can enter it until owner and mode are final.
    pub(crate) fn make_directory(
        &self,
        place: &Place,
        mode: u32,
        uid: u32,
        gid: u32,
        unsynced: &mut Unsynced,
    ) -> Result<(), HostError> {
        let failed = |errno| place.errno("make the directory", errno);
        // One that is to be another's is made by root, who alone can give it away.
        let owner = self.owner(&place.dir).filter(|owner| owner.may_give(uid, gid));
        let acting = owner.as_deref().map(Owner::act).transpose().map_err(failed)?;
        match rustix::fs::mkdirat(&place.dir.fd, &place.name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => return Err(HostError::Unsteady { path: place.path.clone() }),
            made => made.map_err(failed)?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.dir.fd, &place.name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        let maker = owner.as_ref().map_or(self.euid(), |owner| owner.uid);
        if stat.st_uid != maker || stat.st_mode & 0o777 != 0o700 {
            return Err(HostError::Unsteady { path: place.path.clone() });
        }
        let owner = (uid != stat.st_uid).then_some(uid);
        let group = (gid != stat.st_gid).then_some(gid);
        if owner.is_some() || group.is_some() {
            chown(&fd, owner, group).map_err(failed)?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(failed)?;
        drop(acting);
        if self.durability(&place.dir) != Durability::Volatile {
            unsynced.add_file(stat.st_dev, fd);
            unsynced.add_dir(&place.dir);
        }
        Ok(())
    }
}
