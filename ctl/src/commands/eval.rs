//! `lockstep eval` and `lockstep render`: expressions, templates and tasks as they come out on a node, with the facts
//! that it last reported and the variables that it has. Changes nothing, and asks the node nothing.

use super::{
    get,
    run::{inputs, set},
    vars,
};
use crate::{
    cli::{Eval, OnNode, Render, VarsOf},
    context::Session,
    error::{Error, Result},
    manifests,
    render::{rendered, variables},
};
use lockstep_apis::{
    manifest,
    v1alpha::{Node, Object, TaskBook, object::Kind as Message},
};
use lockstep_core::{check, context::Context, expression::Expression, template::Template, variables::merged};
use std::{collections::BTreeMap, ffi::OsStr, fs, io::Read, path::Path};

/// Longest template.
const MAX_TEMPLATE_BYTES: u64 = 16 * 1024 * 1024;

pub(crate) async fn eval(session: &Session, arguments: &Eval) -> Result<()> {
    let parsed = Expression::parse(&arguments.expression).map_err(|e| Error::Usage(e.to_string()))?;
    let book = match &arguments.of.book {
        Some(name) => book_named(session, name).await?,
        None => TaskBook::default(),
    };
    let context = context(session, &arguments.of, &book).await?;
    let value = parsed.evaluate(&context).map_err(|e| Error::Usage(e.to_string()))?;
    print!("{}", manifest::print_value_yaml(&value));
    Ok(())
}

pub(crate) async fn render(session: &Session, arguments: &Render) -> Result<()> {
    let is_manifest =
        arguments.file.extension().and_then(OsStr::to_str).is_some_and(|x| matches!(x, "yaml" | "yml" | "json"));
    if is_manifest {
        let objects = manifests::read_paths(std::slice::from_ref(&arguments.file), false, &session.namespace)?;
        let books = objects.into_iter().filter_map(|object| match object.kind {
            Some(Message::TaskBook(book)) => Some(book),
            _ => None,
        });
        let books: Vec<TaskBook> = books.collect();
        if books.is_empty() {
            return Err(Error::Usage(format!("{}: there is no TaskBook in it", arguments.file.display())));
        }
        for book in books {
            let context = context(session, &arguments.of, &book).await?;
            print!("{}", rendered::book(&book, &context).map_err(Error::Usage)?);
        }
        return Ok(());
    }
    let text = read(&arguments.file)?;
    let at = |problem: String| Error::Usage(format!("{}: {problem}", arguments.file.display()));
    let template = Template::parse(&text).map_err(|e| at(e.to_string()))?;
    let book = match &arguments.of.book {
        Some(name) => book_named(session, name).await?,
        None => TaskBook::default(),
    };
    let context = context(session, &arguments.of, &book).await?;
    print!("{}", template.render(&context).map_err(|e| at(e.to_string()))?);
    Ok(())
}

/// What an expression may read on the node. The book's variables and inputs are those of this one.
async fn context(session: &Session, of: &OnNode, book: &TaskBook) -> Result<Context> {
    let Some(Message::Node(node)) = get::fetch(session, get::kind("Node")?, &of.node).await?.kind else {
        return Err(Error::Usage(format!("{} is no node", of.node)));
    };
    let asked = VarsOf { node: of.node.clone(), book: None, set: Vec::new() };
    let weaker = variables::effective(&vars::layers(session, &asked).await?);
    let own = book.spec.clone().unwrap_or_default();
    let variables = merged(merged(weaker, &own.variables), &set(&of.set)?);
    let given = inputs(&of.inputs, book)?;
    let inputs = match book.spec {
        Some(_) => check::inputs::resolve(&own.inputs, &given).map_err(Error::Invalid)?,
        None => given,
    };
    Ok(of_node(&node).with_variables(&variables).with_inputs(&inputs))
}

fn of_node(node: &Node) -> Context {
    let metadata = node.metadata.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let facts = status.facts.unwrap_or_else(|| lockstep_apis::v1alpha::Value::from(BTreeMap::new()));
    let names = [(metadata.name.as_str(), &metadata.labels)];
    Context::new().with_node(&metadata.name, &metadata.labels, &status.addresses).with_facts(facts).with_nodes(names)
}

async fn book_named(session: &Session, name: &str) -> Result<TaskBook> {
    match get::fetch(session, get::kind("TaskBook")?, name).await? {
        Object { kind: Some(Message::TaskBook(book)) } => Ok(book),
        _ => Err(Error::Usage(format!("{name} is no TaskBook"))),
    }
}

fn read(path: &Path) -> Result<String> {
    let unreadable = |e| Error::File(path.to_owned(), e);
    let mut text = String::new();
    match path == Path::new("-") {
        true => std::io::stdin().take(MAX_TEMPLATE_BYTES).read_to_string(&mut text).map_err(unreadable)?,
        false => fs::File::open(path)
            .map_err(unreadable)?
            .take(MAX_TEMPLATE_BYTES)
            .read_to_string(&mut text)
            .map_err(unreadable)?,
    };
    Ok(text)
}
