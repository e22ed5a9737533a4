//! The precedence table, line by line; ties; and what a namespace does not see.

use lockstep_apis::manifest;
use lockstep_apis::v1alpha::{Metadata, Node, NodeGroup, Object, object::Kind as K};

use super::*;

/// Objects from YAML documents; `n1` to `n3` are there, `n1` and `n2` are labelled `role: web`, and in the group `web`.
struct Scene {
    objects: Vec<Object>,
    nodes: Vec<Node>,
}

fn scene(documents: &[&str]) -> Scene {
    let header = |document: &&str| format!("metadata: {{apiVersion: v1alpha, {document}");
    let mut texts: Vec<String> = documents.iter().map(header).collect();
    texts.push("metadata: {apiVersion: v1alpha, kind: Namespace, name: shop, labels: {team: a}}".to_owned());
    texts.push("metadata: {apiVersion: v1alpha, kind: NodeGroup, name: web}\nspec: {selector: role=web}".to_owned());
    let text = texts.join("\n---\n");
    let objects = manifest::decode("test.yaml", text.as_bytes(), Some("shop"));
    let objects = objects.unwrap_or_else(|violations| panic!("{text}\n{violations:?}"));
    let node = |index: usize| {
        let labels = if index < 3 { BTreeMap::from([("role".to_owned(), "web".to_owned())]) } else { BTreeMap::new() };
        let name = format!("n{index}");
        Node { metadata: Some(Metadata { uuid: name.clone(), name, labels, ..Metadata::default() }), ..Node::default() }
    };
    Scene { objects, nodes: (1..=3).map(node).collect() }
}

impl Scene {
    fn with<R>(&self, take: impl FnOnce(&VariableSources<'_>, &Config, &[AdmissionNode<'_>], &[&NodeGroup]) -> R) -> R {
        let (mut own, mut cluster, mut bindings, mut groups) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut namespace, mut config) = (None, Config::default());
        for object in &self.objects {
            match object.kind.as_ref().unwrap() {
                K::Variables(found) => own.push(found),
                K::ClusterVariables(found) => cluster.push(found),
                K::ClusterVariablesBinding(found) => bindings.push(found),
                K::NodeGroup(found) => groups.push(found),
                K::Namespace(found) => namespace = Some(found),
                K::Config(found) => config = found.clone(),
                other => panic!("{other:?}"),
            }
        }
        let nodes: Vec<AdmissionNode<'_>> = self.nodes.iter().map(|node| AdmissionNode { node, up: true }).collect();
        let sources = VariableSources { namespace, own: &own, cluster: &cluster, bindings: &bindings };
        take(&sources, &config, &nodes, &groups)
    }

    /// What `vars` is on a node, as JSON.
    fn vars(&self, node: &str) -> String {
        let layers = self.with(|sources, config, nodes, groups| of_node(sources, Some(config), nodes, groups, node));
        let merged = layers.unwrap().iter().map(|layer| &layer.values).fold(BTreeMap::new(), merged);
        serde_json::Value::from(Value::from(merged)).to_string()
    }

    fn ties(&self) -> Vec<String> {
        let ties = self.with(|sources, _, nodes, groups| all_ties(sources, nodes, groups)).unwrap();
        ties.iter().map(ToString::to_string).collect()
    }
}

const BIND: &str = "kind: ClusterVariablesBinding, name: b}\nspec: {clusterVariables: [c, cw, cn], namespaces: shop}";

#[test]
fn each_line_of_the_precedence_table_beats_the_one_before() {
    let table = [
        "kind: Config, name: cluster}\nspec: {runDefaults: {variables: {v: config}}}",
        "kind: ClusterVariables, name: c}\nspec: {static: {v: cluster all}}",
        "kind: ClusterVariables, name: cw}\nspec: {targets: {nodeGroups: [web]}, static: {v: cluster group}}",
        "kind: ClusterVariables, name: cn}\nspec: {targets: {nodes: [n1]}, static: {v: cluster node}}",
        "kind: Variables, name: a}\nspec: {static: {v: all}}",
        "kind: Variables, name: g}\nspec: {targets: {selector: role=web}, static: {v: group}}",
        "kind: Variables, name: gp}\nspec: {targets: {nodeGroups: [web]}, priority: 1, static: {v: group priority}}",
        "kind: Variables, name: n}\nspec: {targets: {nodes: [n1]}, priority: -1, static: {v: node}}",
    ];
    let expected = ["config", "cluster all", "cluster group", "cluster node", "all", "group", "group priority", "node"];
    for (count, expected) in (1..).zip(expected) {
        // The order in which objects come decides nothing.
        let mut documents: Vec<&str> = table[..count].iter().rev().copied().collect();
        documents.push(BIND);
        assert_eq!(scene(&documents).vars("n1"), format!("{{\"v\":\"{expected}\"}}"));
    }
    let mut documents = table.to_vec();
    documents.push(BIND);
    assert_eq!(scene(&documents).vars("n2"), "{\"v\":\"group priority\"}");
    assert_eq!(scene(&documents).vars("n3"), "{\"v\":\"all\"}");
}

#[test]
fn maps_merge_deeply_and_lists_replace() {
    let scene = scene(&[
        "kind: Variables, name: a}\nspec: {static: {tls: {min: 1, ciphers: [a, b], deep: {x: 1}}, one: 1}}",
        "kind: Variables, name: n}\nspec: {targets: {nodes: [n1]}, static: {tls: {ciphers: [c], deep: {y: 2}}, two: 2}}",
    ]);
    assert_eq!(scene.vars("n1"), r#"{"one":1,"tls":{"ciphers":["c"],"deep":{"x":1,"y":2},"min":1},"two":2}"#);
}

#[test]
fn unbound_cluster_variables_are_invisible() {
    let all = "kind: ClusterVariables, name: c}\nspec: {static: {v: 1}}";
    let binding =
        |spec: &str| format!("kind: ClusterVariablesBinding, name: b}}\nspec: {{clusterVariables: c, {spec}}}");
    let table = [
        ("namespaces: shop", true),
        ("namespaces: [other]", false),
        ("selector: team=a", true),
        ("selector: team!=a", false),
    ];
    assert_eq!(scene(&[all]).vars("n1"), "{}");
    for (spec, visible) in table {
        let found = scene(&[all, &binding(spec)]).vars("n1");
        assert_eq!(found, if visible { "{\"v\":1}" } else { "{}" }, "{spec}");
    }
}

#[test]
fn what_is_equally_strong_and_sets_one_value_is_a_tie() {
    let table = [
        ("static: {v: 1}", "static: {v: 2}", Some("`v` for every node")),
        ("static: {v: 1}", "static: {v: 1}", Some("`v` for every node")),
        ("static: {m: {a: 1}}", "static: {m: {a: 2, b: 1}}", Some("`m.a`")),
        ("static: {m: {a: 1}}", "static: {m: 1}", Some("`m`")),
        ("static: {m: {a: 1}}", "static: {m: {b: 1}}", None),
        ("static: {v: 1}", "static: {w: 2}", None),
        ("static: {v: 1}", "priority: 1, static: {v: 2}", None),
        ("targets: {nodes: [n1]}, static: {v: 1}", "targets: {selector: role=web}, static: {v: 2}", None),
        (
            "targets: {nodeGroups: [web]}, static: {v: 1}",
            "targets: {selector: role=web}, static: {v: 2}",
            Some("for the node `n1`"),
        ),
        ("targets: {nodes: [n1]}, static: {v: 1}", "targets: {nodes: [n2]}, static: {v: 2}", None),
        ("targets: {nodes: [n1, n2]}, static: {v: 1}", "targets: {nodes: [n2, n3]}, static: {v: 2}", Some("node `n2`")),
        // It has not joined yet: the Run that first has it would say so.
        ("targets: {nodes: [n9]}, static: {v: 1}", "targets: {nodes: [n9]}, static: {v: 2}", None),
        (
            "targets: {all: true, exclude: {nodes: [n1]}}, static: {v: 1}",
            "targets: {all: true, exclude: {nodes: [n2, n3]}}, static: {v: 2}",
            None,
        ),
        ("targets: {all: true, exclude: {nodes: [n1]}}, static: {v: 1}", "static: {v: 2}", Some("node `n2`")),
    ];
    for (one, other, expected) in table {
        let one_object = format!("kind: Variables, name: one}}\nspec: {{{one}}}");
        let other_object = format!("kind: Variables, name: two}}\nspec: {{{other}}}");
        let ties = scene(&[&other_object, &one_object]).ties();
        match expected {
            None => assert!(ties.is_empty(), "{one} and {other}: {ties:?}"),
            Some(expected) => {
                assert!(ties.len() == 1 && ties[0].contains(expected), "{one} and {other}: {ties:?}");
                assert!(ties[0].starts_with("Variables/one and Variables/two both set"), "{ties:?}");
            }
        }
    }
}

#[test]
fn a_group_that_is_not_there_names_the_object() {
    let scene = scene(&["kind: Variables, name: a}\nspec: {targets: {nodeGroups: [wbe]}, static: {v: 1}}"]);
    let refused = scene.with(|sources, _, nodes, groups| all_ties(sources, nodes, groups)).unwrap_err();
    assert_eq!(refused.reason, "UnknownNodeGroup");
    assert!(refused.message.starts_with("Variables/a: ") && refused.message.contains("`web`"), "{refused}");
}
