//! The back end that runs dnf, for nodes whose packages are rpm's. No shell, nothing that asks, signatures as the
//! repositories' own settings want them, and no name that could be an option. It knows root folders, too.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Goal;
use super::backend::{Fault, Job, Prepared};
use super::database::Asked;
use crate::action::{Done, Scope, Stream};
use crate::command;
use crate::host::{Ending, Host, Stop, TemporaryDirectory};

/// What dnf and rpm print is read up to here: a database of some ten thousand packages.
const PRINTED: usize = 4 << 20;

/// The setting for where dnf logs, and the folder in its place.
const LOGS: &str = "logdir";

/// dnf's exit code if another one is at work.
const LOCKED: i32 = 200;

/// What is known of each package, in the words of dpkg's database.
const QUERY: &str = "Package: %{NAME}\\nStatus: install ok installed\\nArchitecture: %{ARCH}\\nVersion: %{EVR}\\n\\n";

/// How a run of a package tool ended.
struct Ran {
    ending: Ending,
    printed: String,
}

/// The database; `None`: this node has no rpm.
pub(super) fn texts(scope: &mut Scope<'_>) -> Result<Option<Vec<String>>, Done> {
    let root = scope.host.root().map(|root| root.display().to_string());
    let mut argv = vec!["rpm".to_owned()];
    argv.extend(root.into_iter().flat_map(|root| ["--root".to_owned(), root]));
    argv.extend(["-qa", "--queryformat", QUERY].map(str::to_owned));
    let stop = Stop { cancel: scope.cancel, deadline: None, grace: scope.grace };
    let ran = match run(&argv, false, &stop, scope) {
        Err(Fault::Ended(done)) if done.result.get("reason").and_then(|r| r.as_text()) == Some("CommandNotFound") => {
            return Ok(None);
        }
        ran => ran.map_err(|fault| fault.told(None))?,
    };
    match ran.ending {
        Ending::Exit(0) => Ok(Some(vec![ran.printed])),
        ending => {
            let text = format!("rpm's database cannot be read: rpm ended with {}", command::describe(ending));
            Err(Done::failed("BackendFailed", text))
        }
    }
}

/// Reads the package lists again.
pub(super) fn refresh(stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Fault> {
    let mut argv = begin(scope, &[]);
    argv.extend(["makecache", "--refresh"].map(str::to_owned));
    finished(&run(&argv, true, stop, scope)?)
}

/// What would be done. A check keeps what it fetches for that in a folder that is gone when it ends.
pub(super) fn prepare(
    job: &Job<'_>,
    age: Option<Duration>,
    stop: &Stop<'_>,
    scope: &mut Scope<'_>,
) -> Result<Prepared, Fault> {
    let folder = match scope.check {
        true => Some(temporary(scope.host)?),
        false => None,
    };
    let mut settings: Vec<String> = Vec::new();
    if let Some(folder) = &folder {
        let path = folder.path().display();
        settings.extend(["cachedir", "persistdir", LOGS].map(|name| format!("{name}={path}/{name}")));
    }
    settings.extend(age.map(|age| format!("metadata_expire={}", age.as_secs().max(1))));
    let mut prepared = Prepared::default();
    for arguments in arguments(job) {
        let mut argv = begin(scope, &settings);
        argv.push("--assumeno".to_owned());
        argv.extend(arguments);
        let ran = run(&argv, false, stop, scope)?;
        // It ends with 1 when it is told no, and with 0 when there is nothing to say no to.
        if !ran.printed.contains("Transaction Summary") && ran.ending != Ending::Exit(0) {
            finished(&ran)?;
        }
        let names = match job.goal {
            Goal::Absent { names, .. } => names.as_slice(),
            _ => &[],
        };
        let more = read(&ran.printed, names);
        prepared.lines.extend(more.lines);
        prepared.removed.extend(more.removed);
    }
    Ok(prepared)
}

fn temporary(host: &Host) -> Result<TemporaryDirectory, Fault> {
    // With a root folder dnf looks for most of it there, and for one log here.
    let made = host.temporary_directory().and_then(|made| made.also_in_root(host));
    let made = made.and_then(|made| made.folder(LOGS).map(|()| made));
    made.map_err(|error| {
        let text = format!("could not make a directory for package lists: {error}");
        Fault::Failed { reason: "Failed", text }
    })
}

/// Does what was prepared.
pub(super) fn apply(job: &Job<'_>, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Fault> {
    for arguments in arguments(job) {
        let mut argv = begin(scope, &[]);
        argv.push("--assumeyes".to_owned());
        argv.extend(arguments);
        finished(&run(&argv, true, stop, scope)?)?;
    }
    Ok(())
}

fn begin(scope: &Scope<'_>, settings: &[String]) -> Vec<String> {
    let root = scope.host.root().map(|root| format!("--installroot={}", root.display()));
    // What was needed only by what goes is not asked for, so it stays.
    let fixed = ["clean_requirements_on_remove=False", "exit_on_lock=True", "color=never"].map(str::to_owned);
    let settings = fixed.into_iter().chain(settings.iter().cloned()).map(|setting| format!("--setopt={setting}"));
    std::iter::once("dnf".to_owned()).chain(root).chain(settings).collect()
}

/// dnf's own arguments, a list for each transaction; none: there is nothing to ask it.
fn arguments(job: &Job<'_>) -> Vec<Vec<String>> {
    let there = |name: &&Asked| job.database.get(name).is_some();
    let parts: Vec<(&str, Vec<String>)> = match job.goal {
        Goal::Installed(names) => {
            vec![("install", names.iter().filter(|name| !job.database.holds(name)).map(spec).collect())]
        }
        // It installs what is missing, and upgrades what is there, by different words.
        Goal::Latest(names) => vec![
            ("install", names.iter().filter(|name| !there(name)).map(spec).collect()),
            ("upgrade", names.iter().filter(there).map(spec).collect()),
        ],
        Goal::Upgraded => return vec![vec!["upgrade".to_owned()]],
        Goal::Absent { names, .. } => vec![("remove", names.iter().filter(there).map(spec).collect())],
    };
    let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
    parts.map(|(verb, names)| std::iter::once(verb.to_owned()).chain(names).collect()).collect()
}

/// As dnf takes it. It begins with a letter or digit, so it is no option.
fn spec(asked: &Asked) -> String {
    let version = asked.version.as_ref().map(|version| format!("-{version}")).unwrap_or_default();
    let architecture = asked.architecture.as_ref().map(|name| format!(".{name}")).unwrap_or_default();
    format!("{}{version}{architecture}", asked.name)
}

fn run(argv: &[String], is_shown: bool, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<Ran, Fault> {
    let environment = BTreeMap::from([("LC_ALL".to_owned(), "C.UTF-8".to_owned())]);
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
    let ended = command::run_with(argv, &environment, stop, scope.host, &mut reader).map_err(Fault::Ended)?;
    if let Some(stopped) = ended.stopped {
        return Err(Fault::Stopped(stopped));
    }
    Ok(Ran { ending: ended.ending, printed: String::from_utf8_lossy(&printed).into_owned() })
}

/// What an end other than success means, by what dnf and rpm print about it.
fn finished(ran: &Ran) -> Result<(), Fault> {
    match ran.ending {
        Ending::Exit(0) => return Ok(()),
        Ending::Exit(LOCKED) => return Err(Fault::Locked),
        _ => {}
    }
    let lines = || ran.printed.lines().map(str::trim).filter(|line| !line.is_empty());
    // For removals and upgrades dnf has words of their own.
    let unknown = ["No match for argument: ", "No packages marked for removal: "];
    let unknown = lines().filter_map(|line| unknown.iter().find_map(|begin| line.strip_prefix(begin)));
    let unknown: Vec<String> = unknown.map(str::to_owned).collect();
    if !unknown.is_empty() {
        return Err(Fault::Unknown { names: unknown });
    }
    let any = |words: &[&str]| words.iter().any(|word| ran.printed.contains(word));
    let reason = match () {
        // It says at length that it knows no key, and nothing of packages.
        () if any(&["any GPG public keys installed"]) => {
            let text = "a package must be signed, and its repository names no key: give it gpgkey".to_owned();
            return Err(Fault::Failed { reason: "NotSigned", text });
        }
        () if any(&["GPG check FAILED", "is not signed", "Public key for", "not correct for"]) => "NotSigned",
        () if any(&["Failed to download", "Cannot download", "Cannot prepare internal mirrorlist", "Curl error"]) => {
            "DownloadFailed"
        }
        () if any(&["No space left", "needs more space", "At least"]) => "NoSpace",
        () if any(&["conflicting requests", "nothing provides", "Problem:"]) => "DependencyConflict",
        () if any(&["scriptlet", "Scriptlet"]) => "PackageScriptFailed",
        () if any(&["protected packages"]) => "PackageProtected",
        () => "BackendFailed",
    };
    let telling = lines().find(|line| line.starts_with("Error: ")).filter(|line| line.len() > "Error: ".len());
    let telling = telling.or_else(|| lines().skip_while(|line| !line.starts_with("Error:")).nth(1));
    let how = command::describe(ran.ending);
    let line = telling.or_else(|| lines().next_back()).unwrap_or_default();
    Err(Fault::Failed { reason, text: format!("dnf ended with {how}: {line}") })
}

/// Reads the table of a transaction: headings at the border, one package below them behind one blank, and where its name
/// is long, the rest of it in further lines behind more.
fn read(printed: &str, removable: &[Asked]) -> Prepared {
    let mut prepared = Prepared::default();
    let (mut verb, mut rows): (Option<&str>, Vec<(&str, Vec<&str>)>) = (None, Vec::new());
    for line in printed.lines() {
        let words = line.split_whitespace();
        match (line.strip_prefix(' '), verb) {
            (None, _) => verb = heading(line),
            (Some(rest), Some(verb)) if !rest.starts_with(' ') => rows.push((verb, words.collect())),
            (Some(_), Some(_)) => rows.last_mut().into_iter().for_each(|(_, row)| row.extend(words.clone())),
            _ => {}
        }
    }
    for (verb, row) in rows {
        let [name, architecture, version, ..] = row.as_slice() else { continue };
        prepared.lines.push(format!("{verb} {name} {version}"));
        let is_asked = |asked: &Asked| {
            asked.name == *name && asked.architecture.as_deref().is_none_or(|wanted| wanted == *architecture)
        };
        if verb == "remove" && !removable.iter().any(is_asked) {
            prepared.removed.push((*name).to_owned());
        }
    }
    prepared
}

fn heading(line: &str) -> Option<&'static str> {
    let line = line.strip_suffix(':')?;
    [("Installing", "install"), ("Upgrading", "upgrade"), ("Downgrading", "downgrade"), ("Reinstalling", "reinstall")]
        .into_iter()
        .chain([("Removing", "remove")])
        .find_map(|(begin, verb)| line.starts_with(begin).then_some(verb))
}

/// Whether packages of this machine are rpm's.
pub(super) fn is_there(scope: &Scope<'_>) -> bool {
    scope.host.kernel_path_exists("/usr/bin/dnf")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Last metadata expiration check: 0:00:14 ago.
Dependencies resolved.
================================================================================
 Package             Architecture      Version           Repository        Size
================================================================================
Installing:
 demo                noarch            1:1.0-1           local            5.4 k
 a-name-that-is-much-longer-than-its-column
                     noarch            2.0-1             local            5.4 k
Upgrading:
 web                 x86_64            3-1               local            1.0 M
     replacing  old-web.x86_64 1-1
Removing:
 gone                noarch            1-1               @local              0
Removing dependent packages:
 needs-gone          noarch            1-1               @local              0

Transaction Summary
================================================================================
Install  2 Packages
";

    #[test]
    fn a_transaction_is_read() {
        let prepared = read(TABLE, &[Asked::read("gone")]);
        let lines = [
            "install demo 1:1.0-1",
            "install a-name-that-is-much-longer-than-its-column 2.0-1",
            "upgrade web 3-1",
            "remove gone 1-1",
            "remove needs-gone 1-1",
        ];
        assert_eq!(prepared.lines, lines);
        assert_eq!(prepared.removed, ["needs-gone"]);
        assert_eq!(read("Nothing to do.\nComplete!\n", &[]), Prepared::default());
    }

    #[test]
    fn ends_have_reasons() {
        let ended =
            |code: i32, printed: &str| finished(&Ran { ending: Ending::Exit(code), printed: printed.to_owned() });
        let printed =
            "No match for argument: nope\nNo match for argument: web-9\nError: Unable to find a match: nope web-9\n";
        let Err(Fault::Unknown { names }) = ended(1, printed) else { panic!() };
        assert_eq!(names, ["nope", "web-9"]);
        assert!(matches!(ended(200, "metadata already locked by 7"), Err(Fault::Locked)));
        for (printed, reason, text) in [
            ("Error: GPG check FAILED\n", "NotSigned", "GPG check FAILED"),
            ("Error:\n Problem: conflicting requests\n  - nothing provides x\n", "DependencyConflict", "conflicting"),
            ("Error: Failed to download metadata for repo 'a'\n", "DownloadFailed", "repo 'a'"),
            ("whatever\n", "BackendFailed", "whatever"),
        ] {
            let Err(Fault::Failed { reason: found, text: told }) = ended(1, printed) else { panic!("{printed}") };
            assert!(found == reason && told.contains(text), "{found} {told}");
        }
    }

    #[test]
    fn names_are_written_as_dnf_reads_them() {
        for (name, text) in [("web", "web"), ("web=1:2-3", "web-1:2-3"), ("web:x86_64=2", "web-2.x86_64")] {
            assert_eq!(spec(&Asked::read(name)), text);
        }
    }
}
