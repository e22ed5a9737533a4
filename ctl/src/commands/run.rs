//! `lockstep run`, `retry` and `rerun`: start a Run, and follow it if asked.

use super::{
    adhoc,
    follow::{Show, create, follow, generated_name, new},
    get, run_name,
};
use crate::{
    cli::{Rerun, Retry, Run as Arguments, RunSpecArguments},
    context::Session,
    error::{Error, Result},
};
use lockstep_apis::{
    manifest,
    v1alpha::{
        InputType, Metadata, Object, Run, RunRequest, RunSpec, Targets, TaskBook, Value, object::Kind as Message, value,
    },
};
use std::collections::BTreeMap;

pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    if !arguments.task.is_empty() {
        return adhoc::task(session, arguments).await;
    }
    let book = arguments.book.as_deref().unwrap_or_default();
    let spec =
        RunSpec { check: arguments.check, diff: arguments.diff, ..spec(session, Some(book), &arguments.spec).await? };
    create(session, new(session, book, arguments.name.as_deref(), spec), Show::waiting(arguments.wait)).await
}

pub(crate) async fn retry(session: &Session, retry: &Retry) -> Result<()> {
    let request = RunRequest { namespace: session.namespace.clone(), name: run_name(&retry.run).to_owned() };
    let run = session.runs().retry(request).await?.into_inner();
    follow(session, Object { kind: Some(Message::Run(run)) }, "created", Show::waiting(retry.wait)).await
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
    create(session, again, Show::waiting(rerun.wait)).await
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

/// Those that the command line names; none, if it names none.
pub(crate) fn targets(given: &RunSpecArguments) -> Option<Targets> {
    if given.nodes.is_empty() && given.selector.is_none() && given.limit.is_none() && !given.all {
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

#[cfg(test)]
mod tests {
    use super::*;

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
