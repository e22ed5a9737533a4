//! Objects of one kind, listed and watched, in every output: what `get`, `nodes`, `runs` and `events` share.

use super::{get::list, watch::Watch};
use crate::{
    cli::Output,
    context::Session,
    error::Result,
    render::{
        path,
        screen::Screen,
        table::{Columns, Table},
    },
};
use lockstep_apis::{
    kinds::Kind,
    manifest,
    v1alpha::{Object, RunPhase, WatchEventType, WatchRequest, object::Kind as Message},
};
use std::{
    collections::BTreeSet,
    io::{self, Write},
};

/// What is asked for, and how it is shown.
pub(crate) struct Listing<'a> {
    pub(crate) kind: &'static Kind,
    /// Empty: every namespace.
    pub(crate) namespace: String,
    pub(crate) selector: String,
    /// If it is not empty, only these.
    pub(crate) names: Vec<String>,
    pub(crate) output: &'a Output,
    pub(crate) columns: Columns,
    pub(crate) watch: bool,
    /// Only what it says yes to.
    pub(crate) filter: &'a dyn Fn(&Object) -> bool,
    /// Of what has ended, only so many, the newest.
    pub(crate) newest: Option<usize>,
}

/// Lists, prints, and goes on if it is asked to.
pub(crate) async fn show(session: &Session, listing: Listing<'_>) -> Result<()> {
    let (mut objects, version) = list(session, listing.kind, &listing.namespace, &listing.selector).await?;
    objects.retain(|object| listing.wants(object));
    sort(&mut objects);
    let left_out = listing.keep_newest(&mut objects);
    let mut printer = Printer::new(listing.output, listing.kind, listing.columns.clone());
    printer.whole = !listing.watch;
    if printer.list(&objects, listing.kind).is_err() {
        return Ok(());
    }
    if left_out > 0 {
        eprintln!("{left_out} older ones are not shown; --all shows them");
    }
    if listing.watch { follow(session, &listing, printer, objects, version).await } else { Ok(()) }
}

impl Listing<'_> {
    fn wants(&self, object: &Object) -> bool {
        (self.names.is_empty() || self.names.contains(&object.metadata().name)) && (self.filter)(object)
    }

    /// Says how many were left out.
    fn keep_newest(&self, objects: &mut Vec<Object>) -> usize {
        let Some(most) = self.newest else { return 0 };
        let mut surplus = objects.iter().filter(|object| has_ended(object)).count().saturating_sub(most);
        let before = objects.len();
        objects.retain(|object| {
            let drop = surplus > 0 && has_ended(object);
            surplus -= usize::from(drop);
            !drop
        });
        before - objects.len()
    }
}

/// Runs in the order in which they were made; others stay in order of name.
pub(crate) fn sort(objects: &mut [Object]) {
    objects.sort_by_key(|object| match &object.kind {
        Some(Message::Run(run)) => {
            let at = run.metadata.as_ref().and_then(|metadata| metadata.created_at);
            at.map(|at| (at.seconds, at.nanos))
        }
        _ => None,
    });
}

/// Whether it is a Run that has ended.
pub(crate) fn has_ended(object: &Object) -> bool {
    let Some(Message::Run(run)) = &object.kind else { return false };
    let phase = run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase());
    matches!(phase, RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled)
}

async fn follow(
    session: &Session,
    listing: &Listing<'_>,
    mut printer: Printer<'_>,
    shown: Vec<Object>,
    version: String,
) -> Result<()> {
    let request = WatchRequest {
        kind: listing.kind.name.to_owned(),
        namespace: listing.namespace.clone(),
        name: match listing.names.as_slice() {
            [one] => one.clone(),
            _ => String::new(),
        },
        selector: listing.selector.clone(),
        resource_version: version,
    };
    // What was shown is told of until it is no longer wanted: that it ended is news.
    let mut shown: BTreeSet<String> = shown.iter().map(|object| object.metadata().uuid.clone()).collect();
    let mut watch = Watch::new(session, request);
    loop {
        let event = watch.next().await?;
        let change = event.r#type();
        let Some(object) = event.object else { continue };
        let uuid = object.metadata().uuid.clone();
        let wanted = listing.wants(&object);
        let was_shown = if wanted { !shown.insert(uuid) } else { shown.remove(&uuid) };
        let printed = match change {
            WatchEventType::Deleted if was_shown || wanted => printer.deleted(&object),
            WatchEventType::Deleted => Ok(()),
            _ if wanted || was_shown => printer.changed(&object, change),
            _ => Ok(()),
        };
        // Whoever read us has gone, as `head` does.
        if printed.is_err() {
            return Ok(());
        }
    }
}

/// Prints objects as they come.
pub(crate) struct Printer<'a> {
    output: &'a Output,
    table: Table,
    screen: Screen,
    /// All objects are there at once; else each is printed so that a reader can tell them apart.
    whole: bool,
    documents: usize,
}

impl<'a> Printer<'a> {
    /// For objects of a kind.
    pub(crate) fn new(output: &'a Output, kind: &'static Kind, mut columns: Columns) -> Printer<'a> {
        columns.wide = matches!(output, Output::Wide);
        let screen = Screen::stdout();
        Printer { output, table: Table::new(kind, columns, screen), screen, whole: true, documents: 0 }
    }

    /// A list of any length.
    pub(crate) fn list(&mut self, objects: &[Object], kind: &Kind) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.output {
            Output::Table | Output::Wide if objects.is_empty() && self.whole => {
                eprintln!("no {}", kind.plural);
                Ok(())
            }
            Output::Table | Output::Wide => {
                objects.iter().for_each(|object| self.table.push(object));
                let rows = self.table.take_rows();
                write!(out, "{}{rows}", self.table.heading())
            }
            Output::Json if self.whole => write!(out, "{}", manifest::print_json_list(objects)),
            Output::JsonPath(template) if self.whole => {
                let items: Vec<_> = objects.iter().map(manifest::to_json).collect();
                write!(out, "{}", template.render(&serde_json::json!({ "items": items })))
            }
            Output::Yaml if self.whole => write!(out, "{}", manifest::print_yaml(objects)),
            _ => {
                drop(out);
                objects.iter().try_for_each(|object| self.changed(object, WatchEventType::Added))
            }
        }
    }

    /// One object alone, which was asked for by name.
    pub(crate) fn one(&mut self, object: &Object) -> io::Result<()> {
        match self.output {
            Output::Json => write!(io::stdout(), "{}", manifest::print_json(std::slice::from_ref(object))),
            Output::Yaml => write!(io::stdout(), "{}", manifest::print_yaml(std::slice::from_ref(object))),
            Output::Table | Output::Wide => {
                self.table.push(object);
                let rows = self.table.take_rows();
                write!(io::stdout(), "{}{rows}", self.table.heading())
            }
            _ => self.changed(object, WatchEventType::Added),
        }
    }

    fn changed(&mut self, object: &Object, change: WatchEventType) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.output {
            Output::Table | Output::Wide => {
                self.table.push(object);
                write!(out, "{}", self.table.take_rows())?;
            }
            Output::Yaml => {
                let border = if self.documents > 0 { "---\n" } else { "" };
                self.documents += 1;
                write!(out, "{border}{}", manifest::print_yaml(std::slice::from_ref(object)))?;
            }
            Output::Json => writeln!(out, "{}", line(object, change))?,
            Output::JsonPath(template) => write!(out, "{}", template.render(&manifest::to_json(object)))?,
            Output::Name => writeln!(out, "{}", path(object))?,
        }
        out.flush()
    }

    fn deleted(&mut self, object: &Object) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", line(object, WatchEventType::Deleted))?,
            Output::JsonPath(_) => {}
            Output::Yaml => writeln!(out, "# {} deleted", path(object))?,
            _ => writeln!(out, "{} deleted", self.screen.bold(&path(object)))?,
        }
        out.flush()
    }
}

/// A change as one line of JSON.
fn line(object: &Object, change: WatchEventType) -> String {
    let word = match change {
        WatchEventType::Added => "Added",
        WatchEventType::Deleted => "Deleted",
        _ => "Modified",
    };
    manifest::escape_json(&serde_json::json!({"type": word, "object": manifest::to_json(object)}))
}
