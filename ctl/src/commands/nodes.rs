//! `lockstep nodes`.

use super::{
    get::{bare, kind, list},
    listing::{self, Listing, has_ended},
};
use crate::{
    cli::{Nodes, Output},
    context::Session,
    error::{Error, Result},
    render::table::{Columns, node_words},
};
use lockstep_apis::{
    nearest,
    v1alpha::{Object, RunRequest, object::Kind as Message},
};
use std::collections::BTreeMap;

/// The states that can be asked for.
const STATES: [&str; 5] = ["Ready", "Unreachable", "Lost", "NeverSeen", "Cordoned"];

pub(crate) async fn nodes(session: &Session, nodes: Nodes) -> Result<()> {
    let states = nodes.state.iter().map(|typed| one_of(typed, &STATES, "state")).collect::<Result<Vec<_>>>()?;
    let kind = kind("nodes")?;
    let is_table = matches!(nodes.printed.output, Output::Table | Output::Wide);
    let filter = |object: &Object| match &object.kind {
        Some(Message::Node(node)) => {
            states.is_empty() || node_words(node).iter().any(|word| states.contains(&word.as_str()))
        }
        _ => false,
    };
    let listing = Listing {
        kind,
        namespace: String::new(),
        selector: nodes.selector.unwrap_or_default(),
        names: nodes.names.iter().map(|name| bare(kind, name).to_owned()).collect(),
        output: &nodes.printed.output,
        columns: Columns {
            facts: nodes.facts,
            // A column that would be old at once is left out of a watch.
            runs: if is_table && !nodes.printed.watch { Some(working(session).await?) } else { None },
            ..Columns::default()
        },
        watch: nodes.printed.watch,
        filter: &filter,
        newest: None,
    };
    listing::show(session, listing).await
}

/// The Runs that nodes work for now, by node.
async fn working(session: &Session) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let (runs, _) = list(session, kind("runs")?, "", "").await?;
    for run in &runs {
        let Some(Message::Run(of)) = &run.kind else { continue };
        let status = of.status.clone().unwrap_or_default();
        let metadata = run.metadata();
        let name = format!("{}/{}", metadata.namespace, metadata.name);
        if has_ended(run) {
            found.extend(status.held_nodes.into_iter().map(|node| (node, name.clone())));
            continue;
        }
        let request = RunRequest { namespace: metadata.namespace.clone(), name: metadata.name.clone() };
        let nodes = session.runs().nodes(request).await?.into_inner().nodes;
        found.extend(nodes.into_iter().filter(|node| node.held).map(|node| (node.name, name.clone())));
    }
    Ok(found)
}

/// A word of a few, in any case; or what it may have meant.
pub(crate) fn one_of(typed: &str, words: &[&'static str], what: &str) -> Result<&'static str> {
    words.iter().find(|word| word.eq_ignore_ascii_case(typed)).copied().ok_or_else(|| {
        let near = nearest::nearest(typed, words.iter().copied());
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let shown = lockstep_apis::violation::shown(typed);
        Error::Usage(format!("no {what} {shown}{hint} There are: {}", words.join(", ")))
    })
}
