//! The back end that runs apt-get, for nodes without PackageKit and for what PackageKit cannot mend. No shell, nothing
//! that asks, and every name after `--`.

use std::collections::BTreeMap;

use super::Goal;
use super::backend::{Fault, Job, Prepared};
use super::database::Asked;
use crate::action::{Scope, Stream};
use crate::command;
use crate::host::{Ending, Stop};

/// apt waits for another program's lock by itself, too: one may take it between our look and its own.
const LOCK: &str = "DPkg::Lock::Timeout=10";

/// What apt-get printed is read up to here.
const PRINTED: usize = 4 << 20;

/// How a run of a package tool ended.
struct Ran {
    ending: Ending,
    printed: String,
}

/// Reads the package lists again.
pub(super) fn refresh(stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Fault> {
    let ran = run(&["apt-get", "-q", "-o", LOCK, "update"], true, stop, scope)?;
    finished(&ran)
}

/// What would be done.
pub(super) fn prepare(job: &Job<'_>, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<Prepared, Fault> {
    let Some(arguments) = arguments(job) else { return Ok(Prepared::default()) };
    // A simulation needs no lock and no root.
    let simulate = ["apt-get", "-q", "-s", "-o", "Debug::NoLocking=true"].map(str::to_owned);
    let argv: Vec<String> = simulate.into_iter().chain(arguments).collect();
    let ran = run(&argv.iter().map(String::as_str).collect::<Vec<_>>(), false, stop, scope)?;
    finished(&ran)?;
    let names = match job.goal {
        Goal::Installed(names) | Goal::Latest(names) | Goal::Absent { names, .. } => names.as_slice(),
        Goal::Upgraded => &[],
    };
    let is_removal = matches!(job.goal, Goal::Absent { .. });
    Ok(read(&ran.printed, if is_removal { names } else { &[] }))
}

/// Does what was prepared.
pub(super) fn apply(job: &Job<'_>, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Fault> {
    let Some(arguments) = arguments(job) else { return Ok(()) };
    if scope.host.dpkg_is_interrupted() || job.database.broken().next().is_some() {
        // What it cannot configure, a newer version that is asked for may mend; so its end is not ours.
        run(&["dpkg", "--force-confold", "--configure", "-a"], true, stop, scope)?;
    }
    let fixed = [
        "apt-get",
        "-q",
        "-y",
        "-o",
        LOCK,
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        "-o",
        "Dpkg::Use-Pty=0",
    ];
    let argv: Vec<String> = fixed.map(str::to_owned).into_iter().chain(arguments).collect();
    let ran = run(&argv.iter().map(String::as_str).collect::<Vec<_>>(), true, stop, scope)?;
    finished(&ran)
}

/// apt-get's own arguments; `None`: there is nothing to ask it.
fn arguments(job: &Job<'_>) -> Option<Vec<String>> {
    let (verb, names): (&[&str], Vec<String>) = match job.goal {
        Goal::Installed(names) => {
            let missing = names.iter().filter(|name| !job.database.holds(name));
            (&["--allow-downgrades", "install"], missing.map(Asked::text).collect())
        }
        Goal::Latest(names) => (&["install"], names.iter().map(Asked::text).collect()),
        Goal::Upgraded => return Some(["--with-new-pkgs", "upgrade"].map(str::to_owned).to_vec()),
        Goal::Absent { names, .. } => {
            let there = names.iter().filter(|name| job.database.get(name).is_some_and(|found| found.is_present()));
            (&["remove"], there.map(Asked::full_name).collect())
        }
    };
    if names.is_empty() {
        return None;
    }
    Some(verb.iter().map(|word| (*word).to_owned()).chain(["--".to_owned()]).chain(names).collect())
}

fn run(argv: &[&str], is_shown: bool, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<Ran, Fault> {
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    let environment = BTreeMap::from([
        ("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned()),
        ("DEBIAN_PRIORITY".to_owned(), "critical".to_owned()),
        ("APT_LISTCHANGES_FRONTEND".to_owned(), "none".to_owned()),
        ("NEEDRESTART_MODE".to_owned(), "l".to_owned()),
        ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
    ]);
    let mut printed = Vec::new();
    let output = &mut *scope.output;
    let mut reader = |stream: Stream, bytes: &[u8]| {
        if printed.len() < PRINTED {
            printed.extend_from_slice(bytes);
        }
        if is_shown {
            output(stream, bytes);
        }
    };
    let ended = command::run_with(&argv, &environment, stop, scope.host, &mut reader).map_err(Fault::Ended)?;
    if let Some(stopped) = ended.stopped {
        return Err(Fault::Stopped(stopped));
    }
    Ok(Ran { ending: ended.ending, printed: String::from_utf8_lossy(&printed).into_owned() })
}

/// What an end other than success means, by what apt and dpkg print about it.
fn finished(ran: &Ran) -> Result<(), Fault> {
    if ran.ending == Ending::Exit(0) {
        return Ok(());
    }
    let errors: Vec<&str> = ran.printed.lines().filter_map(|line| line.strip_prefix("E: ")).collect();
    let unknown: Vec<String> = errors.iter().filter_map(|line| unknown(line)).collect();
    if !unknown.is_empty() {
        return Err(Fault::Unknown { names: unknown });
    }
    let any = |words: &[&str]| words.iter().any(|word| ran.printed.contains(word));
    let reason = match () {
        () if any(&["Could not get lock", "is another process using it"]) => return Err(Fault::Locked),
        () if any(&["Held packages were changed"]) => "PackageHeld",
        () if any(&["unmet dependencies", "held broken packages"]) => "DependencyConflict",
        () if any(&["is not signed", "cannot be authenticated", "NO_PUBKEY"]) => "NotSigned",
        () if any(&["Unable to fetch", "Failed to fetch"]) => "DownloadFailed",
        () if any(&["No space left", "not enough free space"]) => "NoSpace",
        () if any(&["subprocess returned error", "maintainer script", "installed "]) && any(&["error processing"]) => {
            "PackageScriptFailed"
        }
        () => "BackendFailed",
    };
    let how = command::describe(ran.ending);
    let last = errors.first().copied().or_else(|| ran.printed.lines().rev().find(|line| !line.trim().is_empty()));
    Err(Fault::Failed { reason, text: format!("apt-get ended with {how}: {}", last.unwrap_or_default().trim()) })
}

/// The name in apt's words for one that it does not know.
fn unknown(line: &str) -> Option<String> {
    if let Some(name) = line.strip_prefix("Unable to locate package ") {
        return Some(name.to_owned());
    }
    if let Some(rest) = line.strip_prefix("Version '") {
        let (version, rest) = rest.split_once("' for '")?;
        return Some(format!("{}={version}", rest.split_once("' was not found")?.0));
    }
    let name = line.strip_prefix("Package '")?.split_once("' has no installation candidate")?.0;
    Some(name.to_owned())
}

/// Reads a simulation: `Inst demo [1.0] (1.1 localhost [all])`, `Remv demo [1.1]`, and `Conf demo (1.1 …)` after each
/// `Inst`, or alone for what is half configured.
fn read(printed: &str, removable: &[Asked]) -> Prepared {
    let mut prepared = Prepared::default();
    let mut installed = Vec::new();
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        let (verb, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let rest: Vec<&str> = words.collect();
        let new = rest.iter().find_map(|word| word.strip_prefix('(')).unwrap_or_default();
        let old = rest.first().and_then(|word| word.strip_prefix('[')).map(|word| word.trim_end_matches(']'));
        if verb == "Inst" {
            installed.push(name);
        }
        match verb {
            "Conf" if !installed.contains(&name) => prepared.lines.push(format!("configure {name} {new}")),
            "Inst" if old.is_some() => prepared.lines.push(format!("upgrade {name} {new}")),
            "Inst" => prepared.lines.push(format!("install {name} {new}")),
            "Remv" | "Purg" => {
                prepared.lines.push(format!("remove {name} {}", old.unwrap_or_default()));
                if !removable.iter().any(|asked| asked.name == name || asked.full_name() == name) {
                    prepared.removed.push(name.to_owned());
                }
            }
            _ => {}
        }
    }
    prepared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_is_read() {
        let printed = "Reading package lists...\nInst demo (1.0 localhost [all])\nInst web [1.0] (1.1 localhost [all]) []\nRemv old [3]\nConf demo (1.0 localhost [all])\n";
        let prepared = read(printed, &[]);
        assert_eq!(prepared.lines, ["install demo 1.0", "upgrade web 1.1", "remove old 3"]);
        assert_eq!(prepared.removed, ["old"]);
        assert!(read(printed, &[Asked::read("old")]).removed.is_empty());
        assert_eq!(read("Conf half (2 localhost [all])\n", &[]).lines, ["configure half 2"]);
    }

    #[test]
    fn every_unknown_name_is_told() {
        let printed = "E: Unable to locate package nope\nE: Version '9' for 'web' was not found\nE: Package 'virtual' has no installation candidate\n";
        let fault = finished(&Ran { ending: Ending::Exit(100), printed: printed.to_owned() });
        let Err(Fault::Unknown { names }) = fault else { panic!("{fault:?}") };
        assert_eq!(names, ["nope", "web=9", "virtual"]);
    }

    #[test]
    fn ends_have_reasons() {
        for (printed, reason) in [
            ("E: Unable to fetch some archives", "DownloadFailed"),
            (
                "dpkg: error processing package web (--configure):\n installed web package post-installation script subprocess returned error exit status 1",
                "PackageScriptFailed",
            ),
            ("E: Unable to correct problems, you have held broken packages.", "DependencyConflict"),
            ("E: The repository is not signed.", "NotSigned"),
            ("E: something else", "BackendFailed"),
        ] {
            let fault = finished(&Ran { ending: Ending::Exit(100), printed: printed.to_owned() });
            assert!(matches!(fault, Err(Fault::Failed { reason: found, .. }) if found == reason), "{printed}");
        }
        let locked = Ran { ending: Ending::Exit(100), printed: "E: Could not get lock /var/lib/dpkg/lock".into() };
        assert!(matches!(finished(&locked), Err(Fault::Locked)));
    }
}
