//! The actions on packages. Knows what a book may ask of packages, and that nothing is asked of a back end when dpkg's
//! database says that all is as wanted. How a back end is spoken to is in the files beside this one and the host's.

mod apt;
mod backend;
mod converge;
mod database;
mod dnf;
mod held;
mod packagekit;
mod repository;

use std::time::Duration;

use lockstep_apis::v1alpha::{
    PackageAbsent, PackageBackend, PackageHeld, PackageInstalled, PackageLatest, PackageRepository, PackageUpgraded,
    Value,
};

use crate::action::{Action, Done, Scope};
use crate::parameters::decoded;
use converge::Task;
use database::Asked;

/// `package.installed`.
pub(crate) struct Installed;
/// `package.latest`.
pub(crate) struct Latest;
/// `package.upgraded`.
pub(crate) struct Upgraded;
/// `package.absent`.
pub(crate) struct Absent;
/// `package.held`.
pub(crate) struct Held;
/// `package.repository`.
pub(crate) struct Repository;

/// How long another program's lock is waited for, unless the book says otherwise.
const LOCK: Duration = Duration::from_secs(120);

/// What should be so.
#[derive(Debug, Clone)]
enum Goal {
    /// These are there, in their version if they have one.
    Installed(Vec<Asked>),
    /// These are there, in the newest version that a repository has.
    Latest(Vec<Asked>),
    /// No repository has a newer version of anything.
    Upgraded,
    /// These are not there.
    Absent { names: Vec<Asked>, dependents: bool },
}

impl Action for Installed {
    fn name(&self) -> &'static str {
        "package.installed"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let task = decoded(self.name(), parameters).and_then(|asked: PackageInstalled| {
            let common = Task::new(asked.backend(), asked.refresh_after.as_ref(), asked.lock_timeout.as_ref());
            Ok(common.with(Goal::Installed(read(&asked.names)?)))
        });
        ended(task.and_then(|task| task.perform(scope)))
    }
}

impl Action for Latest {
    fn name(&self) -> &'static str {
        "package.latest"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let task = decoded(self.name(), parameters).and_then(|asked: PackageLatest| {
            let common = Task::new(asked.backend(), asked.refresh_after.as_ref(), asked.lock_timeout.as_ref());
            Ok(common.with(Goal::Latest(without_versions(&asked.names)?)))
        });
        ended(task.and_then(|task| task.perform(scope)))
    }
}

impl Action for Upgraded {
    fn name(&self) -> &'static str {
        "package.upgraded"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let task = decoded(self.name(), parameters).map(|asked: PackageUpgraded| {
            let common = Task::new(asked.backend(), asked.refresh_after.as_ref(), asked.lock_timeout.as_ref());
            common.with(Goal::Upgraded)
        });
        ended(task.and_then(|task| task.perform(scope)))
    }
}

impl Action for Absent {
    fn name(&self) -> &'static str {
        "package.absent"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let task = decoded(self.name(), parameters).and_then(|asked: PackageAbsent| {
            let common = Task::new(asked.backend(), None, asked.lock_timeout.as_ref());
            let names = without_versions(&asked.names)?;
            Ok(common.with(Goal::Absent { names, dependents: asked.dependents }))
        });
        ended(task.and_then(|task| task.perform(scope)))
    }
}

impl Action for Held {
    fn name(&self) -> &'static str {
        "package.held"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let asked = decoded(self.name(), parameters);
        ended(asked.and_then(|asked: PackageHeld| {
            held::perform(&without_versions(&asked.names)?, asked.held.unwrap_or(true), scope)
        }))
    }
}

impl Action for Repository {
    fn name(&self) -> &'static str {
        "package.repository"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let asked = decoded(self.name(), parameters);
        ended(asked.and_then(|asked: PackageRepository| repository::perform(&asked, scope)))
    }
}

fn ended(done: Result<Done, Done>) -> Done {
    done.unwrap_or_else(|done| done)
}

/// Reads the names; a package that is asked for in two versions is a fault.
fn read(names: &[String]) -> Result<Vec<Asked>, Done> {
    let mut asked: Vec<Asked> = names.iter().map(|name| Asked::read(name)).collect();
    asked.sort();
    asked.dedup();
    if let Some(twice) = asked.windows(2).find(|pair| pair[0].full_name() == pair[1].full_name()) {
        let message = format!("names: {} is asked for twice, differently", twice[0].full_name());
        return Err(Done::failed("InvalidParameters", message));
    }
    Ok(asked)
}

fn without_versions(names: &[String]) -> Result<Vec<Asked>, Done> {
    let asked = read(names)?;
    match asked.iter().find(|asked| asked.version.is_some()) {
        None => Ok(asked),
        Some(pinned) => {
            let message = format!("names: {} has a version; only package.installed takes one", pinned.text());
            Err(Done::failed("InvalidParameters", message))
        }
    }
}

/// Which back end a book wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Auto,
    PackageKit,
    Apt,
    Dnf,
}

impl From<PackageBackend> for Choice {
    fn from(backend: PackageBackend) -> Choice {
        match backend {
            PackageBackend::Unspecified | PackageBackend::Auto => Choice::Auto,
            PackageBackend::PackageKit => Choice::PackageKit,
            PackageBackend::Apt => Choice::Apt,
            PackageBackend::Dnf => Choice::Dnf,
        }
    }
}
