//! A node's variables as text: what they are, and which source each is from. Pure.

use super::safe;
use lockstep_apis::{
    manifest, nearest,
    v1alpha::{Value, VariableLayer, VariableLevel, VariableReach},
};
use lockstep_core::variables::merged;
use std::{collections::BTreeMap, fmt::Write};

/// Longest value in a line.
const SHOWN: usize = 60;

/// All variables, or one, as YAML.
pub(crate) fn get(layers: &[VariableLayer], name: Option<&str>) -> Result<String, String> {
    let all = all(layers);
    let Some(name) = name else { return Ok(manifest::print_value_yaml(&all)) };
    let found = at(&all, name).ok_or_else(|| unknown(&all, name))?;
    Ok(manifest::print_value_yaml(found))
}

/// Where one is from: every source that sets it, strongest first, and why the others lost.
pub(crate) fn explain(layers: &[VariableLayer], name: &str, node: &str) -> Result<String, String> {
    let all = all(layers);
    let found = at(&all, name).ok_or_else(|| unknown(&all, name))?;
    let mut out = format!("{name} = {} on {node}\n", shown(found));
    let candidates: Vec<(&VariableLayer, Value)> = layers
        .iter()
        .rev()
        .filter_map(|layer| Some((layer, at(&Value::from(layer.values.clone()), name)?.clone())))
        .collect();
    let width = candidates.iter().map(|(layer, _)| layer.source.len()).max().unwrap_or(0);
    let mut above: Option<&(&VariableLayer, Value)> = None;
    for candidate in &candidates {
        let (layer, value) = candidate;
        let verdict = match above {
            None => "wins: ".to_owned() + &means(layer),
            Some((winner, won)) if won.as_map().is_some() && value.as_map().is_some() => {
                format!("merged below {}: {}", winner.source, weaker(layer, winner))
            }
            Some((winner, _)) => format!("loses to {}: {}", winner.source, weaker(layer, winner)),
        };
        let _ = writeln!(out, "  {:<width$}  {:<20}  {verdict}", layer.source, shown(value));
        // What replaces everything below it ends the merge; what is below loses to it.
        if above.is_none_or(|(_, won)| won.as_map().is_some()) {
            above = Some(candidate);
        }
    }
    if found.as_map().is_some() {
        out.push_str("its values:\n");
        values(layers, name, found, &mut out);
    }
    Ok(out)
}

/// Each value in a map, with the source that it is from.
fn values(layers: &[VariableLayer], name: &str, value: &Value, out: &mut String) {
    match value.as_map().filter(|entries| !entries.is_empty()) {
        Some(entries) => {
            entries.iter().for_each(|(key, value)| values(layers, &format!("{name}.{key}"), value, out));
        }
        None => {
            let from = layers.iter().rev().find(|layer| at(&Value::from(layer.values.clone()), name).is_some());
            let source = from.map_or("?", |layer| layer.source.as_str());
            let _ = writeln!(out, "  {name} = {}  from {source}", shown(value));
        }
    }
}

/// Why a source is weaker than another.
fn weaker(loser: &VariableLayer, winner: &VariableLayer) -> String {
    if loser.level() != winner.level() {
        format!("{} are weaker than {}", kind(loser.level()), kind(winner.level()))
    } else if loser.reach() != winner.reach() {
        format!("{} is wider than {}", reach(loser.reach()), reach(winner.reach()))
    } else {
        format!("its priority is {}, not {}", loser.priority, winner.priority)
    }
}

fn means(layer: &VariableLayer) -> String {
    match layer.level() {
        VariableLevel::Config | VariableLevel::Book | VariableLevel::Run => kind(layer.level()).to_owned(),
        _ => format!("for {}, priority {}", reach(layer.reach()), layer.priority),
    }
}

fn kind(level: VariableLevel) -> &'static str {
    match level {
        VariableLevel::Unspecified => "other values",
        VariableLevel::Config => "defaults of the Config",
        VariableLevel::Cluster => "ClusterVariables",
        VariableLevel::Namespace => "Variables",
        VariableLevel::Book => "the book's variables",
        VariableLevel::Run => "the Run's own (`--set`)",
    }
}

fn reach(reach: VariableReach) -> &'static str {
    match reach {
        VariableReach::Node => "this node by name",
        VariableReach::Group => "a group, selector or condition",
        VariableReach::All | VariableReach::Unspecified => "every node",
    }
}

fn all(layers: &[VariableLayer]) -> Value {
    Value::from(effective(layers))
}

/// What the node has in the end.
pub(crate) fn effective(layers: &[VariableLayer]) -> BTreeMap<String, Value> {
    layers.iter().map(|layer| &layer.values).fold(BTreeMap::new(), merged)
}

/// A value by its path.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

fn unknown(all: &Value, name: &str) -> String {
    let known = all.as_map().into_iter().flat_map(|map| map.keys().map(String::as_str));
    let hint = match nearest::nearest(name, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => "; `lockstep vars get` without a name shows all".to_owned(),
    };
    format!("the node has no variable {}{hint}", safe(name, SHOWN))
}

/// A value in a line.
fn shown(value: &Value) -> String {
    safe(&value.to_json_line(), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(source: &str, level: VariableLevel, reach: VariableReach, values: &str) -> VariableLayer {
        let values = manifest::decode_value("values", values.as_bytes()).unwrap().as_map().cloned().unwrap_or_default();
        VariableLayer {
            source: source.into(),
            level: level.into(),
            reach: reach.into(),
            values,
            ..VariableLayer::default()
        }
    }

    fn layers() -> Vec<VariableLayer> {
        use {VariableLevel as L, VariableReach as R};
        vec![
            layer("ClusterVariables/base", L::Cluster, R::All, "{port: 80, tls: {min: '1.2'}}"),
            layer("Variables/web", L::Namespace, R::All, "{port: 8080, tls: {max: '1.3'}}"),
            layer("Variables/web1", L::Namespace, R::Node, "{port: 9090}"),
        ]
    }

    #[test]
    fn the_winner_is_named_with_those_that_it_beat_and_why() {
        assert_eq!(
            explain(&layers(), "port", "web1").unwrap(),
            "\
port = 9090 on web1
  Variables/web1         9090                  wins: for this node by name, priority 0
  Variables/web          8080                  loses to Variables/web1: every node is wider than this node by name
  ClusterVariables/base  80                    loses to Variables/web1: ClusterVariables are weaker than Variables
"
        );
    }

    #[test]
    fn a_map_is_told_value_by_value() {
        let told = explain(&layers(), "tls", "web1").unwrap();
        assert!(told.contains("merged below Variables/web: ClusterVariables are weaker"), "{told}");
        assert!(told.contains("tls.max = \"1.3\"  from Variables/web\n"), "{told}");
        assert!(told.contains("tls.min = \"1.2\"  from ClusterVariables/base\n"), "{told}");
        assert_eq!(get(&layers(), Some("tls.min")).unwrap().trim(), "\"1.2\"");
        assert!(get(&layers(), Some("prt")).unwrap_err().ends_with("did you mean `port`?"));
    }
}
