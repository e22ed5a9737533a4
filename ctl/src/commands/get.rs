//! `lockstep get` and `lockstep describe`.

use super::listing::{self, Listing, Printer};
use crate::{
    cli::{Describe, Get, Output, Printed},
    context::Session,
    error::{Error, Result},
    render::{describe as page, table::Columns},
};
use lockstep_apis::{
    kinds::{self, Kind},
    v1alpha::{GetRequest, ListRequest, Object, ObjectRef, RunRequest, object::Kind as Message},
};

/// Objects a page when listing.
const PAGE: u32 = 500;

pub(crate) async fn get(session: &Session, get: &Get) -> Result<()> {
    let (kind, first) = kind_and_name(&get.kind)?;
    let names: Vec<String> =
        first.into_iter().chain(get.names.iter().map(|n| bare(kind, n))).map(str::to_owned).collect();
    let namespace = if get.all_namespaces { String::new() } else { namespace_of(session, kind.name) };
    let columns = Columns { namespaces: get.all_namespaces, ..Columns::default() };
    if names.is_empty() || get.printed.watch {
        let listing = Listing {
            kind,
            namespace,
            selector: get.selector.clone().unwrap_or_default(),
            names,
            output: &get.printed.output,
            columns,
            watch: get.printed.watch,
            filter: &|_| true,
            newest: None,
        };
        return listing::show(session, listing).await;
    }
    let mut found = Vec::new();
    for name in &names {
        found.push(fetch(session, kind, name).await?);
    }
    let mut printer = Printer::new(&get.printed.output, kind, columns);
    // Whoever read us may have gone, as `head` does.
    let _ = match found.as_slice() {
        [one] => printer.one(one),
        several => printer.list(several, kind),
    };
    Ok(())
}

/// `get KIND` without an option.
pub(crate) fn of_kind(kind: &str) -> Get {
    Get {
        kind: kind.to_owned(),
        names: Vec::new(),
        selector: None,
        all_namespaces: false,
        printed: Printed { output: Output::Table, watch: false },
    }
}

pub(crate) async fn describe(session: &Session, describe: &Describe) -> Result<()> {
    let (kind, first) = kind_and_name(&describe.kind)?;
    let name = first.or_else(|| describe.name.as_deref().map(|name| bare(kind, name)));
    let name = name.ok_or_else(|| Error::Usage(format!("describe which of the {}? Give a name", kind.plural)))?;
    let object = fetch(session, kind, name).await?;
    print!("{}", page::object(&object));
    if let Some(Message::Run(run)) = &object.kind {
        let metadata = run.metadata.clone().unwrap_or_default();
        let request = RunRequest { namespace: metadata.namespace, name: metadata.name };
        let nodes = session.ask(async || session.runs().nodes(request.clone()).await).await?.nodes;
        print!("{}", page::run_nodes(&nodes));
    }
    Ok(())
}

/// The kind that a word names, or what it may have meant.
pub(crate) fn kind(word: &str) -> Result<&'static Kind> {
    kinds::find(word).ok_or_else(|| {
        let known = kinds::all().iter().map(|k| k.plural).collect::<Vec<_>>().join(", ");
        Error::Usage(match kinds::nearest(word) {
            Some(near) => format!("no kind `{word}`; did you mean `{near}`? There are: {known}"),
            None => format!("no kind `{word}`; there are: {known}"),
        })
    })
}

/// `run`, or `run/NAME` as `-o name` prints it.
pub(crate) fn kind_and_name(typed: &str) -> Result<(&'static Kind, Option<&str>)> {
    match typed.split_once('/') {
        Some((word, name)) => Ok((kind(word)?, Some(name))),
        None => Ok((kind(typed)?, None)),
    }
}

/// The name alone, where it was given as `run/NAME`.
pub(crate) fn bare<'n>(kind: &Kind, name: &'n str) -> &'n str {
    match name.split_once('/') {
        Some((word, bare)) if kinds::find(word).is_some_and(|named| named.name == kind.name) => bare,
        _ => name,
    }
}

/// The namespace to ask with: none for global kinds.
pub(crate) fn namespace_of(session: &Session, kind: &str) -> String {
    match kinds::find(kind) {
        Some(kind) if kind.namespaced => session.namespace.clone(),
        _ => String::new(),
    }
}

/// One object by name.
pub(crate) async fn fetch(session: &Session, kind: &Kind, name: &str) -> Result<Object> {
    let reference =
        ObjectRef { kind: kind.name.to_owned(), namespace: namespace_of(session, kind.name), name: name.to_owned() };
    let request = GetRequest { r#ref: Some(reference) };
    session.ask(async || session.objects().get(request.clone()).await).await
}

/// Every object of a kind, and the version to watch from.
pub(crate) async fn list(
    session: &Session,
    kind: &Kind,
    namespace: &str,
    selector: &str,
) -> Result<(Vec<Object>, String)> {
    let mut request = ListRequest {
        kind: kind.name.to_owned(),
        namespace: namespace.to_owned(),
        selector: selector.to_owned(),
        limit: PAGE,
        continue_token: String::new(),
    };
    let mut found = Vec::new();
    loop {
        let page = session.ask(async || session.objects().list(request.clone()).await).await?;
        found.extend(page.items);
        if page.continue_token.is_empty() {
            return Ok((found, page.resource_version));
        }
        request.continue_token = page.continue_token;
    }
}
