//! `file.absent`: nothing is at the path.

use lockstep_apis::v1alpha::Value;

use super::invalid;
use crate::action::{Done, Scope};
use crate::host::{Foreseen, Host, HostError, Kind, Place, Seen};
use crate::module::{Module, Refusal};
use crate::parameters::Parameters;

/// A path at which nothing should be.
#[derive(Debug)]
pub(crate) struct AbsentPath {
    path: String,
    recursive: bool,
}

impl AbsentPath {
    /// No file at this path.
    pub(crate) fn at(path: String) -> AbsentPath {
        AbsentPath { path, recursive: false }
    }

    pub(crate) fn read(parameters: &Value) -> Result<AbsentPath, Done> {
        let mut from = Parameters::new(parameters, None);
        let wanted = AbsentPath { path: from.required("path"), recursive: from.flag("recursive") };
        from.finish().map_err(invalid)?;
        Ok(wanted)
    }
}

impl Module for AbsentPath {
    type Observed = Option<(Place, Seen)>;
    type Change = ();

    fn path(&self) -> &str {
        &self.path
    }

    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal> {
        match host.place(&self.path, false) {
            Err(HostError::ParentMissing { .. } | HostError::ParentNotDirectory { .. }) => Ok(None),
            place => {
                let place = place?;
                Ok(place.look()?.map(|seen| (place, seen)))
            }
        }
    }

    fn difference(&self, host: &Host, observed: &Self::Observed) -> Result<Option<()>, Refusal> {
        let Some((place, seen)) = observed else { return Ok(None) };
        if seen.kind == Kind::Directory && self.recursive {
            host.check_removable(place)?;
        }
        Ok(Some(()))
    }

    fn summary(&self, observed: &Self::Observed, (): &()) -> String {
        match observed {
            Some((_, seen)) => format!("removed {}", seen.kind),
            None => String::new(),
        }
    }

    fn show(&self, _host: &Host, observed: &Self::Observed, (): &(), _sensitive: bool) -> String {
        format!("{}: {}\n", self.path, self.summary(observed, &()))
    }

    fn foresee(&self, host: &Host) {
        host.foresee(&self.path, Foreseen::Gone);
    }

    fn apply(&self, observed: Self::Observed, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        let Some((place, seen)) = observed else { return Ok(()) };
        Ok(scope.host.remove(&place, &seen, self.recursive, scope.unsynced)?)
    }
}
