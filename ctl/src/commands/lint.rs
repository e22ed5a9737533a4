//! `lockstep lint`: what `apply` would refuse, without a cluster.

use crate::{
    cli::Lint,
    error::{Error, Result},
    manifests,
};
use lockstep_apis::v1alpha::{Object, Violation, object::Kind};
use lockstep_core::{Library, check};

pub(crate) fn lint(lint: &Lint, namespace: &str) -> Result<()> {
    let objects = manifests::read(&lint.files, namespace)?;
    let violations = all_violations(&objects);
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    println!("{} object{} in order", objects.len(), if objects.len() == 1 { "" } else { "s" });
    Ok(())
}

/// All that is wrong with these objects, which may include each other.
pub(crate) fn all_violations(objects: &[Object]) -> Vec<Violation> {
    let books = objects.iter().filter_map(|object| match &object.kind {
        Some(Kind::TaskBook(book)) => Some(book),
        _ => None,
    });
    // Others may be in the cluster.
    let library = Library::some(books);
    objects.iter().flat_map(|object| manifests::located(object, violations(object, &library))).collect()
}

/// Everything that can be known to be wrong without a cluster with an object that was read from a file: reading it
/// found out already what its own fields say.
pub(crate) fn violations(object: &Object, library: &Library<'_>) -> Vec<Violation> {
    match &object.kind {
        Some(Kind::TaskBook(book)) => check::book_among(book, library),
        Some(Kind::Run(run)) => check::run(run),
        Some(Kind::Variables(variables)) => check::variables(variables.spec.as_ref()),
        Some(Kind::ClusterVariables(variables)) => check::variables(variables.spec.as_ref()),
        _ => Vec::new(),
    }
}
