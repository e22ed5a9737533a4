//! `file.symlink`: a symbolic link that points there.

use lockstep_apis::v1alpha::Value;

use super::invalid;
use crate::action::{Done, Scope};
use crate::host::{Foreseen, Host, HostError, Kind, Place};
use crate::module::{Module, Refusal};
use crate::parameters::Parameters;

/// Longest target, as in `symlink(7)`.
const TARGET_BYTES: usize = 4095;

/// What a book asks of a link.
#[derive(Debug)]
pub(super) struct Link {
    path: String,
    target: String,
    parents: bool,
}

impl Link {
    pub(super) fn read(parameters: &Value) -> Result<Link, Done> {
        let mut from = Parameters::new(parameters, None);
        let link = Link { path: from.required("path"), target: from.required("target"), parents: from.flag("parents") };
        if link.target.is_empty() || link.target.len() > TARGET_BYTES || link.target.contains('\0') {
            from.fault("target is no path of 1 to 4095 bytes");
        }
        from.finish().map_err(invalid)?;
        Ok(link)
    }
}

impl Module for Link {
    /// The place, if its parent is there, and where the link there points.
    type Observed = (Option<Place>, Option<String>);
    type Change = ();

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
        let target = match place.look()? {
            None => None,
            Some(seen) if seen.kind == Kind::Symlink => Some(place.link()?),
            Some(seen) => {
                let path = self.path.clone();
                return Err(HostError::WrongKind { path, found: seen.kind, wanted: Kind::Symlink }.into());
            }
        };
        Ok((Some(place), target))
    }

    fn difference(&self, _host: &Host, (_, target): &Self::Observed) -> Result<Option<()>, Refusal> {
        Ok((target.as_ref() != Some(&self.target)).then_some(()))
    }

    fn summary(&self, (_, target): &Self::Observed, (): &()) -> String {
        match target {
            None => format!("created, to {}", self.target),
            Some(target) => format!("target {target} → {}", self.target),
        }
    }

    fn show(&self, _host: &Host, observed: &Self::Observed, (): &(), _sensitive: bool) -> String {
        format!("{}: {}\n", self.path, self.summary(observed, &()))
    }

    fn foresee(&self, host: &Host) {
        host.foresee(&self.path, Foreseen::Other);
    }

    fn apply(&self, (place, target): Self::Observed, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        let place = match place {
            Some(place) => place,
            None => scope.host.place(&self.path, true)?,
        };
        Ok(scope.host.put_link(&place, &self.target, target.is_some(), scope.unsynced)?)
    }
}
