//! `file.directory`: a directory with this owner and mode.

use lockstep_apis::v1alpha::Value;

use super::{Attributes, RawAttributes, Settled, invalid};
use crate::action::{Done, Scope};
use crate::host::{Foreseen, Host, HostError, Kind, Place, Seen};
use crate::module::{Module, Refusal};
use crate::parameters::Parameters;

/// Mode of a new directory that the book gives none.
const NEW_MODE: u32 = 0o755;

/// What a book asks of a directory.
#[derive(Debug)]
pub(super) struct ManagedDirectory {
    path: String,
    attributes: Attributes,
    parents: bool,
}

impl ManagedDirectory {
    pub(super) fn read(parameters: &Value, scope: &Scope<'_>) -> Result<ManagedDirectory, Done> {
        let mut from = Parameters::new(parameters, None);
        let path = from.required("path");
        let raw = RawAttributes::read(&mut from);
        let parents = from.flag("parents");
        from.finish().map_err(invalid)?;
        Ok(ManagedDirectory { path, attributes: raw.resolve(scope.host, scope.check)?, parents })
    }
}

impl Module for ManagedDirectory {
    type Observed = (Option<Place>, Option<Seen>);
    /// `None`: make it.
    type Change = Option<Settled>;

    fn path(&self) -> &str {
        &self.path
    }

    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal> {
        let place = match host.place(&self.path, false) {
            Err(HostError::ParentMissing { .. }) if self.parents || host.parent_is_foreseen(&self.path) => {
                return Ok((None, None));
            }
            place => place?,
        };
        let path = self.path.clone();
        match place.look()? {
            Some(seen) if seen.kind == Kind::Symlink => {
                let target = place.link()?;
                Err(HostError::DirectorySymlink { path, target }.into())
            }
            Some(seen) if seen.kind != Kind::Directory => {
                Err(HostError::WrongKind { path, found: seen.kind, wanted: Kind::Directory }.into())
            }
            seen => Ok((Some(place), seen)),
        }
    }

    fn difference(&self, _host: &Host, (_, seen): &Self::Observed) -> Result<Option<Self::Change>, Refusal> {
        let Some(seen) = seen else { return Ok(Some(None)) };
        let settled = Settled::over(&self.attributes, seen);
        Ok((!settled.holds(seen)).then_some(Some(settled)))
    }

    fn summary(&self, (_, seen): &Self::Observed, change: &Self::Change) -> String {
        match seen.as_ref().zip(*change) {
            None => "created".to_owned(),
            Some((seen, settled)) => settled.changes(seen).join(", "),
        }
    }

    fn show(&self, _host: &Host, observed: &Self::Observed, change: &Self::Change, _sensitive: bool) -> String {
        format!("{}: {}\n", self.path, self.summary(observed, change))
    }

    fn foresee(&self, host: &Host) {
        host.foresee(&self.path, Foreseen::Directory);
    }

    fn apply(&self, (place, seen): Self::Observed, change: Self::Change, scope: &mut Scope<'_>) -> Result<(), Done> {
        let place = match place {
            Some(place) => place,
            None => scope.host.place(&self.path, self.parents)?,
        };
        match seen.zip(change) {
            Some((seen, Settled { mode, uid, gid })) => {
                Ok(scope.host.set_attributes(&place, &seen, mode, (uid, gid), scope.unsynced)?)
            }
            None => {
                let (uid, gid) = scope.host.default_owner(&place.dir);
                let settled = Settled {
                    mode: self.attributes.mode.unwrap_or(NEW_MODE),
                    uid: self.attributes.uid.unwrap_or(uid),
                    gid: self.attributes.gid.unwrap_or(gid),
                };
                Ok(scope.host.make_directory(&place, settled.mode, settled.uid, settled.gid, scope.unsynced)?)
            }
        }
    }
}
