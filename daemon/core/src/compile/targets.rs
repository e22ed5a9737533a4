//! Which nodes targets mean. Knows nodes and NodeGroups; an empty match is never all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::nearest::nearest;
use lockstep_apis::selector::Selector;
use lockstep_apis::v1alpha::{NodeGroup, SnapshotPick, Targets, Value};

use super::pick::Picks;
use super::{AdmissionNode, Rejection};
use crate::context::Context;
use crate::expression::{EvaluationError, Expression};
use crate::references::Root;

/// All nodes and groups, by name.
pub(crate) struct Inventory<'a> {
    nodes: BTreeMap<&'a str, AdmissionNode<'a>>,
    groups: BTreeMap<&'a str, &'a NodeGroup>,
    picks: RefCell<Picks>,
}

impl<'a> Inventory<'a> {
    pub(crate) fn new(
        nodes: &[AdmissionNode<'a>],
        groups: &[&'a NodeGroup],
        picks: &BTreeMap<String, Vec<String>>,
    ) -> Self {
        Self {
            picks: RefCell::new(Picks::new(picks)),
            nodes: nodes.iter().map(|node| (name(node), *node)).collect(),
            groups: groups.iter().filter_map(|group| Some((group.metadata.as_ref()?.name.as_str(), *group))).collect(),
        }
    }

    /// The sticky choices that were made.
    pub(super) fn picks(&self) -> Vec<SnapshotPick> {
        self.picks.borrow().made()
    }

    /// Every node, in order of name.
    pub(crate) fn all(&self) -> Vec<AdmissionNode<'a>> {
        self.nodes.values().copied().collect()
    }

    /// Those of `among` that the targets mean, in order of name.
    pub(crate) fn choose(
        &self,
        targets: &Targets,
        among: &[AdmissionNode<'a>],
    ) -> Result<Vec<AdmissionNode<'a>>, Rejection> {
        let named = self.named(&targets.nodes, &targets.node_groups, "targets")?;
        let everything = targets.nodes.is_empty() && targets.node_groups.is_empty();
        let selector = selector(&targets.selector)?;
        let condition = condition(&targets.r#where)?;
        let none = Default::default();
        let exclude = targets.exclude.as_ref().unwrap_or(&none);
        let excluded = self.named(&exclude.nodes, &exclude.node_groups, "targets.exclude")?;
        let excluding = self::selector(&exclude.selector)?;
        let mut chosen = Vec::new();
        for node in among {
            let matches = (everything || named.contains(name(node)))
                && selector.as_ref().is_none_or(|selector| selects(selector, node))
                && !excluded.contains(name(node))
                && !excluding.as_ref().is_some_and(|selector| selects(selector, node));
            if matches && holds(condition.as_ref(), node)? {
                chosen.push(*node);
            }
        }
        chosen.sort_by(|a, b| name(a).cmp(name(b)));
        match &targets.pick {
            _ if targets.limit == 0 => {}
            None => chosen.truncate(targets.limit as usize),
            Some(pick) => {
                let name_of = |uid: &str| self.nodes.values().find(|node| self::uid(node) == uid).map(name);
                chosen = self.picks.borrow_mut().choose(pick, targets.limit as usize, chosen, name_of)?;
                chosen.sort_by(|a, b| name(a).cmp(name(b)));
            }
        }
        Ok(chosen)
    }

    /// The same for targets of objects that stay when nodes go: a name that no node has means none.
    pub(crate) fn choose_known(
        &self,
        targets: &Targets,
        among: &[AdmissionNode<'a>],
    ) -> Result<Vec<AdmissionNode<'a>>, Rejection> {
        let mut known = targets.clone();
        let is_known = |name: &String| self.nodes.contains_key(name.as_str());
        known.nodes.retain(is_known);
        if let Some(exclude) = &mut known.exclude {
            exclude.nodes.retain(is_known);
        }
        if known.nodes.is_empty() && !targets.nodes.is_empty() && targets.node_groups.is_empty() {
            return Ok(Vec::new());
        }
        self.choose(&known, among)
    }

    /// The names of nodes that are named, or belong to groups that are.
    fn named(&self, nodes: &[String], groups: &[String], field: &str) -> Result<BTreeSet<&'a str>, Rejection> {
        let mut named = BTreeSet::new();
        for wanted in nodes {
            let (own, _) = self.nodes.get_key_value(wanted.as_str()).ok_or_else(|| {
                let hint = match nearest(wanted, self.nodes.keys().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "`lockstep get nodes` shows those that have joined".to_owned(),
                };
                Rejection::new("UnknownNode", format!("{field} names the node `{wanted}`, which is not there: {hint}"))
            })?;
            named.insert(*own);
        }
        for group in groups {
            named.extend(self.members(group, field, &mut Vec::new())?);
        }
        Ok(named)
    }

    /// The nodes of a group: its own, and its included groups', less the excluded groups'.
    fn members(&self, wanted: &str, by: &str, above: &mut Vec<String>) -> Result<BTreeSet<&'a str>, Rejection> {
        if above.iter().any(|group| group == wanted) {
            let path = above.join(" → ");
            return Err(Rejection::new("GroupCycle", format!("NodeGroups include each other: {path} → {wanted}")));
        }
        let group = self.groups.get(wanted).ok_or_else(|| {
            let hint = match nearest(wanted, self.groups.keys().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`lockstep get nodegroups` shows those that are".to_owned(),
            };
            Rejection::new(
                "UnknownNodeGroup",
                format!("{by} names the NodeGroup `{wanted}`, which is not there: {hint}"),
            )
        })?;
        let Some(spec) = &group.spec else { return Ok(BTreeSet::new()) };
        let by = format!("the NodeGroup `{wanted}`");
        above.push(wanted.to_owned());
        // A plain name of a node that has not joined yet is no mistake.
        let plain = spec.nodes.iter().filter_map(|node| self.nodes.get_key_value(node.as_str()));
        let mut members: BTreeSet<&'a str> = plain.map(|(own, _)| *own).collect();
        if !spec.selector.is_empty() || !spec.r#where.is_empty() {
            let selector = selector(&spec.selector)?;
            let condition = condition(&spec.r#where)?;
            for node in self.nodes.values() {
                if selector.as_ref().is_none_or(|selector| selects(selector, node)) && holds(condition.as_ref(), node)?
                {
                    members.insert(name(node));
                }
            }
        }
        for included in &spec.include {
            members.extend(self.members(included, &by, above)?);
        }
        for excluded in &spec.exclude {
            let excluded = self.members(excluded, &by, above)?;
            members.retain(|node| !excluded.contains(node));
        }
        above.pop();
        Ok(members)
    }

    /// A sentence for targets that match nothing.
    pub(crate) fn nothing_matched(&self, targets: &Targets) -> String {
        let mut parts = Vec::new();
        if !targets.nodes.is_empty() {
            parts.push(format!("nodes {}", targets.nodes.join(", ")));
        }
        if !targets.node_groups.is_empty() {
            parts.push(format!("nodeGroups {}", targets.node_groups.join(", ")));
        }
        if !targets.selector.is_empty() {
            parts.push(format!("selector `{}`", targets.selector));
        }
        if !targets.r#where.is_empty() {
            parts.push(format!("where `{}`", targets.r#where));
        }
        if targets.exclude.is_some() {
            parts.push("exclude".to_owned());
        }
        let said = if parts.is_empty() { "`all: true`".to_owned() } else { parts.join(", ") };
        format!("no node of {} matches {said}", self.nodes.len())
    }
}

pub(crate) fn name<'a>(node: &AdmissionNode<'a>) -> &'a str {
    node.node.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

pub(super) fn uid<'a>(node: &AdmissionNode<'a>) -> &'a str {
    node.node.metadata.as_ref().map_or("", |metadata| &metadata.uuid)
}

fn selector(text: &str) -> Result<Option<Selector>, Rejection> {
    if text.is_empty() {
        return Ok(None);
    }
    Selector::parse(text).map(Some).map_err(|error| Rejection::new("InvalidSelector", format!("`{text}`: {error}")))
}

fn selects(selector: &Selector, node: &AdmissionNode<'_>) -> bool {
    node.node.metadata.as_ref().is_some_and(|metadata| selector.matches(&metadata.labels))
}

fn condition(source: &str) -> Result<Option<Expression>, Rejection> {
    if source.is_empty() {
        return Ok(None);
    }
    Expression::parse(source).map(Some).map_err(|error| Rejection::new("InvalidWhere", format!("`{source}`: {error}")))
}

/// A node that never said its facts matches no condition that reads them; a condition that is wrong is refused.
fn holds(condition: Option<&Expression>, node: &AdmissionNode<'_>) -> Result<bool, Rejection> {
    let Some(condition) = condition else { return Ok(true) };
    let Some(value) = on_node(condition, node) else { return Ok(false) };
    let source = condition.source();
    let truth = value.and_then(|value| condition.as_bool(&value));
    truth.map_err(|error| {
        let message = format!("`where: {source}` has no answer on the node `{}`: {error}", name(node));
        Rejection::new("InvalidWhere", message)
    })
}

/// What an expression over `node` and `facts` comes to for a node. `None`: it reads facts, and the node never said any.
pub(super) fn on_node(expression: &Expression, node: &AdmissionNode<'_>) -> Option<Result<Value, EvaluationError>> {
    let silent = node.node.status.as_ref().is_none_or(|status| status.facts.as_ref().is_none_or(Value::is_null));
    if silent && expression.references().uses(Root::Facts) {
        return None;
    }
    Some(expression.evaluate(&context(node)))
}

/// What is known of a node without asking it: `node`, and `facts` as it last said them.
pub(super) fn context(node: &AdmissionNode<'_>) -> Context {
    let metadata = node.node.metadata.clone().unwrap_or_default();
    let facts = node.node.status.as_ref().and_then(|status| status.facts.clone()).unwrap_or_else(Value::null);
    Context::new().with_node(&metadata.name, &metadata.labels, &node.addresses()).with_facts(facts)
}
