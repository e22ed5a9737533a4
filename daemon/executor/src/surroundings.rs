//! What expressions and templates of a segment see, made from its work. Facts are gathered when something reads them,
//! and only those that the tasks name.

use std::sync::Arc;

use lockstep_apis::v1alpha::{Value, Work};
use lockstep_core::{context::Context, references::Root};
use lockstep_modules::Host;

use crate::preparing::Preparation;

/// The names and values of this work, on this machine.
pub(crate) fn context(work: &Work, host: &Arc<Host>, prepared: &Preparation<'_>) -> Context {
    let wanted = prepared.facts();
    let own = if work.delegate.is_some() { Root::Delegate } else { Root::Node };
    let addresses = if prepared.reads(own, "addresses") { addresses(host) } else { Vec::new() };
    let host = Arc::clone(host);
    let context = match &work.delegate {
        None => Context::new().with_node(&work.node_name, &work.node_labels, &addresses),
        // This machine does it; the node is the one that it is done for.
        Some(delegate) => Context::new()
            .with_node(&work.node_name, &work.node_labels, &work.node_addresses)
            .with_delegate(&delegate.name, &delegate.labels, &addresses),
    };
    context
        .with_lazy_facts(move || facts(&host, &wanted))
        .with_variables(&work.variables)
        .with_inputs(&work.inputs)
        .with_scopes(&work.scopes)
        .with_results(&work.results)
        .with_shared(&work.shared)
        .with_all(&work.all, work.all_withheld.iter().cloned())
        .with_known_nodes(work.nodes.iter().map(|node| (node.name.as_str(), &node.labels, node.facts.as_ref())))
        .with_run(&work.run_name, &work.namespace, &work.run_uid)
}

fn facts(host: &Host, wanted: &[String]) -> Value {
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    lockstep_modules::facts(host, &wanted)
}

fn addresses(host: &Host) -> Vec<String> {
    let found = facts(host, &["addresses".to_owned()]);
    let list = found.get("addresses").and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(Value::as_text).map(str::to_owned).collect()
}
