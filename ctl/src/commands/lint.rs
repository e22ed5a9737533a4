//! `lockstep lint`: what `apply` would refuse, without a cluster.

use crate::{
    cli::Lint,
    error::{Error, Result},
    manifests,
};
use lockstep_apis::v1alpha::{Object, Violation, object::Kind};
use lockstep_core::check;

pub(crate) fn lint(lint: &Lint, namespace: &str) -> Result<()> {
    let objects = manifests::read(&lint.files, namespace)?;
    let violations: Vec<Violation> =
        objects.iter().flat_map(|object| manifests::located(object, violations(object))).collect();
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    println!("{} object{} in order", objects.len(), if objects.len() == 1 { "" } else { "s" });
    Ok(())
}

/// Everything that can be known to be wrong without a cluster with an object that was read from a file: reading it
/// found out already what its own fields say.
pub(crate) fn violations(object: &Object) -> Vec<Violation> {
    match &object.kind {
        Some(Kind::TaskBook(book)) => check::book(book),
        Some(Kind::Run(run)) => check::run(run),
        Some(Kind::Variables(variables)) => check::variables(variables.spec.as_ref()),
        Some(Kind::ClusterVariables(variables)) => check::variables(variables.spec.as_ref()),
        _ => Vec::new(),
    }
}
