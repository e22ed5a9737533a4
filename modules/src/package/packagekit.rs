//! The back end that speaks to PackageKit: goals become package ids, and error codes reasons.

use std::time::Instant;

use super::Goal;
use super::backend::{Fault, Job, Prepared};
use super::database::{Asked, Database};
use crate::action::{Scope, Stream};
use crate::host::{BusFault, Package, Question, Stop, TransactionFault};

/// Asks one question, and takes the transaction back if the task ends first.
fn ask(question: Question<'_>, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<Vec<Package>, Fault> {
    let output = &mut *scope.output;
    let is_real = !matches!(
        question,
        Question::Resolve(_)
            | Question::Updates
            | Question::Install { simulate: true, .. }
            | Question::Update { simulate: true, .. }
            | Question::Remove { simulate: true, .. }
    );
    let mut last = String::new();
    let mut heard = |package: &Package| {
        let Some(doing) = package.doing().filter(|_| is_real) else { return };
        let (name, version, _) = package.parts();
        let line = format!("{doing} {name} {version}\n");
        if line != last {
            output(Stream::Stdout, line.as_bytes());
            last = line;
        }
    };
    let mut begun = None;
    let answer = {
        let (begun, heard) = (&mut begun, &mut heard);
        scope.host.on_bus(stop, |bus| async move { Ok(bus.packagekit(question, begun, heard).await) })
    };
    match answer {
        Ok(Ok(packages)) => Ok(packages),
        Ok(Err(TransactionFault::Error { code, text })) => Err(error(code, text)),
        Ok(Err(TransactionFault::Died)) => Err(Fault::Died),
        Ok(Err(fault @ TransactionFault::NotStarted)) => {
            Err(Fault::Failed { reason: "BackendNotStarted", text: fault.to_string() })
        }
        // Asked while it was on its way out: nothing was begun, or nobody knows how far it came.
        Ok(Err(TransactionFault::Bus(BusFault::Silent { .. } | BusFault::Lost))) => Err(Fault::Died),
        Ok(Err(TransactionFault::Bus(fault))) => Err(Fault::Bus(fault)),
        Err(fault) => {
            if let (BusFault::Stopped(_), Some(path)) = (&fault, begun) {
                take_back(&path, scope);
            }
            Err(Fault::Bus(fault))
        }
    }
}

/// Best effort: what is being unpacked is finished by dpkg all the same.
fn take_back(path: &str, scope: &Scope<'_>) {
    let Ok(unthrown) = crate::action::Cancel::new() else { return };
    let stop = Stop { cancel: &unthrown, deadline: Some(Instant::now() + scope.grace), grace: scope.grace };
    let _ = scope.host.on_bus(&stop, |bus| async move { bus.cancel_transaction(path).await });
}

/// Whether PackageKit can be asked at all.
pub(super) fn is_there(stop: &Stop<'_>, scope: &Scope<'_>) -> Result<bool, Fault> {
    match scope.host.on_bus(stop, |bus| async move { bus.has_packagekit().await }) {
        Ok(is_there) => Ok(is_there),
        Err(BusFault::NoBus { .. }) => Ok(false),
        Err(fault) => Err(Fault::Bus(fault)),
    }
}

/// Reads the package lists again.
pub(super) fn refresh(stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Fault> {
    ask(Question::Refresh, stop, scope).map(drop)
}

/// What would be done.
pub(super) fn prepare(job: &Job<'_>, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<Prepared, Fault> {
    let ids = match job.goal {
        Goal::Installed(names) => {
            let missing: Vec<&Asked> = names.iter().filter(|name| !job.database.holds(name)).collect();
            resolve(&missing, job.database, stop, scope)?
        }
        Goal::Latest(names) => {
            let missing: Vec<&Asked> = names.iter().filter(|name| !job.database.holds(name)).collect();
            let mut ids = resolve(&missing, job.database, stop, scope)?;
            let is_asked = |package: &Package| {
                let (name, _, architecture) = package.parts();
                names.iter().any(|asked| {
                    asked.name == name && asked.architecture.as_deref().is_none_or(|wanted| wanted == architecture)
                })
            };
            ids.extend(updates(stop, scope)?.into_iter().filter(is_asked).map(|package| package.id));
            ids
        }
        Goal::Upgraded => updates(stop, scope)?.into_iter().map(|package| package.id).collect(),
        Goal::Absent { names, .. } => {
            let there = names.iter().filter_map(|name| job.database.get(name)).filter(|found| found.is_present());
            there.map(|f| format!("{};{};{};installed", f.name, f.version, f.architecture)).collect()
        }
    };
    if ids.is_empty() {
        return Ok(Prepared::default());
    }
    let packages = ask(question(job.goal, &ids, true), stop, scope)?;
    Ok(shown(packages, ids))
}

fn question<'a>(goal: &Goal, ids: &'a [String], simulate: bool) -> Question<'a> {
    match goal {
        Goal::Installed(_) | Goal::Latest(_) => Question::Install { ids, simulate },
        Goal::Upgraded => Question::Update { ids, simulate },
        Goal::Absent { dependents, .. } => Question::Remove { ids, dependents: *dependents, simulate },
    }
}

fn shown(packages: Vec<Package>, ids: Vec<String>) -> Prepared {
    let mut prepared = Prepared { ids, ..Prepared::default() };
    for package in packages {
        let (name, version, _) = package.parts();
        let verb = match package.info {
            Package::REMOVING | Package::OBSOLETING => {
                if !prepared.ids.iter().any(|id| id.split(';').next() == Some(name)) {
                    prepared.removed.push(name.to_owned());
                }
                "remove"
            }
            11 => "upgrade",
            20 => "downgrade",
            19 => "reinstall",
            _ => "install",
        };
        prepared.lines.push(format!("{verb} {name} {version}"));
    }
    if prepared.lines.is_empty() {
        // A back end that cannot simulate says nothing; what was asked for is known all the same.
        prepared.lines = prepared.ids.iter().map(|id| id.split(';').take(2).collect::<Vec<_>>().join(" ")).collect();
    }
    prepared
}

/// Does what was prepared.
pub(super) fn apply(job: &Job<'_>, prepared: &Prepared, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Fault> {
    ask(question(job.goal, &prepared.ids, false), stop, scope).map(drop)
}

fn updates(stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<Vec<Package>, Fault> {
    let mut packages = ask(Question::Updates, stop, scope)?;
    packages.retain(|package| package.info != Package::BLOCKED);
    Ok(packages)
}

/// The ids of what is asked for; all that no repository has are named.
fn resolve(
    asked: &[&Asked],
    database: &Database<'_>,
    stop: &Stop<'_>,
    scope: &mut Scope<'_>,
) -> Result<Vec<String>, Fault> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = asked.iter().flat_map(|asked| spellings(asked, database.architecture())).collect();
    let packages = match ask(Question::Resolve(&names), stop, scope) {
        // Some back ends answer nothing at all if one name is unknown.
        Err(Fault::Failed { reason: "UnknownPackage", .. }) => Vec::new(),
        answer => answer?,
    };
    let (mut ids, mut unknown) = (Vec::new(), Vec::new());
    for asked in asked {
        match packages.iter().rev().find(|package| answers(package, asked)) {
            Some(package) => ids.push(package.id.clone()),
            None => unknown.push(asked.text()),
        }
    }
    if unknown.is_empty() { Ok(ids) } else { Err(Fault::Unknown { names: unknown }) }
}

/// How PackageKit wants a package named: a pinned version only by a full id, for each architecture that it may have.
fn spellings(asked: &Asked, architecture: &str) -> Vec<String> {
    let Some(version) = &asked.version else { return vec![asked.full_name()] };
    let architectures = match &asked.architecture {
        Some(architecture) => vec![architecture.as_str()],
        None => vec![architecture, "all"],
    };
    architectures.into_iter().map(|architecture| format!("{};{version};{architecture};", asked.name)).collect()
}

fn answers(package: &Package, asked: &Asked) -> bool {
    let (name, version, architecture) = package.parts();
    // What is only left of a removed package is `local`: no repository has it.
    let is_to_be_had = package.info == Package::AVAILABLE && !package.id.ends_with(";local");
    (is_to_be_had || package.info == Package::INSTALLED)
        && name == asked.name
        && asked.version.as_deref().is_none_or(|wanted| wanted == version)
        && asked.architecture.as_deref().is_none_or(|wanted| wanted == architecture)
}

/// PackageKit's error codes (`PkErrorEnum`) by what a book's author can do about them.
fn error(code: u32, text: String) -> Fault {
    let reason = match code {
        2 | 37 | 43 => "NoNetwork",
        3 => "NotSupported",
        5 | 30 | 31 | 50 | 51 => "NotSigned",
        6 | 8 | 49 => "UnknownPackage",
        10 => "DownloadFailed",
        13 => "DependencyConflict",
        17 => "Cancelled",
        18 | 19 | 24 | 33 => "RepositoryFault",
        20 => "VitalPackage",
        26 | 67 => return Fault::Locked,
        35 | 36 => "PackageConflict",
        38 | 40 => "PackageCorrupt",
        39 => "PackageHeld",
        45 => "WrongArchitecture",
        46 => "NoSpace",
        48 => "PermissionDenied",
        56 | 58 | 59 => "PackageScriptFailed",
        _ => "BackendFailed",
    };
    Fault::Failed { reason, text: text.lines().map(str::trim).collect::<Vec<_>>().join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_version_is_asked_for_by_its_full_id() {
        assert_eq!(spellings(&Asked::read("web"), "amd64"), ["web"]);
        assert_eq!(spellings(&Asked::read("web=1.0-1"), "amd64"), ["web;1.0-1;amd64;", "web;1.0-1;all;"]);
        assert_eq!(spellings(&Asked::read("web:i386=1"), "amd64"), ["web;1;i386;"]);
    }

    #[test]
    fn only_what_was_asked_for_answers() {
        let package = |info: u32, id: &str| Package { info, id: id.to_owned() };
        assert!(answers(&package(2, "web;2;all;lab"), &Asked::read("web")));
        assert!(!answers(&package(2, "web;2;all;lab"), &Asked::read("web=1")));
        assert!(!answers(&package(2, "web-common;2;all;lab"), &Asked::read("web")));
        assert!(!answers(&package(13, "web;2;all;lab"), &Asked::read("web")));
        assert!(!answers(&package(2, "web;2;all;local"), &Asked::read("web")));
    }

    #[test]
    fn what_is_removed_without_being_asked_for_is_known() {
        let packages = vec![
            Package { info: 12, id: "new;1;all;lab".to_owned() },
            Package { info: 13, id: "old;1;all;installed".to_owned() },
        ];
        let prepared = shown(packages, vec!["new;1;all;lab".to_owned()]);
        assert_eq!(
            (prepared.lines, prepared.removed),
            (vec!["install new 1".into(), "remove old 1".into()], vec!["old".into()])
        );
    }
}
