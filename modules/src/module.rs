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

    /// What [`Module::path`] is called in the result.
    fn key(&self) -> &'static str {
        "path"
    }

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
        Ok(None) => Done::new(Outcome::Ok, "", [(module.key(), path.into())]),
        Ok(Some((summary, text))) => {
            let mut done = Done::new(Outcome::Changed, summary, [(module.key(), path.as_str().into())]);
            done.diff = text.map(|text| Diff { path, text });
            done
        }
    }
}

/// In a check, an earlier task that did not run may be what is missing.
fn judged(refusal: Refusal, check: bool) -> Done {
    match refusal {
        Refusal::Host(error) if check && error.is_something_missing() => error.unpredicted(),
        refusal => refusal.into(),
    }
}

/// A change in a few words, and the diff if one was asked for.
type Shown = (String, Option<String>);

fn try_converge(module: &impl Module, scope: &mut Scope<'_>) -> Result<Option<Shown>, Done> {
    if scope.check && scope.host.foreseen(module.path()).is_some() {
        return Err(Done::new(Outcome::Unpredicted, "an earlier task would change it first", []));
    }
    let observed = module.observe(scope.host).map_err(|refusal| judged(refusal, scope.check))?;
    let difference = module.difference(scope.host, &observed).map_err(|refusal| judged(refusal, scope.check))?;
    let Some(change) = difference else { return Ok(None) };
    let summary = module.summary(&observed, &change);
    let text = scope.diff.then(|| module.show(scope.host, &observed, &change, scope.sensitive));
    if scope.check {
        module.foresee(scope.host);
    } else {
        module.apply(observed, change, scope)?;
        scope.host.foresee_nothing();
    }
    Ok(Some((summary, text)))
}
