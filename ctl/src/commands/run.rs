//! `lockstep run`, `retry` and `rerun`: start a Run, and follow it if asked.

use super::{get, run_name, watch::Watch};
use crate::{
    cli::{Rerun, Retry, Run as Arguments, RunSpecArguments},
    context::Session,
    error::{Error, Result},
    render::{
        alike::{self, Diffs},
        progress::Progress,
        summary,
    },
};
use lockstep_apis::{
    manifest,
    v1alpha::{
        CreateRequest, InputType, Metadata, Object, Run, RunPhase, RunRequest, RunSpec, Targets, TaskBook, Value,
        WatchEventType, WatchRequest, object::Kind as Message, value,
    },
};
use std::{
    collections::BTreeMap,
    process,
    time::{SystemTime, UNIX_EPOCH},
};

pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let book = arguments.book.as_deref().unwrap_or_default();
    let run = Run {
        metadata: Some(Metadata {
            api_version: "v1alpha".into(),
            kind: "Run".into(),
            name: arguments.name.clone().unwrap_or_else(|| generated_name(book)),
            namespace: session.namespace.clone(),
            ..Metadata::default()
        }),
        spec: Some(RunSpec {
            check: arguments.check,
            diff: arguments.diff,
            ..spec(session, Some(book), &arguments.spec).await?
        }),
        status: None,
    };
    create(session, run, arguments.wait).await
}

pub(crate) async fn retry(session: &Session, retry: &Retry) -> Result<()> {
    let request = RunRequest { namespace: session.namespace.clone(), name: run_name(&retry.run).to_owned() };
    let run = session.runs().retry(request).await?.into_inner();
    follow(session, Object { kind: Some(Message::Run(run)) }, "created", retry.wait).await
}

pub(crate) async fn rerun(session: &Session, rerun: &Rerun) -> Result<()> {
    let old = get::fetch(session, get::kind("Run")?, run_name(&rerun.run)).await?;
    let Some(Message::Run(old)) = old.kind else { return Err(Error::Usage(format!("{} is no run", rerun.run))) };
    let mut again = again_of(&old);
    if let Some(spec) = &mut again.spec {
        let book = declared(session, spec.task_books.first().map(String::as_str), &rerun.inputs).await?;
        spec.inputs.extend(inputs(&rerun.inputs, &book)?);
        spec.set.extend(set(&rerun.set)?);
    }
    if let (Some(name), Some(metadata)) = (&rerun.name, &mut again.metadata) {
        metadata.name.clone_from(name);
    }
    create(session, again, rerun.wait).await
}

/// A new Run that is asked for what the old one was: nothing that servers added.
fn again_of(old: &Run) -> Run {
    let metadata = old.metadata.clone().unwrap_or_default();
    let spec = old.spec.clone().unwrap_or_default();
    let stem = spec.task_books.first().cloned().unwrap_or_else(|| metadata.name.clone());
    Run {
        metadata: Some(Metadata {
            api_version: "v1alpha".into(),
            kind: "Run".into(),
            name: generated_name(&stem),
            namespace: metadata.namespace,
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..Metadata::default()
        }),
        spec: Some(RunSpec {
            origin: None,
            retry_of: String::new(),
            retry_nodes: Vec::new(),
            concurrency: None,
            ..spec
        }),
        status: None,
    }
}

/// Makes a Run, and says how that went, or follows it.
async fn create(session: &Session, run: Run, wait: bool) -> Result<()> {
    let asked = run.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let request = CreateRequest { object: Some(Object { kind: Some(Message::Run(run)) }), dry_run: false };
    let created = session.objects().create(request).await?.into_inner();
    // By the book's concurrency policy Join it is one that does the same already.
    let how = if created.metadata().name == asked { "created" } else { "joined: it does the same already" };
    follow(session, created, how, wait).await
}

/// What a Run is asked to do, from the command line.
pub(crate) async fn spec(session: &Session, book: Option<&str>, given: &RunSpecArguments) -> Result<RunSpec> {
    let book = book.map(|b| ["taskbook/", "book/"].iter().find_map(|p| b.strip_prefix(p)).unwrap_or(b));
    let declared = declared(session, book, &given.inputs).await?;
    Ok(RunSpec {
        task_books: book.map(str::to_owned).into_iter().collect(),
        targets: targets(given),
        inputs: inputs(&given.inputs, &declared)?,
        set: set(&given.set)?,
        tags: given.tags.clone(),
        skip_tags: given.skip_tags.clone(),
        priority: given.priority,
        ..RunSpec::default()
    })
}

/// The book, whose declarations say whether `5` is a number or a text. Without inputs it is not needed, nor asked for.
async fn declared(session: &Session, book: Option<&str>, given: &[String]) -> Result<TaskBook> {
    let Some(name) = book.filter(|_| !given.is_empty()) else { return Ok(TaskBook::default()) };
    match get::fetch(session, get::kind("TaskBook")?, name).await?.kind {
        Some(Message::TaskBook(book)) => Ok(book),
        _ => Ok(TaskBook::default()),
    }
}

/// Values of `--input`, with the types that the book declares.
pub(crate) fn inputs(given: &[String], book: &TaskBook) -> Result<BTreeMap<String, Value>> {
    let declared = book.spec.as_ref().map(|spec| &spec.inputs);
    pairs(given, "--input")?
        .map(|(name, text)| {
            let is_text = declared
                .and_then(|inputs| inputs.get(name))
                .is_none_or(|input| matches!(input.r#type(), InputType::String | InputType::Unspecified));
            let value = if is_text { value::Kind::Text(text.to_owned()).into_value() } else { yaml(name, text)? };
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// Values of `--set`, read as YAML.
pub(crate) fn set(given: &[String]) -> Result<BTreeMap<String, Value>> {
    pairs(given, "--set")?.map(|(name, text)| Ok((name.to_owned(), yaml(name, text)?))).collect()
}

fn pairs<'a>(given: &'a [String], option: &str) -> Result<impl Iterator<Item = (&'a str, &'a str)>> {
    for pair in given {
        if !pair.contains('=') {
            return Err(Error::Usage(format!("{option} {pair}: write name=value")));
        }
    }
    Ok(given.iter().filter_map(|pair| pair.split_once('=')))
}

fn yaml(name: &str, text: &str) -> Result<Value> {
    manifest::decode_value(name, text.as_bytes()).map_err(Error::Invalid)
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for value::Kind {
    fn into_value(self) -> Value {
        Value { kind: Some(self) }
    }
}

fn targets(given: &RunSpecArguments) -> Option<Targets> {
    if given.nodes.is_empty() && given.selector.is_none() && given.limit.is_none() {
        return None;
    }
    Some(Targets {
        nodes: given.nodes.clone(),
        selector: given.selector.clone().unwrap_or_default(),
        limit: given.limit.unwrap_or_default(),
        all: given.nodes.is_empty() && given.selector.is_none(),
        ..Targets::default()
    })
}

/// Unique among the Runs of one admin: a name of the book, the time and this process.
fn generated_name(book: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut number = (now.as_micros() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(process::id());
    // Letters and digits that cannot be taken for one another; no vowels, so no words.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let suffix: String = (0..6)
        .map(|_| {
            let letter = ALPHABET[(number % ALPHABET.len() as u64) as usize];
            number /= ALPHABET.len() as u64;
            char::from(letter)
        })
        .collect();
    let book = book.get(..200).unwrap_or(book).trim_end_matches(['-', '.']);
    format!("{book}-{suffix}")
}

/// Says how it came to be, or follows it to its end.
async fn follow(session: &Session, created: Object, how: &str, wait: bool) -> Result<()> {
    let metadata = created.metadata().clone();
    if !wait {
        println!("run/{} {how}", metadata.name);
        return Ok(());
    }
    let mut progress = Progress::new(&metadata.name);
    let Some(Message::Run(mut last)) = created.kind else { return Ok(()) };
    progress.show(&last);
    let request = WatchRequest {
        kind: "Run".into(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        resource_version: metadata.resource_version.clone(),
        ..WatchRequest::default()
    };
    let mut watch = Watch::new(session, request);
    while !ended(&last) {
        let event = watch.next().await?;
        if event.r#type() == WatchEventType::Deleted {
            progress.close();
            return Err(Error::Usage(format!("run/{} was deleted", metadata.name)));
        }
        if let Some(Object { kind: Some(Message::Run(run)) }) = event.object {
            progress.show(&run);
            last = run;
        }
    }
    progress.close();
    let request = RunRequest { namespace: metadata.namespace, name: metadata.name };
    let nodes = session.ask(async || session.runs().nodes(request.clone()).await).await?.nodes;
    let spec = last.spec.clone().unwrap_or_default();
    if spec.check || spec.diff {
        let name = last.metadata.as_ref().map(|own| own.name.clone()).unwrap_or_default();
        let diffs = if spec.diff { super::logs::diffs(session, &name).await? } else { Diffs::new() };
        print!("{}", alike::nodes(&nodes, &diffs, spec.check));
        print!("{}", summary::end(&last, &nodes));
    } else {
        print!("{}", summary::run(&last, &nodes));
    }
    let status = last.status.unwrap_or_default();
    match status.phase() {
        RunPhase::Succeeded if status.nodes.as_ref().is_some_and(|n| n.unreachable > 0) => Err(Error::NodesSkipped),
        RunPhase::Succeeded => Ok(()),
        _ => Err(Error::RunFailed),
    }
}

fn ended(run: &Run) -> bool {
    let phase = run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase());
    matches!(phase, RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_names() {
        let name = generated_name(&"web".repeat(90));
        assert!(name.len() <= 253);
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    }

    #[test]
    fn a_rerun_asks_for_the_same_and_nothing_that_servers_added() {
        let spec = RunSpec { task_books: vec!["web".into()], priority: 7, ..RunSpec::default() };
        let stored = RunSpec {
            retry_of: "web-old".into(),
            retry_nodes: vec!["u".into()],
            origin: Some(lockstep_apis::v1alpha::Origin::default()),
            concurrency: Some(lockstep_apis::v1alpha::Concurrency::default()),
            ..spec.clone()
        };
        let metadata =
            Metadata { name: "web-x".into(), uuid: "u".into(), namespace: "shop".into(), ..Metadata::default() };
        let again = again_of(&Run { metadata: Some(metadata), spec: Some(stored), status: None });
        assert_eq!(again.spec, Some(spec));
        let metadata = again.metadata.unwrap_or_default();
        assert!(metadata.name.starts_with("web-") && metadata.name != "web-x", "{}", metadata.name);
        assert_eq!((metadata.uuid.as_str(), metadata.namespace.as_str()), ("", "shop"));
    }

    #[test]
    fn pairs_need_an_equals_sign() {
        assert!(inputs(&["version".into()], &TaskBook::default()).is_err());
    }
}
