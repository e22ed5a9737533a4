//! `lockstep lint`: what `apply` would refuse, without a cluster.

use crate::{
    cli::Lint,
    error::{Error, Result},
    manifests,
};
use lockstep_apis::{
    v1alpha::{Object, Violation, object::Kind},
    validate,
};
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

/// Everything that can be known to be wrong without a cluster.
pub(crate) fn violations(object: &Object) -> Vec<Violation> {
    let mut found = validate::object(object);
    match &object.kind {
        Some(Kind::TaskBook(book)) => found.extend(check::book(book)),
        Some(Kind::Run(run)) => found.extend(check::run(run)),
        _ => {}
    }
    found
}
