//! What a shell offers when somebody presses Tab: commands and options from the command line's own description; kinds,
//! actions, contexts and the names of objects from here. Silent and quick: without an answer nothing is offered.

use crate::{
    cli::{Cli, Global},
    commands,
    context::{self, Context},
    error::{Error, Result},
};
use clap::CommandFactory;
use clap_complete::{CompleteEnv, engine::CompletionCandidate, env::Shells};
use lockstep_apis::{
    kinds::{self, Kind},
    params,
    v1alpha::ListRequest,
};
use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    time::Duration,
};

/// The shell's script sets it to the shell's name when it asks.
const VARIABLE: &str = "LOCKSTEP_COMPLETE";

/// Somebody waits with a finger on the key.
const PATIENCE: Duration = Duration::from_millis(1500);

/// More names than this help nobody.
const MOST: u32 = 500;

/// If a shell asks, answers it and ends the process.
pub(crate) fn answer_a_shell() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Prints what a shell is to source.
pub(crate) fn script(shell: &str) -> Result<()> {
    let shells = Shells::builtins();
    let known = || shells.names().collect::<Vec<_>>().join(", ");
    let found =
        shells.completer(shell).ok_or_else(|| Error::Usage(format!("no shell {shell}; there are {}", known())))?;
    // Where it is now: a build that is tried out completes for itself.
    let own = env::current_exe().map_or_else(|_| "lockstep".to_owned(), |path| path.display().to_string());
    let written = found.write_registration(VARIABLE, "lockstep", "lockstep", &own, &mut io::stdout());
    written.map_err(|e| Error::File("standard output".into(), e))
}

/// Kinds, in the plural; behind `KIND/` its objects.
pub(crate) fn kinds(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    match typed.split_once('/') {
        Some((word, start)) => match kinds::find(word) {
            Some(kind) => {
                offered(names_of(kind).into_iter().map(|name| format!("{word}/{name}")), &format!("{word}/{start}"))
            }
            None => Vec::new(),
        },
        None => offered(kinds::all().iter().map(|kind| kind.plural.to_owned()), &typed),
    }
}

/// Objects of the kind that stands before on the line.
pub(crate) fn names(current: &OsStr) -> Vec<CompletionCandidate> {
    let kind = words().iter().skip(1).find_map(|word| kinds::find(word));
    kind.map(|kind| offered(names_of(kind), &current.to_string_lossy())).unwrap_or_default()
}

pub(crate) fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    of_kind("Node", current)
}

pub(crate) fn books(current: &OsStr) -> Vec<CompletionCandidate> {
    of_kind("TaskBook", current)
}

pub(crate) fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    of_kind("Run", current)
}

pub(crate) fn locks(current: &OsStr) -> Vec<CompletionCandidate> {
    of_kind("Lock", current)
}

pub(crate) fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    of_kind("Namespace", current)
}

pub(crate) fn actions(current: &OsStr) -> Vec<CompletionCandidate> {
    offered(params::actions().iter().map(|action| action.name.to_owned()), &current.to_string_lossy())
}

/// Kinds and actions.
pub(crate) fn topics(current: &OsStr) -> Vec<CompletionCandidate> {
    let topics = kinds::all().iter().map(|kind| kind.name).chain(params::actions().iter().map(|action| action.name));
    offered(topics.map(str::to_owned), &current.to_string_lossy())
}

pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let files = context::files();
    let stems = files.iter().filter_map(|file| file.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    offered(stems, &current.to_string_lossy())
}

fn of_kind(name: &str, current: &OsStr) -> Vec<CompletionCandidate> {
    kinds::find(name).map(|kind| offered(names_of(kind), &current.to_string_lossy())).unwrap_or_default()
}

fn offered(all: impl IntoIterator<Item = String>, start: &str) -> Vec<CompletionCandidate> {
    all.into_iter().filter(|name| name.starts_with(start)).map(CompletionCandidate::new).collect()
}

/// The line that is being typed, as the shell hands it on.
fn words() -> Vec<String> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    words.map(|word: OsString| word.to_string_lossy().into_owned()).collect()
}

/// The value of an option on that line.
fn option(names: [&str; 2]) -> Option<String> {
    let words = words();
    let at = words.iter().position(|word| names.contains(&word.as_str()))?;
    words.get(at + 1).filter(|value| !value.is_empty()).cloned()
}

fn names_of(kind: &'static Kind) -> Vec<String> {
    let global = Global {
        context: option(["--context", "--context"]).or_else(|| env::var("LOCKSTEP_CONTEXT").ok()),
        namespace: option(["-n", "--namespace"]).or_else(|| env::var("LOCKSTEP_NAMESPACE").ok()),
    };
    let asked = async {
        let session = Context::load(&global)?.connect().await?;
        let namespace = if kind.namespaced { session.namespace.clone() } else { String::new() };
        let request = ListRequest { kind: kind.name.to_owned(), namespace, limit: MOST, ..ListRequest::default() };
        let page = session.ask(async || session.objects().list(request.clone()).await).await?;
        Ok(page.items.iter().map(|object| object.metadata().name.clone()).collect())
    };
    let in_time = async { tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Ok(Vec::new())) };
    commands::block_on(in_time).unwrap_or_default()
}
