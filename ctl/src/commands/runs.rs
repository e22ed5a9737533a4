//! `lockstep runs`.

use super::{
    get::kind,
    listing::{self, Listing, has_ended},
    nodes::one_of,
};
use crate::{
    cli::Runs,
    context::Session,
    error::Result,
    render::{phase_word, table::Columns},
};
use lockstep_apis::v1alpha::{Object, Run, RunPhase, object::Kind as Message};

const PHASES: [&str; 9] =
    ["Pending", "AwaitingApproval", "Waiting", "Running", "Paused", "Cancelling", "Succeeded", "Failed", "Cancelled"];

pub(crate) async fn runs(session: &Session, runs: &Runs) -> Result<()> {
    let phases = runs.phase.iter().map(|typed| one_of(typed, &PHASES, "phase")).collect::<Result<Vec<_>>>()?;
    let book = runs.book.as_deref().map(|book| book.rsplit('/').next().unwrap_or(book));
    let filter = |object: &Object| match &object.kind {
        Some(Message::Run(run)) => {
            book.is_none_or(|book| is_of(run, book))
                && (phases.is_empty() || phases.contains(&phase(run)))
                && !(runs.active && has_ended(object))
        }
        _ => false,
    };
    let listing = Listing {
        kind: kind("runs")?,
        namespace: if runs.all_namespaces { String::new() } else { session.namespace.clone() },
        selector: runs.selector.clone().unwrap_or_default(),
        names: Vec::new(),
        output: &runs.printed.output,
        columns: Columns { namespaces: runs.all_namespaces, ..Columns::default() },
        watch: runs.printed.watch,
        filter: &filter,
        newest: (!runs.all).then_some(runs.limit),
    };
    listing::show(session, listing).await
}

fn is_of(run: &Run, book: &str) -> bool {
    run.spec.as_ref().is_some_and(|spec| spec.task_books.iter().any(|own| own == book))
}

fn phase(run: &Run) -> &'static str {
    phase_word(run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase()))
}
