//! `package.held`: packages that nothing may change on its own account. dpkg keeps the mark, apt-mark sets it.

use super::database::{Asked, Database};
use crate::action::{Diff, Done, Outcome, Scope};
use crate::command;

pub(super) fn perform(names: &[Asked], held: bool, scope: &mut Scope<'_>) -> Result<Done, Done> {
    if scope.host.root().is_some() {
        return Err(Done::failed("NotInRootFolder", "packages of a root folder are not looked after"));
    }
    let texts =
        scope.host.dpkg_texts().ok_or_else(|| Done::failed("NotSupported", "this node has no dpkg database"))?;
    let different = different(names, held, &Database::parse(&texts), scope)?;
    if different.is_empty() {
        return Ok(Done::new(Outcome::Ok, "", []));
    }
    let verb = if held { "hold" } else { "unhold" };
    if !scope.check {
        mark(verb, &different, scope)?;
    }
    let message = format!("{verb} {}", different.join(", "));
    let mut done = Done::new(Outcome::Changed, message, []);
    done.diff = scope.diff.then(|| Diff {
        path: "packages".to_owned(),
        text: different.iter().map(|name| format!("{verb} {name}\n")).collect(),
    });
    Ok(done)
}

/// The names whose mark is not as wanted. A package that is not there cannot be held.
fn different(names: &[Asked], held: bool, database: &Database<'_>, scope: &Scope<'_>) -> Result<Vec<String>, Done> {
    let (mut different, mut missing) = (Vec::new(), Vec::new());
    for asked in names {
        match database.get(asked).filter(|found| found.is_present()) {
            Some(found) if found.is_held != held => different.push(asked.full_name()),
            None if held => missing.push(asked.full_name()),
            _ => {}
        }
    }
    if missing.is_empty() {
        return Ok(different);
    }
    let sentence = format!("not installed, so not to be held: {}", missing.join(", "));
    if scope.check {
        return Err(Done::new(Outcome::Unpredicted, format!("unless an earlier task installs it: {sentence}"), []));
    }
    Err(Done::failed("NotInstalled", sentence))
}

fn mark(verb: &str, names: &[String], scope: &mut Scope<'_>) -> Result<(), Done> {
    let argv: Vec<String> =
        ["apt-mark", verb, "--"].map(str::to_owned).into_iter().chain(names.iter().cloned()).collect();
    command::run_tool(&argv, None, scope)
}
