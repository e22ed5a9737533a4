//! Variables of objects: which of them a node has, and which win. Knows precedence and nothing of where values go.
//!
//! Weakest first: Config, ClusterVariables, Variables, then the book's own and `run --set`. Within one kind the narrower
//! wins (every node, some, this node by name), then the higher priority. Two that set the same value and are equal in
//! all of that are refused: there is no order by name or age that nobody asked for.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::selector::Selector;
use lockstep_apis::v1alpha::{
    ClusterVariables, ClusterVariablesBinding, CompiledTask, Config, Namespace, Snapshot, Targets, Value, ValueMap,
    VariableLayer, VariableLevel, VariableReach, Variables, VariablesSpec, value::Kind,
};

use crate::compile::targets::{self, Inventory};
use crate::compile::{AdmissionNode, Rejection, VARIABLE_SET};

/// The objects that hold variables of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct VariableSources<'a> {
    /// The namespace, for its labels.
    pub namespace: Option<&'a Namespace>,
    /// Its Variables.
    pub own: &'a [&'a Variables],
    /// All ClusterVariables.
    pub cluster: &'a [&'a ClusterVariables],
    /// All bindings of them.
    pub bindings: &'a [&'a ClusterVariablesBinding],
}

/// Two sources that set one value, and of which none is stronger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// `Variables/a` and `Variables/b`.
    pub sources: [String; 2],
    /// `tls.min`.
    pub name: String,
    /// A node that would have both; "" if every node would.
    pub node: String,
    /// Of both.
    pub priority: i32,
}

impl std::fmt::Display for Tie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [one, other] = &self.sources;
        let of = if self.node.is_empty() { "every node".to_owned() } else { format!("the node `{}`", self.node) };
        let (name, priority) = (&self.name, self.priority);
        write!(
            f,
            "{one} and {other} both set `{name}` for {of}, are equally narrow and have the priority {priority}: give one \
             of them a higher `priority`, or narrower targets"
        )
    }
}

/// The layers of the nodes `among`, weakest first. Their indices are those of `among`.
///
/// # Errors
/// Targets name a NodeGroup that is not there, or are wrong on a node.
pub(crate) fn layers(
    sources: &VariableSources<'_>,
    config: Option<&Config>,
    inventory: &Inventory<'_>,
    among: &[AdmissionNode<'_>],
) -> Result<Vec<VariableLayer>, Rejection> {
    let mut layers = Vec::new();
    let defaults = config.and_then(|config| config.spec.as_ref()?.run_defaults.as_ref()).map(|own| &own.variables);
    if let Some(values) = defaults.filter(|values| !values.is_empty()) {
        layers.push(VariableLayer {
            source: "Config/cluster".to_owned(),
            level: VariableLevel::Config.into(),
            reach: VariableReach::All.into(),
            values: values.clone(),
            every_node: true,
            ..VariableLayer::default()
        });
    }
    let bound = bound(sources);
    for object in sources.cluster {
        let name = object.metadata.as_ref().map_or("", |own| own.name.as_str());
        if let Some(spec) = object.spec.as_ref().filter(|_| bound.contains(name)) {
            let source = format!("ClusterVariables/{name}");
            layers.extend(of_spec(&source, VariableLevel::Cluster, spec, inventory, among)?);
        }
    }
    for object in sources.own {
        let name = object.metadata.as_ref().map_or("", |own| own.name.as_str());
        if let Some(spec) = &object.spec {
            layers.extend(of_spec(&format!("Variables/{name}"), VariableLevel::Namespace, spec, inventory, among)?);
        }
    }
    layers.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.source.cmp(&b.source)));
    Ok(layers)
}

/// How strong a layer is.
fn rank(layer: &VariableLayer) -> (i32, i32, i32) {
    (layer.level, layer.reach, layer.priority)
}

/// The names of the ClusterVariables that are visible in the namespace.
fn bound<'a>(sources: &VariableSources<'a>) -> BTreeSet<&'a str> {
    let Some(namespace) = sources.namespace.and_then(|namespace| namespace.metadata.as_ref()) else {
        return BTreeSet::new();
    };
    let binds = |binding: &&&ClusterVariablesBinding| {
        binding.spec.as_ref().is_some_and(|spec| {
            let selector = Some(&spec.selector).filter(|text| !text.is_empty()).map(|text| Selector::parse(text));
            spec.namespaces.contains(&namespace.name)
                || selector.is_some_and(|selector| selector.is_ok_and(|selector| selector.matches(&namespace.labels)))
        })
    };
    let specs = sources.bindings.iter().filter(binds).filter_map(|binding| binding.spec.as_ref());
    specs.flat_map(|spec| spec.cluster_variables.iter().map(String::as_str)).collect()
}

/// One object's layers: nodes that it names are meant more narrowly than those that it only describes.
fn of_spec(
    source: &str,
    level: VariableLevel,
    spec: &VariablesSpec,
    inventory: &Inventory<'_>,
    among: &[AdmissionNode<'_>],
) -> Result<Vec<VariableLayer>, Rejection> {
    let layer = |reach: VariableReach, nodes: Vec<u32>, every_node: bool| VariableLayer {
        source: source.to_owned(),
        level: level.into(),
        reach: reach.into(),
        priority: spec.priority,
        values: spec.r#static.clone(),
        nodes,
        every_node,
    };
    let Some(given) = spec.targets.as_ref().filter(|targets| !is_everything(targets)) else {
        return Ok(vec![layer(VariableReach::All, Vec::new(), true)]);
    };
    let chosen = inventory
        .choose_known(given, among)
        .map_err(|rejection| Rejection { message: format!("{source}: {}", rejection.message), ..rejection })?;
    let chosen: BTreeSet<&str> = chosen.iter().map(targets::name).collect();
    let described = !given.node_groups.is_empty() || !given.selector.is_empty() || !given.r#where.is_empty();
    let wide = if described { VariableReach::Group } else { VariableReach::All };
    let indices = (0u32..).zip(among).filter(|(_, node)| chosen.contains(targets::name(node)));
    let (named, others): (Vec<_>, Vec<_>) =
        indices.partition(|(_, node)| given.nodes.iter().any(|name| name == targets::name(node)));
    let both = [(VariableReach::Node, named), (wide, others)];
    let both = both.into_iter().filter(|(_, nodes)| !nodes.is_empty());
    Ok(both.map(|(reach, nodes)| layer(reach, nodes.into_iter().map(|(index, _)| index).collect(), false)).collect())
}

fn is_everything(targets: &Targets) -> bool {
    targets.all && targets.selector.is_empty() && targets.r#where.is_empty() && targets.exclude.is_none()
}

/// The first tie of each two sources that have one.
pub(crate) fn ties(layers: &[VariableLayer], among: &[AdmissionNode<'_>]) -> Vec<Tie> {
    let mut ties: Vec<Tie> = Vec::new();
    for equals in layers.chunk_by(|a, b| rank(a) == rank(b)) {
        for (at, one) in equals.iter().enumerate() {
            for other in &equals[at + 1..] {
                let Some(node) = common(one, other) else { continue };
                let Some(name) = clash(&one.values, &other.values) else { continue };
                let node = node.and_then(|node| among.get(node as usize)).map(targets::name).unwrap_or_default();
                let sources = [one.source.clone(), other.source.clone()];
                ties.push(Tie { sources, name, node: node.to_owned(), priority: one.priority });
            }
        }
    }
    ties
}

/// A node that both are for; `Some(None)`: every node.
fn common(one: &VariableLayer, other: &VariableLayer) -> Option<Option<u32>> {
    match (one.every_node, other.every_node) {
        (true, true) => Some(None),
        (true, false) => other.nodes.first().map(|node| Some(*node)),
        (false, true) => one.nodes.first().map(|node| Some(*node)),
        // Both are in order.
        (false, false) => one.nodes.iter().find(|node| other.nodes.binary_search(node).is_ok()).map(|node| Some(*node)),
    }
}

/// The first value that both set.
fn clash(one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> Option<String> {
    one.iter().find_map(|(name, value)| {
        let against = other.get(name)?;
        match (value.as_map(), against.as_map()) {
            (Some(one), Some(other)) => clash(one, other).map(|below| format!("{name}.{below}")),
            _ => Some(name.clone()),
        }
    })
}

/// All ties among the variables of a namespace, over every node that there is.
///
/// # Errors
/// As of `layers`.
pub fn all_ties(
    sources: &VariableSources<'_>,
    nodes: &[AdmissionNode<'_>],
    groups: &[&lockstep_apis::v1alpha::NodeGroup],
) -> Result<Vec<Tie>, Rejection> {
    let inventory = Inventory::new(nodes, groups, &BTreeMap::new());
    let among = inventory.all();
    Ok(ties(&layers(sources, None, &inventory, &among)?, &among))
}

/// The layers that one node has, weakest first, without their nodes.
///
/// # Errors
/// As of `layers`.
pub fn of_node(
    sources: &VariableSources<'_>,
    config: Option<&Config>,
    nodes: &[AdmissionNode<'_>],
    groups: &[&lockstep_apis::v1alpha::NodeGroup],
    node: &str,
) -> Result<Vec<VariableLayer>, Rejection> {
    let inventory = Inventory::new(nodes, groups, &BTreeMap::new());
    let among: Vec<AdmissionNode<'_>> = inventory.all().into_iter().filter(|own| targets::name(own) == node).collect();
    let mut layers = layers(sources, config, &inventory, &among)?;
    layers.iter_mut().for_each(|layer| layer.nodes.clear());
    Ok(layers)
}

/// What a node of a Run has.
pub fn of_snapshot(snapshot: &Snapshot, node: u32) -> BTreeMap<String, Value> {
    let own = snapshot.layers.iter().filter(|layer| layer.every_node || layer.nodes.binary_search(&node).is_ok());
    let values = own.map(|layer| &layer.values).chain([&snapshot.variables]);
    values.fold(BTreeMap::new(), merged)
}

/// The names that a `variable.set` sets; none of another task.
pub fn variables_of(task: &CompiledTask) -> impl Iterator<Item = &str> {
    let values = task.parameters.as_ref().filter(|_| task.action == VARIABLE_SET);
    let values = values.and_then(|parameters| parameters.get("values")).and_then(Value::as_map);
    values.into_iter().flat_map(|values| values.keys().map(String::as_str))
}

/// Maps merge deeply, everything else is replaced.
pub fn merged(mut weak: BTreeMap<String, Value>, strong: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for (name, value) in strong {
        let below = weak.remove(name).and_then(|value| match value.kind {
            Some(Kind::Map(map)) => Some(map.entries),
            _ => None,
        });
        let value = match (below, value.as_map()) {
            (Some(weak), Some(strong)) => Kind::Map(ValueMap { entries: merged(weak, strong) }).into(),
            _ => value.clone(),
        };
        weak.insert(name.clone(), value);
    }
    weak
}

#[cfg(test)]
mod tests;
