//! Actions that converge: observe, find the difference, apply exactly that.

use crate::action::{Diff, Done, Outcome, Scope};
use crate::host::{Host, HostError};

/// Why a module changes nothing, although something is not as wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The machine cannot be read, or must not be changed like that.
    #[error(transparent)]
    Host(#[from] HostError),
    /// What the module found is no ground to work on; `reason` is its class.
    #[error("{message}")]
    Module { reason: &'static str, message: String },
}

impl From<Refusal> for Done {
    fn from(refusal: Refusal) -> Done {
        match refusal {
            Refusal::Host(error) => error.into(),
            Refusal::Module { reason, message } => Done::failed(reason, message),
        }
    }
}

/// A state that something of the machine should have.
pub(crate) trait Module {
    /// What is there now.
    type Observed;
    /// What has to be done; only made if something has to.
    type Change;

    /// What it is about, for diffs and results.
    fn path(&self) -> &str;

    /// Reads the machine. Changes nothing.
    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal>;

    /// Compares; pure. `None`: it is as wanted.
    ///
    /// # Errors
    /// What is there must not be changed like that.
    fn difference(&self, host: &Host, observed: &Self::Observed) -> Result<Option<Self::Change>, Refusal>;

    /// What the change is, in a few words.
    fn summary(&self, observed: &Self::Observed, change: &Self::Change) -> String;

    /// What the change is, line by line.
    fn show(&self, host: &Host, observed: &Self::Observed, change: &Self::Change, sensitive: bool) -> String;

    /// Notes what later tasks of a check can count on.
    fn foresee(&self, _host: &Host) {}

    /// Changes the machine.
    fn apply(&self, observed: Self::Observed, change: Self::Change, scope: &mut Scope<'_>) -> Result<(), Done>;
}

/// Brings the machine to the module's state, or says in check mode what would change.
pub(crate) fn converge(module: &impl Module, scope: &mut Scope<'_>) -> Done {
    let path = module.path().to_owned();
    match try_converge(module, scope) {
        Err(done) => done,
        Ok(None) => Done::new(Outcome::Ok, "", [("path", path.into())]),
        Ok(Some((summary, text))) => {
            let mut done = Done::new(Outcome::Changed, summary, [("path", path.as_str().into())]);
            done.diff = text.map(|text| Diff { path, text });
            done
        }
    }
}

/// A change in a few words, and the diff if one was asked for.
type Shown = (String, Option<String>);

fn try_converge(module: &impl Module, scope: &mut Scope<'_>) -> Result<Option<Shown>, Done> {
    let observed = match module.observe(scope.host) {
        Err(Refusal::Host(error @ (HostError::ParentMissing { .. } | HostError::FileMissing { .. })))
            if scope.check =>
        {
            return Err(Done::new(Outcome::Unpredicted, format!("unless an earlier task makes it: {error}"), []));
        }
        observed => observed?,
    };
    let Some(change) = module.difference(scope.host, &observed)? else { return Ok(None) };
    let summary = module.summary(&observed, &change);
    let text = scope.diff.then(|| module.show(scope.host, &observed, &change, scope.sensitive));
    if scope.check {
        module.foresee(scope.host);
    } else {
        module.apply(observed, change, scope)?;
    }
    Ok(Some((summary, text)))
}
