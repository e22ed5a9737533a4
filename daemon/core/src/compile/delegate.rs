//! `delegateTo`: which node does a task for which. Known at admission, so that a window can ask for them all at once.

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::{EarlyEnd, OnUnreachable, SnapshotNode, Targets};

use super::targets::{self, Inventory};
use super::{AdmissionNode, Rejection, early_end};
use crate::expression::{EvaluationError, Text, operators};

/// Default of `throttle`.
pub(super) const THROTTLE: u32 = 8;

/// The nodes that do work for others, each once.
#[derive(Default)]
pub(super) struct Delegates {
    pub(super) nodes: Vec<SnapshotNode>,
    by_name: BTreeMap<String, u32>,
}

/// What the choice depends on.
pub(super) struct Choosing<'c> {
    pub(super) inventory: &'c Inventory<'c>,
    pub(super) on_unreachable: OnUnreachable,
    /// How the task is called in refusals.
    pub(super) task: &'c str,
}

impl Delegates {
    /// Who does it for each of these nodes.
    pub(super) fn of(
        &mut self,
        given: &Targets,
        nodes: &[AdmissionNode<'_>],
        choosing: &Choosing<'_>,
    ) -> Result<Vec<u32>, Rejection> {
        let differs = given.nodes.iter().any(|name| name.contains("${{"));
        if !differs {
            let Some(first) = nodes.first() else { return Ok(Vec::new()) };
            let only = self.one(given, first, choosing)?;
            return Ok(vec![only; nodes.len()]);
        }
        nodes.iter().map(|node| self.one(&rendered(given, node, choosing.task)?, node, choosing)).collect()
    }

    fn one(&mut self, given: &Targets, node: &AdmissionNode<'_>, choosing: &Choosing<'_>) -> Result<u32, Rejection> {
        let chosen = choosing.choose(given, targets::name(node))?;
        let name = targets::name(&chosen);
        if let Some(&known) = self.by_name.get(name) {
            return Ok(known);
        }
        usable(&chosen, choosing.on_unreachable, choosing.task)?;
        let metadata = chosen.node.metadata.clone().unwrap_or_default();
        let index = self.nodes.len() as u32;
        self.by_name.insert(metadata.name.clone(), index);
        let labels = metadata.labels;
        self.nodes.push(SnapshotNode { uid: metadata.uuid, name: metadata.name, labels, ..SnapshotNode::default() });
        Ok(index)
    }
}

impl<'c> Choosing<'c> {
    /// The one node that is meant. `limit: 1` takes the first that can work.
    fn choose(&self, given: &Targets, for_node: &str) -> Result<AdmissionNode<'c>, Rejection> {
        let task = self.task;
        // A pick chooses by itself.
        let limit = if given.pick.is_some() { given.limit } else { 0 };
        let unlimited = Targets { limit, ..given.clone() };
        let chosen = self.inventory.choose(&unlimited, &self.inventory.all()).map_err(|mut rejection| {
            rejection.message = format!("the task `{task}`: delegateTo: {}", rejection.message);
            rejection
        })?;
        let works = |node: &&AdmissionNode<'_>| early_end(node, self.on_unreachable) == EarlyEnd::Unspecified;
        match chosen.as_slice() {
            [] => {
                let message = format!(
                    "the task `{task}` has nobody to do it for {for_node}: delegateTo: {}",
                    self.inventory.nothing_matched(given)
                );
                Err(Rejection::new("NoDelegate", message))
            }
            [one] => Ok(*one),
            [first, ..] if given.limit == 1 => Ok(*chosen.iter().find(works).unwrap_or(first)),
            several => {
                let names: Vec<&str> = several.iter().map(targets::name).take(5).collect();
                let message = format!(
                    "the task `{task}` is delegated to {} nodes for {for_node} ({}), and one does it: name one, or say \
                     `limit: 1` for the first",
                    several.len(),
                    names.join(", ")
                );
                Err(Rejection::new("SeveralDelegates", message))
            }
        }
    }
}

/// Refuses a delegate that cannot work: to go on without what it does is nobody's wish.
pub(super) fn usable(node: &AdmissionNode<'_>, on_unreachable: OnUnreachable, task: &str) -> Result<(), Rejection> {
    let name = targets::name(node);
    match early_end(node, on_unreachable) {
        EarlyEnd::Unspecified => Ok(()),
        EarlyEnd::Cordoned => {
            let message = format!("the task `{task}` is delegated to {name}, which is cordoned: uncordon it");
            Err(Rejection::new("DelegateCordoned", message))
        }
        EarlyEnd::UnreachableFailed | EarlyEnd::UnreachableSkipped => {
            let message = format!(
                "the task `{task}` is delegated to {name}, which is not connected: start it, or say \
                 `onUnreachable: Wait`"
            );
            Err(Rejection::new("DelegateUnreachable", message))
        }
    }
}

/// The names that are meant for one node.
fn rendered(given: &Targets, node: &AdmissionNode<'_>, task: &str) -> Result<Targets, Rejection> {
    let name = targets::name(node);
    let wrong = |source: &str, why: String| {
        let message = format!("the task `{task}`: `delegateTo` has no answer for {name}: `{source}`: {why}");
        Rejection::new("InvalidDelegate", message)
    };
    let context = targets::context(node);
    let one = |source: &String| {
        let text = Text::parse(source).map_err(|error| wrong(source, error.to_string()))?;
        let named = text.render(&context).map_err(|error: EvaluationError| wrong(source, error.to_string()))?;
        let text = operators::scalar(&named).map(std::borrow::Cow::into_owned).unwrap_or_default();
        if text.is_empty() { Err(wrong(source, "it names no node".to_owned())) } else { Ok(text) }
    };
    let nodes = given.nodes.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Targets { nodes, ..given.clone() })
}

impl AdmissionNode<'_> {
    /// Its addresses, as it last said them.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.node.status.as_ref().map(|status| status.addresses.clone()).unwrap_or_default()
    }
}
