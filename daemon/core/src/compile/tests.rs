//! Claims about the compiler, as transcripts: a book and nodes in, groups, windows and segments out.

use lockstep_apis::manifest;
use lockstep_apis::v1alpha::{
    CompiledBlock, CompiledTask, Metadata, NodeSpec, NodeStatus, Object, OnFailure, OnInterrupt, object,
};

use super::*;

mod include;
mod ordering;
mod tags;

/// A small cluster: nodes named `n1`…, with whatever a test sets on them.
struct Cluster {
    nodes: Vec<(Node, bool)>,
    groups: Vec<NodeGroup>,
    picks: BTreeMap<String, Vec<String>>,
    config: Option<Config>,
    books: Vec<TaskBook>,
}

fn cluster(count: usize) -> Cluster {
    let node = |index: usize| {
        let name = format!("n{index}");
        let role = if index.is_multiple_of(2) { "db" } else { "web" };
        let labels = BTreeMap::from([("role".to_owned(), role.to_owned()), ("rank".to_owned(), index.to_string())]);
        let metadata = Metadata { uuid: format!("uid-{name}"), name, labels, ..Metadata::default() };
        let facts = serde_json::json!({"cpu": {"count": index}});
        let status = NodeStatus { facts: Some(facts.into()), ..NodeStatus::default() };
        (Node { metadata: Some(metadata), spec: None, status: Some(status) }, true)
    };
    Cluster {
        nodes: (1..=count).map(node).collect(),
        groups: Vec::new(),
        picks: BTreeMap::new(),
        config: None,
        books: Vec::new(),
    }
}

impl Cluster {
    fn down(mut self, index: usize) -> Self {
        self.nodes[index - 1].1 = false;
        self
    }

    fn cordoned(mut self, index: usize) -> Self {
        self.nodes[index - 1].0.spec = Some(NodeSpec { unschedulable: true });
        self
    }

    fn group(mut self, yaml: &str) -> Self {
        let yaml = format!("metadata: {{apiVersion: v1alpha, kind: NodeGroup, {yaml}");
        if let Some(object::Kind::NodeGroup(group)) = decode(&yaml).kind {
            self.groups.push(group);
        }
        self
    }

    fn compile(&self, run: &Run, book: Option<&TaskBook>) -> Result<Snapshot, Rejection> {
        self.admit(run, book, None)
    }

    fn admit(&self, run: &Run, book: Option<&TaskBook>, retry: Option<Retry<'_>>) -> Result<Snapshot, Rejection> {
        let nodes: Vec<_> = self.nodes.iter().rev().map(|(node, up)| AdmissionNode { node, up: *up }).collect();
        let groups: Vec<&NodeGroup> = self.groups.iter().collect();
        compile(&Admission {
            run,
            book,
            library: &Library::whole(&self.books),
            nodes: &nodes,
            groups: &groups,
            picks: &self.picks,
            config: self.config.as_ref(),
            variables: VariableSources::default(),
            now_ms: 1_000,
            retry,
        })
    }
}

fn decode(yaml: &str) -> Object {
    let objects = manifest::decode("test.yaml", yaml.as_bytes(), Some("shop"));
    objects.unwrap_or_else(|violations| panic!("{yaml}\n{violations:?}")).remove(0)
}

fn book(spec: &str) -> TaskBook {
    let yaml = format!("metadata: {{apiVersion: v1alpha, kind: TaskBook, name: web}}\nspec:\n{spec}");
    match decode(&yaml).kind {
        Some(object::Kind::TaskBook(book)) => book,
        _ => panic!("no book"),
    }
}

fn run(spec: &str) -> Run {
    let yaml = format!("metadata: {{apiVersion: v1alpha, kind: Run, name: r1}}\nspec:\n{spec}");
    match decode(&yaml).kind {
        Some(object::Kind::Run(mut run)) => {
            run.metadata.as_mut().unwrap().uuid = "run-1".to_owned();
            run
        }
        _ => panic!("no Run"),
    }
}

/// Groups, windows and segments in a few lines.
fn transcript(snapshot: &Snapshot) -> String {
    let names = |nodes: &[u32]| {
        let names: Vec<&str> = nodes.iter().map(|node| snapshot.nodes[*node as usize].name.as_str()).collect();
        names.join(" ")
    };
    let mut lines = Vec::new();
    for group in &snapshot.groups {
        let kind = if group.serialized { "serialized" } else { "all at once" };
        let windows: Vec<String> =
            group.windows.iter().map(|window| format!("{}[{}]", window.size, names(&window.nodes))).collect();
        lines.push(format!("{kind}, {:?} after {}: {}", group.on_failure(), group.max_failures, windows.join(" ")));
        let range = group.first_segment as usize..(group.first_segment + group.segment_count) as usize;
        for segment in &snapshot.segments[range] {
            let who = if segment.all_of_window { "all".to_owned() } else { names(&segment.nodes) };
            let by: Vec<&str> =
                segment.delegates.iter().map(|by| snapshot.delegates[*by as usize].name.as_str()).collect();
            let who = match by.as_slice() {
                [] => who,
                by => format!("{who} by {}, {} at once", by.join(" "), segment.throttle),
            };
            let tasks: Vec<String> = segment
                .tasks
                .iter()
                .map(|task| {
                    let is_out = !task.left_out.is_empty();
                    let marks = [(task.keep_result, "+"), (task.shared, "!"), (task.secret, "*"), (is_out, "-")];
                    let marks: String = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
                    let id = if task.gate.is_some() { "[gate]" } else { &task.id };
                    format!("{id}{marks}")
                })
                .collect();
            let reads = if segment.reads_shared.is_empty() {
                String::new()
            } else {
                format!(" reads {}", segment.reads_shared.join(" "))
            };
            let all = if segment.reads_all.is_empty() {
                String::new()
            } else {
                format!(" reads all {}", segment.reads_all.join(" "))
            };
            lines.push(format!("  {who}: {}{reads}{all}", tasks.join(" ")));
        }
    }
    lines.join("\n")
}

fn of(cluster: &Cluster, spec: &str) -> String {
    match cluster.compile(&run("  taskBooks: [web]"), Some(&book(spec))) {
        Ok(snapshot) => transcript(&snapshot),
        Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
    }
}

const ALL: &str = "  targets: {all: true}\n";

#[test]
fn tasks_without_sync_points_are_one_segment_of_one_window() {
    let spec =
        format!("{ALL}  tasks: [{{name: a, command.run: {{argv: [x]}}}}, {{name: b, command.run: {{argv: [x]}}}}]");
    assert_eq!(of(&cluster(3), &spec), "all at once, StopNow after 0: 3[n1 n2 n3]\n  all: a b");
}

#[test]
fn segments_are_cut_at_sync_points_only() {
    let spec = format!(
        "{ALL}{}",
        r#"  tasks:
    - {name: a, command.run: {argv: [x]}}
    - {name: b, command.run: {argv: [x]}, when: results.a.changed}
    - {name: c, command.run: {argv: [x]}, sync: true}
    - {name: d, command.run: {argv: [x]}}
    - {name: init, command.run: {argv: [x]}, targets: {selector: role=db}}
    - {name: token, command.run: {argv: [x]}, targets: {selector: role=db, limit: 1}, register: {secret: true}}
    - {name: once, command.run: {argv: [x]}, runOnce: true}
    - {name: e, file.managed: {path: /x, template: "{{shared.token.stdout}}"}}
    - {name: f, command.run: {argv: [x]}, when: shared.once.changed && shared.token.changed}
"#
    );
    assert_eq!(
        of(&cluster(4), &spec),
        "all at once, StopNow after 0: 4[n1 n2 n3 n4]\n  all: a+ b\n  all: c d\n  n2 n4: init\n  n2: token+!*\n  \
         n1: once+!\n  all: e f reads token once"
    );
}

#[test]
fn a_handler_that_a_delegated_task_notifies_is_done_by_the_delegate() {
    let spec = r#"  targets: {nodes: [n1, n2]}
  tasks:
    - {name: ask, command.query: {argv: [id]}}
    - {name: drain, delegateTo: {nodes: [n3]}, notify: [reload], command.run: {argv: [x]}}
  handlers: [{name: reload, command.run: {argv: ["${{ results.ask.stdout }}"]}}]
"#;
    let snapshot = cluster(3).compile(&run("  taskBooks: [web]"), Some(&book(spec))).unwrap();
    assert_eq!(transcript(&snapshot).lines().last(), Some("  n1 n2 by n3 n3, 8 at once: drain reload"));
    assert_eq!(snapshot.segments[1].reads_results, ["ask"]);
}

#[test]
fn of_nodes_the_facts_are_known_that_the_book_names() {
    let spec =
        |reads: &str| format!("{ALL}  tasks: [{{name: a, command.run: {{argv: [x, \"${{{{ {reads} }}}}\"]}}}}]\n");
    let mut cluster = cluster(2);
    let facts =
        serde_json::json!({"cpu": {"count": 4, "flags": "many"}, "os": {"family": "debian"}, "addresses": ["a"]});
    cluster.nodes[1].0.status = Some(NodeStatus { facts: Some(facts.into()), ..NodeStatus::default() });
    let facts = |reads: &str| {
        let snapshot = cluster.compile(&run("  taskBooks: [web]"), Some(&book(&spec(reads)))).unwrap();
        snapshot.nodes[1].facts.as_ref().map(serde_json::Value::from)
    };
    assert_eq!(facts("nodes.filter(n, n.facts.cpu.count > 2).size()"), Some(serde_json::json!({"cpu": {"count": 4}})));
    assert_eq!(facts("nodes.map(n, n.facts['os'].family)[0]"), Some(serde_json::json!({"os": {"family": "debian"}})));
    assert_eq!(facts("nodes[0].facts.addresses[0]"), Some(serde_json::json!({"addresses": ["a"]})));
    assert_eq!(facts("nodes[0].name"), None);
    let refused =
        cluster.compile(&run("  taskBooks: [web]"), Some(&book(&spec("nodes.map(n, n.facts).size()")))).unwrap_err();
    assert!(refused.message.contains("reads all `facts` of `nodes`"), "{refused}");
}

#[test]
fn what_a_later_window_makes_is_refused_to_an_earlier_one() {
    let spec = |targets: &str, options: &str| {
        format!(
            "{ALL}  runOptions: {{serialize: {{count: 1{options}}}}}\n  tasks:\n    - {{name: token, targets: {targets}, \
             command.run: {{argv: [id]}}}}\n    - {{name: use, command.run: {{argv: [\"${{{{ shared.token.stdout }}}}\"]}}}}\n"
        )
    };
    let told = of(&cluster(3), &spec("{nodes: [n3], limit: 1}", ""));
    assert!(told.starts_with("SharedTooLate: `shared.token` is made by n3 in window 3"), "{told}");
    assert!(of(&cluster(3), &spec("{nodes: [n1], limit: 1}", "")).contains("n1: token+!"));
    let last_first = ", orderBy: 'node.name == \"n3\" ? 0 : 1'";
    assert!(of(&cluster(3), &spec("{nodes: [n3], limit: 1}", last_first)).contains("n3: token+!"));
}

#[test]
fn a_reboot_is_a_segment_of_its_own_and_handlers_are_done_before_it() {
    let spec = format!(
        "{ALL}{}",
        r#"  runOptions: {serialize: {count: 1, gate: {check: [{id: up, wait.for: {port: 80}}]}}}
  tasks:
    - {name: a, command.run: {argv: [x]}, notify: [h]}
    - {name: reboot, reboot.ifRequired: {}}
    - {name: b, command.run: {argv: [x]}}
    - block:
        - {name: again, reboot.now: {}}
      always: [{name: c, command.run: {argv: [x]}}]
    - {name: last, reboot.now: {}}
  handlers: [{name: h, command.run: {argv: [x]}}]
"#
    );
    let found = of(&cluster(1), &spec);
    let segments: Vec<&str> = found.lines().skip(1).collect();
    assert_eq!(
        segments,
        ["  all: a h", "  all: reboot", "  all: b", "  all: again c", "  all: c", "  all: last", "  all: [gate]"]
    );
}

#[test]
fn a_serialized_book_is_one_group_and_its_last_count_is_repeated() {
    let spec = r#"  targets: {all: true}
  runOptions: {serialize: {count: [1, "30%"], maxFailures: "25%", onFailure: FinishWindow}}
  tasks: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [x]}, sync: true}]
"#;
    assert_eq!(
        of(&cluster(9), spec),
        "serialized, FinishWindow after 2: 1[n1] 2[n2 n3] 2[n4 n5] 2[n6 n7] 2[n8 n9]\n  all: a\n  all: b"
    );
    // Rounded down, at least one.
    let small = spec.replace("\"30%\"", "\"1%\"");
    assert!(of(&cluster(3), &small).starts_with("serialized, FinishWindow after 0: 1[n1] 1[n2] 1[n3]"));
}

#[test]
fn order_by_says_who_goes_first_and_equals_go_by_name() {
    let mut cluster = cluster(11).cordoned(3);
    cluster.nodes[3].0.metadata.as_mut().unwrap().labels.remove("rank");
    cluster.nodes[4].0.metadata.as_mut().unwrap().labels.insert("rank".to_owned(), "last".to_owned());
    cluster.nodes[5].0.status = None;
    let order = |order: &str| {
        let serialize = format!("{{count: 100%, orderBy: {order}}}");
        let spec = format!("{ALL}  runOptions: {{serialize: {serialize}}}\n  tasks: [{{name: a, time.sleep: 1s}}]");
        let found = of(&cluster, &spec);
        let nodes = found.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(nodes, _)| nodes.to_owned());
        nodes.unwrap_or(found)
    };
    // Labels are texts; those that are numbers are compared as such, other texts and missing ones come last.
    assert_eq!(order("node.labels.rank"), "n1 n2 n3 n6 n7 n8 n9 n10 n11 n5 n4");
    assert_eq!(order("\"node.labels.role == 'web'\""), "n10 n2 n4 n6 n8 n1 n11 n3 n5 n7 n9");
    // A node that never said its facts goes last.
    assert_eq!(order("0 - facts.cpu.count"), "n11 n10 n9 n8 n7 n5 n4 n3 n2 n1 n6");
    assert_eq!(
        order("facts.cpu"),
        "InvalidOrderBy: `orderBy: facts.cpu` puts the node `n1` nowhere: it is a map, and must be a number or a text"
    );
    assert!(order("facts.cpu.cuont").starts_with("InvalidOrderBy: `orderBy: facts.cpu.cuont` puts the node `n1`"));
}

#[test]
fn what_every_node_did_is_read_after_a_barrier() {
    let spec = format!(
        "{ALL}{}",
        r#"  tasks:
    - {name: a, command.run: {argv: [x]}}
    - {name: b, command.run: {argv: [x]}}
    - {name: c, command.run: {argv: ["${{ all.a['n1'].stdout }}"]}}
    - {name: d, file.managed: {path: /x, template: "{{#each all.a}}{{@key}} {{this.stdout}}\n{{/each}}"}}
    - {name: e, command.run: {argv: ["${{ all.d[node.name].changed ? 'x' : 'y' }}"]}}
"#
    );
    assert_eq!(
        of(&cluster(2), &spec),
        "all at once, StopNow after 0: 2[n1 n2]\n  all: a+ b\n  all: c d+ reads all a\n  all: e reads all d"
    );
}

#[test]
fn a_serialized_block_is_a_group_of_its_own() {
    let spec = format!(
        "{ALL}{}",
        r#"  tasks:
    - {name: a, command.run: {argv: [x]}}
    - name: roll
      serialize: {count: 1, orderBy: 0 - facts.cpu.count, gate: {check: [{id: up, command.query: {argv: [x]}}]}}
      targets: {selector: role=db}
      block:
        - {name: b, command.run: {argv: [x]}}
        - {name: c, command.run: {argv: [x]}, targets: {nodes: [n2]}}
    - {name: d, command.run: {argv: [x]}}
    - name: e
      serialize: 2
      block:
        - {name: f, command.run: {argv: [x]}}
      always:
        - {name: g, command.run: {argv: [x]}}
"#
    );
    assert_eq!(
        of(&cluster(4), &spec),
        "all at once, StopNow after 0: 4[n1 n2 n3 n4]\n  all: a\n\
         serialized, StopNow after 0: 1[n4] 1[n2]\n  all: b\n  n2: c\n  all: [gate]\n\
         all at once, StopNow after 0: 4[n1 n2 n3 n4]\n  all: d\n\
         serialized, StopNow after 0: 2[n1 n2] 2[n3 n4]\n  all: f g"
    );
}

/// Refused, or the transcript, for a task `d` with this `delegateTo`.
fn delegated(cluster: &Cluster, to: &str) -> String {
    let spec = format!(
        "  targets: {{selector: role=web}}\n  tasks: [{{name: a, time.sleep: 1s}}, {{name: d, delegateTo: {to}, \
         command.run: {{argv: [\"${{{{ node.name }}}}\"]}}}}, {{name: b, time.sleep: 1s}}]"
    );
    of(cluster, &spec)
}

#[test]
fn a_delegated_task_is_a_segment_for_each_node_done_by_another() {
    let one = delegated(&cluster(5), "{nodes: [n4]}");
    let group = "all at once, StopNow after 0: 3[n1 n3 n5]";
    assert_eq!(one, format!("{group}\n  all: a\n  n1 n3 n5 by n4 n4 n4, 8 at once: d\n  all: b"));
    // Each its own: what names it is known of the node that it is for.
    let each = delegated(&cluster(5), "{nodes: [\"n${{ 6 - facts.cpu.count }}\"]}");
    assert_eq!(each, format!("{group}\n  all: a\n  n1 n3 n5 by n5 n3 n1, 8 at once: d\n  all: b"));
    // The first that can.
    let first = delegated(&cluster(5).cordoned(2), "{selector: role=db, limit: 1}");
    assert!(first.contains("n1 n3 n5 by n4 n4 n4"), "{first}");
}

#[test]
fn a_delegate_that_cannot_do_it_is_a_reason_to_refuse() {
    let table = [
        (cluster(5), "{nodes: [n9]}", "UnknownNode: the task `d`: delegateTo: targets names the node `n9`"),
        (cluster(5), "{selector: role=lb}", "NoDelegate: the task `d` has nobody to do it for n1"),
        (
            cluster(5),
            "{selector: role=db}",
            "SeveralDelegates: the task `d` is delegated to 2 nodes for n1 (n2, n4), and one does it: name one",
        ),
        (
            cluster(5).cordoned(4),
            "{nodes: [n4]}",
            "DelegateCordoned: the task `d` is delegated to n4, which is cordoned",
        ),
        (
            cluster(5).down(4),
            "{nodes: [n4]}",
            "DelegateUnreachable: the task `d` is delegated to n4, which is not connected: start it, or say",
        ),
        (
            cluster(5),
            "{nodes: [\"${{ node.labels.lb }}\"]}",
            "InvalidDelegate: the task `d`: `delegateTo` has no answer for n1: `${{ node.labels.lb }}`: it names no node",
        ),
    ];
    for (cluster, to, expected) in table {
        let found = delegated(&cluster, to);
        assert!(found.starts_with(expected), "{to}: {found}");
    }
}

#[test]
fn a_retry_judges_its_delegates_anew() {
    let cluster = cluster(4);
    let spec = "  targets: {selector: role=web}\n  tasks: [{name: d, delegateTo: {nodes: [n4]}, time.sleep: 1s}]";
    let first = cluster.compile(&run("  taskBooks: [web]"), Some(&book(spec))).unwrap();
    let (none, sealed) = (BTreeMap::new(), BTreeMap::new());
    let nodes = BTreeSet::from(["uid-n3".to_owned()]);
    let owed = BTreeMap::new();
    let retry =
        || Retry { snapshot: &first, nodes: &nodes, shared: &none, all: &none, sealed_shared: &sealed, owed: &owed };
    let again = run("  taskBooks: [web]");
    let snapshot = cluster.admit(&again, None, Some(retry())).unwrap();
    assert_eq!(transcript(&snapshot), "all at once, StopNow after 0: 2[n3]\n  n3 by n4, 8 at once: d");
    let rejection = cluster.cordoned(4).admit(&again, None, Some(retry())).unwrap_err();
    assert_eq!(rejection.reason, "DelegateCordoned");
}

#[test]
fn addresses_go_with_a_run_only_if_another_node_reads_them() {
    let mut cluster = cluster(2);
    cluster.nodes[0].0.status.as_mut().unwrap().addresses = vec!["10.0.0.1".to_owned()];
    for (argv, kept) in [("node.addresses[0]", 1), ("node.name", 0)] {
        let spec = format!(
            "  targets: {{nodes: [n1]}}\n  tasks: [{{name: d, delegateTo: {{nodes: [n2]}}, command.run: {{argv: \
             [\"${{{{ {argv} }}}}\"]}}}}]"
        );
        let snapshot = cluster.compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
        assert_eq!(snapshot.nodes[0].addresses.len(), kept, "{argv}");
    }
}

const GATE: &str = "gate: {check: [{id: c, command.query: {argv: [x, \"${{ shared.o.stdout }}\"]}}], \
                    condition: checks.c.changed || results.a.changed, retry: {interval: 2s}, soak: 1m}";

#[test]
fn a_gate_ends_the_last_segment_of_its_group_and_is_passed_by_every_node() {
    let spec = |last: &str| {
        format!(
            "{ALL}  runOptions: {{serialize: {{count: 1, {GATE}}}}}\n  tasks: [{{name: o, runOnce: true, time.sleep: 1s}}, \
             {{name: a, time.sleep: 1s}}{last}]"
        )
    };
    assert_eq!(
        of(&cluster(2), &spec("")),
        "serialized, StopNow after 0: 1[n1] 1[n2]\n  n1: o+!\n  all: a+ [gate] reads o"
    );
    // Only some do the last task: the gate is every node's all the same.
    assert_eq!(
        of(&cluster(2), &spec(", {name: b, time.sleep: 1s, targets: {nodes: [n2]}}")),
        "serialized, StopNow after 0: 1[n1] 1[n2]\n  n1: o+!\n  all: a+\n  n2: b\n  all: [gate] reads o"
    );
}

#[test]
fn a_tasks_gate_is_its_groups_and_has_defaults() {
    let gate = "gate: {check: [{name: Is up, command.query: {argv: [x]}}]}";
    let spec = format!(
        "{ALL}  tasks: [{{name: a, time.sleep: 1s, serialize: {{count: 1, {gate}}}}}, {{name: b, time.sleep: 1s}}]"
    );
    assert_eq!(
        of(&cluster(1), &spec),
        "serialized, StopNow after 0: 1[n1]\n  all: a [gate]\nall at once, StopNow after 0: 1[n1]\n  all: b"
    );
    let snapshot = cluster(1).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    let task = &snapshot.segments[0].tasks[1];
    let gate = task.gate.as_ref().unwrap();
    assert_eq!((gate.interval_ms, gate.limit, gate.soak_ms), (5_000, 20, 0));
    assert_eq!((gate.checks[0].id.as_str(), gate.checks[0].timeout_ms), ("is_up", 30_000));
    assert!(task.on_interrupt() == OnInterrupt::Rerun && task.index > 10_000);
}

#[test]
fn run_once_in_a_rollout_group_is_of_the_first_node_in_its_order() {
    let spec = r#"  targets: {all: true}
  runOptions: {serialize: {count: 1, orderBy: 0 - facts.cpu.count}}
  tasks:
    - {name: a, time.sleep: 1s, runOnce: true}
    - {name: b, time.sleep: 1s, runOnce: true, targets: {selector: role=web}}
"#;
    assert_eq!(of(&cluster(4), spec), "serialized, StopNow after 0: 1[n4] 1[n3] 1[n2] 1[n1]\n  n4: a\n  n3: b");
}

#[test]
fn more_failures_than_nodes_are_no_limit() {
    let spec = |max: &str| {
        format!("{ALL}  runOptions: {{serialize: {{count: 1, maxFailures: {max}}}}}\n  tasks: [{{time.sleep: 1s}}]")
    };
    let refused = of(&cluster(2), &spec("3"));
    assert_eq!(refused, "MaxFailures: `maxFailures: 3` is more than the group's 2 nodes: give fewer, or a percentage");
    assert!(of(&cluster(2), &spec("2")).starts_with("serialized, StopNow after 2"));
    assert!(of(&cluster(5), &spec("50%")).starts_with("serialized, StopNow after 2"));
    assert!(of(&cluster(5), &spec("100%")).starts_with("serialized, StopNow after 5"));
}

#[test]
fn a_serialized_task_is_a_group_of_its_own() {
    let spec = format!(
        "{ALL}{}",
        r#"  tasks:
    - {name: a, command.run: {argv: [x]}}
    - {name: b, command.run: {argv: [x]}, serialize: 2}
    - {name: c, command.run: {argv: [x]}, serialize: {count: 1, maxFailures: 1}, targets: {selector: role=db}}
    - {name: d, command.run: {argv: [x]}}
    - {name: e, command.run: {argv: [x]}}
"#
    );
    assert_eq!(
        of(&cluster(4), &spec),
        "all at once, StopNow after 0: 4[n1 n2 n3 n4]\n  all: a\n\
         serialized, StopNow after 0: 2[n1 n2] 2[n3 n4]\n  all: b\n\
         serialized, StopNow after 1: 1[n2] 1[n4]\n  all: c\n\
         all at once, StopNow after 0: 4[n1 n2 n3 n4]\n  all: d e"
    );
}

#[test]
fn run_once_is_done_by_the_first_node_that_can() {
    let spec = format!("{ALL}  tasks: [{{name: a, command.run: {{argv: [x]}}, runOnce: true}}]");
    assert_eq!(of(&cluster(3).cordoned(1), &spec), "all at once, StopNow after 0: 3[n1 n2 n3]\n  n2: a");
    assert_eq!(of(&cluster(2).down(1).down(2), &spec), "all at once, StopNow after 0: 2[n1 n2]\n  n1: a");
}

#[test]
fn targets_choose_these_nodes() {
    let cluster = cluster(6)
        .group("name: dbs}\nspec: {selector: role=db}")
        .group("name: big}\nspec: {where: facts.cpu.count > 3}")
        .group("name: some}\nspec: {nodes: [n1, n9], include: [dbs], exclude: [big]}")
        .group("name: loop}\nspec: {include: [pool]}")
        .group("name: pool}\nspec: {include: [loop]}");
    let table = [
        ("{all: true}", "n1 n2 n3 n4 n5 n6"),
        ("{nodes: [n3, n1]}", "n1 n3"),
        ("{nodes: [n1], nodeGroups: [dbs]}", "n1 n2 n4 n6"),
        ("{nodeGroups: [dbs], where: facts.cpu.count > 3}", "n4 n6"),
        ("{nodeGroups: [some]}", "n1 n2"),
        ("{selector: 'role!=db', exclude: {nodes: [n1]}}", "n3 n5"),
        ("{all: true, exclude: {nodeGroups: [big], selector: role=web}}", "n2"),
        ("{all: true, limit: 2}", "n1 n2"),
        ("{where: \"node.labels.rank == '5'\"}", "n5"),
        ("{selector: role=none}", "NoTargets: no node of 6 matches selector `role=none`"),
        ("{nodes: [n11]}", "UnknownNode: targets names the node `n11`, which is not there: did you mean `n1`?"),
        (
            "{nodeGroups: [dbss]}",
            "UnknownNodeGroup: targets names the NodeGroup `dbss`, which is not there: did you mean `dbs`?",
        ),
        ("{nodeGroups: [loop]}", "GroupCycle: NodeGroups include each other: loop → pool → loop"),
        ("{where: facts.cpu.cuont > 1}", "InvalidWhere: `where: facts.cpu.cuont > 1` has no answer on the node `n1`"),
    ];
    for (targets, expected) in table {
        let spec = format!("  targets: {targets}\n  tasks: [{{name: a, command.run: {{argv: [x]}}}}]");
        let found = match cluster.compile(&run("  taskBooks: [web]"), Some(&book(&spec))) {
            Ok(snapshot) => snapshot.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(" "),
            Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
        };
        assert!(found.starts_with(expected) && (expected.contains(':') || found == expected), "{targets}: {found}");
    }
}

#[test]
fn a_pick_takes_the_first_in_its_order() {
    let spec = |pick: &str| {
        format!("  targets: {{all: true, limit: 2, pick: {pick}}}\n  tasks: [{{name: a, command.run: {{argv: [x]}}}}]")
    };
    let nodes = |spec: &str| {
        let snapshot = cluster(5).compile(&run("  taskBooks: [web]"), Some(&book(spec))).unwrap();
        snapshot.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(nodes(&spec("{orderBy: 0 - facts.cpu.count}")), "n4 n5");
    assert_eq!(nodes(&spec("{orderBy: node.labels.role}")), "n2 n4");
}

const STICKY: &str = "  targets: {all: true}\n  tasks:\n    - {name: init, command.run: {argv: [x]}, targets: {selector: \
                      role=db, limit: 1, pick: {sticky: founder, onMissing: MISSING}}}\n    - {name: token, \
                      command.run: {argv: [x]}, targets: {all: true, limit: 1, pick: {sticky: founder}}}";

#[test]
fn a_sticky_pick_is_one_choice_for_all_that_name_it_and_is_remembered() {
    let mut cluster = cluster(4);
    let book = book(&STICKY.replace("MISSING", "Fail"));
    let first = cluster.compile(&run("  taskBooks: [web]"), Some(&book)).unwrap();
    assert_eq!(transcript(&first), "all at once, StopNow after 0: 4[n1 n2 n3 n4]\n  n2: init\n  n2: token");
    let pick = |nodes: &[&str], before: &[&str]| lockstep_apis::v1alpha::SnapshotPick {
        name: "founder".to_owned(),
        nodes: nodes.iter().map(|uid| (*uid).to_owned()).collect(),
        before: before.iter().map(|uid| (*uid).to_owned()).collect(),
    };
    assert_eq!(first.picks, [pick(&["uid-n2"], &[])]);
    cluster.picks = BTreeMap::from([("founder".to_owned(), vec!["uid-n4".to_owned()])]);
    let later = cluster.compile(&run("  taskBooks: [web]"), Some(&book)).unwrap();
    assert!(transcript(&later).ends_with("n4: init\n  n4: token"));
    assert_eq!(later.picks, [pick(&["uid-n4"], &["uid-n4"])]);
}

#[test]
fn a_sticky_pick_that_is_missing_is_refused_or_replaced() {
    let mut cluster = cluster(4);
    cluster.picks = BTreeMap::from([("founder".to_owned(), vec!["uid-n3".to_owned()])]);
    let of_book = |cluster: &Cluster, missing: &str| of(cluster, &STICKY.replace("MISSING", missing));
    assert_eq!(
        of_book(&cluster, "Fail"),
        "PickMissing: the task `init`: the pick `founder` is n3, which the targets no longer mean: with `onMissing: \
         Choose` another one takes its place"
    );
    cluster.picks = BTreeMap::from([("founder".to_owned(), vec!["uid-gone".to_owned()])]);
    assert!(of_book(&cluster, "Fail").contains("the pick `founder` is a node that is gone (uid-gone)"));
    assert!(of_book(&cluster, "Choose").ends_with("n2: init\n  n2: token"));
}

#[test]
fn the_runs_targets_stand_in_place_of_the_books() {
    let book = book("  targets: {nodes: [n1]}\n  tasks: [{name: a, command.run: {argv: [x]}}]");
    let snapshot = cluster(3).compile(&run("  taskBooks: [web]\n  targets: {nodes: [n2]}"), Some(&book)).unwrap();
    assert_eq!(snapshot.nodes[0].name, "n2");
    let without = self::book("  tasks: [{name: a, command.run: {argv: [x]}}]");
    let rejection = cluster(3).compile(&run("  taskBooks: [web]"), Some(&without)).unwrap_err();
    assert_eq!(rejection.reason, "NoTargets");
}

#[test]
fn a_node_with_no_facts_matches_no_condition_on_facts() {
    let mut cluster = cluster(2);
    cluster.nodes[0].0.status = None;
    let book = book("  targets: {where: facts.cpu.count > 0}\n  tasks: [{name: a, command.run: {argv: [x]}}]");
    let snapshot = cluster.compile(&run("  taskBooks: [web]"), Some(&book)).unwrap();
    assert_eq!(snapshot.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n2"]);
}

#[test]
fn nodes_that_cannot_work_end_early_as_the_options_say() {
    let early = |options: &str| {
        let spec = format!("{ALL}{options}  tasks: [{{name: a, command.run: {{argv: [x]}}}}]");
        let cluster = cluster(3).cordoned(1).down(1).down(2);
        let snapshot = cluster.compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
        snapshot.nodes.iter().map(|node| node.early()).collect::<Vec<_>>()
    };
    use EarlyEnd::{Cordoned, UnreachableFailed, UnreachableSkipped, Unspecified};
    assert_eq!(early(""), [Cordoned, UnreachableSkipped, Unspecified]);
    assert_eq!(early("  runOptions: {serialize: 1}\n"), [Cordoned, UnreachableFailed, Unspecified]);
    assert_eq!(
        early("  runOptions: {serialize: 1, onUnreachable: Skip}\n"),
        [Cordoned, UnreachableSkipped, Unspecified]
    );
    assert_eq!(early("  runOptions: {onUnreachable: Wait}\n"), [Cordoned, Unspecified, Unspecified]);
}

#[test]
fn inputs_are_checked_and_filled_in() {
    let book = book(
        r#"  targets: {all: true}
  inputs:
    version: {type: string, pattern: '\d+\.\d+', required: true}
    count: {type: integer, default: 3}
    mode: {type: string, enum: [fast, safe], default: safe}
    note: {type: string}
  tasks: [{name: a, command.run: {argv: ["${{ inputs.version }}"]}}]
"#,
    );
    let run_with = |inputs: &str| run(&format!("  taskBooks: [web]\n  inputs: {inputs}"));
    let snapshot = cluster(1).compile(&run_with("{version: '1.2'}"), Some(&book)).unwrap();
    let inputs = serde_json::Value::from(Value::from(snapshot.inputs));
    assert_eq!(inputs, serde_json::json!({"version": "1.2", "count": 3, "mode": "safe", "note": null}));
    let rejection = cluster(1).compile(&run_with("{count: '3', mode: slow, vresion: x}"), Some(&book)).unwrap_err();
    assert_eq!(rejection.reason, "InvalidInputs");
    let messages: Vec<String> = rejection.violations.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "spec.inputs.count: must be an integer, and is the text \"3\"",
            "spec.inputs.mode: the text \"slow\" is none of \"fast\", \"safe\"",
            "spec.inputs.vresion: the book has no input `vresion`: did you mean `version`?",
            "spec.inputs.version: the input `version` is required: give it with `--input version=…`",
        ]
    );
}

#[test]
fn maps_of_variables_merge_and_lists_are_replaced() {
    let book = book(
        "  targets: {all: true}\n  variables: {port: 1, tls: {min: 1, max: 3, l: [1, 2]}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
    );
    let run = run("  taskBooks: [web]\n  set: {port: 2, tls: {max: 4, l: [3]}, new: {x: 1}}");
    let snapshot = cluster(1).compile(&run, Some(&book)).unwrap();
    let variables = serde_json::Value::from(Value::from(snapshot.variables));
    let expected = serde_json::json!({"port": 2, "tls": {"min": 1, "max": 4, "l": [3]}, "new": {"x": 1}});
    assert_eq!(variables, expected);
}

#[test]
fn defaults_come_from_the_config_and_the_action() {
    let spec = "  targets: {all: true}\n  locks: [{name: l, mode: Read}]\n  tasks: [{name: a, command.run: {argv: [x]}}, {name: b, file.absent: {path: /x}, timeout: 5s}, {name: c, command.run: {argv: [x]}, onInterrupt: Rerun}]";
    let mut cluster = cluster(1);
    let snapshot = cluster.compile(&run("  taskBooks: [web]\n  priority: 7"), Some(&book(spec))).unwrap();
    assert_eq!((snapshot.timeout_ms, snapshot.grace_ms), (RUN_TIMEOUT_MS, GRACE_MS));
    assert_eq!((snapshot.created_ms, snapshot.priority, snapshot.concurrent), (1_000, 7, false));
    assert_eq!(
        (snapshot.run_uid.as_str(), snapshot.run_name.as_str(), snapshot.namespace.as_str()),
        ("run-1", "r1", "shop")
    );
    assert_eq!(snapshot.locks.len(), 1);
    let tasks = &snapshot.segments[0].tasks;
    assert_eq!(tasks.iter().map(|task| task.timeout_ms).collect::<Vec<_>>(), [600_000, 5_000, 600_000]);
    let interrupted: Vec<_> = tasks.iter().map(|task| task.on_interrupt()).collect();
    assert_eq!(interrupted, [OnInterrupt::Fail, OnInterrupt::Rerun, OnInterrupt::Rerun]);
    let config = "metadata: {apiVersion: v1alpha, kind: Config, name: cluster}\nspec: {runDefaults: {timeout: 2h, grace: 1s}, actionAllowList: ['file.*']}";
    if let Some(object::Kind::Config(config)) = decode(config).kind {
        cluster.config = Some(config);
    }
    let rejection = cluster.compile(&run("  taskBooks: [web]"), Some(&book(spec))).unwrap_err();
    assert_eq!(rejection.reason, "InvalidBook");
    assert_eq!(rejection.violations.len(), 2);
    assert_eq!(
        rejection.violations[0].to_string(),
        "spec.tasks[0].command.run: `command.run` is not in `actionAllowList` of the Config `cluster`"
    );
    let files = "  targets: {all: true}\n  runOptions: {grace: 3s}\n  tasks: [{name: b, file.absent: {path: /x}}]";
    let snapshot = cluster.compile(&run("  taskBooks: [web]"), Some(&book(files))).unwrap();
    assert_eq!((snapshot.timeout_ms, snapshot.grace_ms), (7_200_000, 3_000));
}

#[test]
fn a_run_that_only_reads_does_not_queue() {
    let spec = format!("{ALL}  tasks: [{{name: a, command.query: {{argv: [x]}}}}]");
    let snapshot = cluster(1).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    assert!(snapshot.concurrent);
}

#[test]
fn only_labels_that_are_read_are_kept_unless_any_may_be() {
    let kept = |argument: &str| {
        let spec = format!("{ALL}  tasks: [{{name: a, command.run: {{argv: [\"{argument}\"]}}}}]");
        let snapshot = cluster(1).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
        snapshot.nodes[0].labels.keys().cloned().collect::<Vec<_>>()
    };
    assert!(kept("x").is_empty());
    assert_eq!(kept("${{ node.labels.rank }}"), ["rank"]);
    assert_eq!(kept("${{ size(node.labels) }}"), ["rank", "role"]);
    assert_eq!(kept("${{ size(nodes) }}"), ["rank", "role"]);
}

#[test]
fn only_segments_that_read_the_runs_nodes_say_so() {
    let spec = format!(
        "{ALL}  tasks: [{{name: a, command.run: {{argv: [x]}}}}, {{name: b, sync: true, command.run: {{argv: [\"${{{{ size(nodes) }}}}\"]}}}}]"
    );
    let snapshot = cluster(1).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    assert_eq!(snapshot.segments.iter().map(|segment| segment.reads_nodes).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_is_wrong_with_a_book_rejects_its_run() {
    let spec = format!("{ALL}  tasks: [{{name: a, command.run: {{argv: [x]}}, when: results.b.changed}}]");
    assert!(
        of(&cluster(1), &spec).starts_with("InvalidBook: spec.tasks[0]: reads `results.b`, and no task has the id `b`")
    );
    let spec = format!("{ALL}  tasks: [{{name: a, command.run: {{argv: [x]}}, targets: {{nodes: [n2]}}}}]");
    let only = "  targets: {nodes: [n1]}\n";
    assert_eq!(
        of(&cluster(2), &spec.replace(ALL, only)),
        "NoTargets: the task `a` has targets that match none of the Run's nodes"
    );
    let rejection = cluster(1).compile(&run("  taskBooks: [web]"), None).unwrap_err();
    assert_eq!(rejection.reason, "BookNotFound");
    assert_eq!(rejection.message, "there is no TaskBook `web` in the namespace `shop`: apply it first");
}

#[test]
fn the_same_admission_gives_the_same_snapshot() {
    let spec = format!("{ALL}  variables: {{a: 1, b: {{c: 2}}}}\n  tasks: [{{name: a, command.run: {{argv: [x]}}}}]");
    let compile = || cluster(5).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    assert_eq!(prost::Message::encode_to_vec(&compile()), prost::Message::encode_to_vec(&compile()));
}

#[test]
fn a_retry_takes_on_the_nodes_that_did_not_succeed_with_what_they_read() {
    let spec = r#"  targets: {all: true}
  runOptions: {serialize: 2}
  tasks:
    - {name: token, command.run: {argv: [x]}, runOnce: true}
    - {name: db, command.run: {argv: [x]}, targets: {selector: role=db}}
    - {name: use, command.run: {argv: ["${{ shared.token.stdout }}"]}}
"#;
    let cluster = cluster(6).down(5);
    let old = cluster.compile(&run("  taskBooks: [web]"), Some(&book(spec))).unwrap();
    let nodes: BTreeSet<String> = ["uid-n3", "uid-n4", "uid-n5", "uid-gone"].map(str::to_owned).into();
    let shared = BTreeMap::from([("token".to_owned(), Value::map([("stdout", Value::text("t"))]))]);
    let sealed_shared = BTreeMap::new();
    let all = BTreeMap::from([("a".to_owned(), Value::map([("n1", Value::text("said"))]))]);
    let owed = BTreeMap::from([("uid-n2".to_owned(), BTreeSet::from([7]))]);
    let retry =
        |nodes| Retry { snapshot: &old, nodes, shared: &shared, all: &all, sealed_shared: &sealed_shared, owed: &owed };
    let mut again = run("  taskBooks: [web]");
    again.metadata.as_mut().unwrap().uuid = "run-2".to_owned();
    let snapshot = cluster.admit(&again, None, Some(retry(&nodes))).unwrap();
    assert_eq!(transcript(&snapshot), "serialized, StopNow after 0: 2[n3 n4] 2[n5]\n  n4: db\n  all: use reads token");
    assert_eq!((snapshot.run_uid.as_str(), snapshot.shared.len()), ("run-2", 1));
    assert_eq!(snapshot.all, all, "what nodes said that succeeded is not lost");
    assert_eq!(snapshot.nodes[2].early(), EarlyEnd::UnreachableFailed);
    let none = BTreeSet::new();
    let rejection = cluster.admit(&again, None, Some(retry(&none))).unwrap_err();
    assert_eq!(rejection.reason, "NoTargets");
}

#[test]
fn on_failure_without_serialize_is_of_the_options() {
    let spec =
        format!("{ALL}  runOptions: {{onFailure: FinishWindow}}\n  tasks: [{{name: a, command.run: {{argv: [x]}}}}]");
    let snapshot = cluster(1).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    assert_eq!(snapshot.groups[0].on_failure(), OnFailure::FinishWindow);
    let run = run("  taskBooks: [web]\n  runOptions: {onFailure: StopNow, serialize: 1}");
    let snapshot = cluster(1).compile(&run, Some(&book(&spec))).unwrap();
    assert_eq!(transcript(&snapshot), "serialized, StopNow after 0: 1[n1]\n  all: a");
}

/// Tasks of each segment with the parts of blocks that they are in, and what the segment says of its blocks.
fn blocks(snapshot: &Snapshot) -> String {
    let place = |place: &lockstep_apis::v1alpha::Within| format!("{}{:?}", place.block, place.part());
    let segment = |segment: &Segment| {
        let task = |task: &CompiledTask| {
            let places: Vec<String> = task.within.iter().map(place).collect();
            format!("{}@{}", task.id, places.join("/"))
        };
        let tasks: Vec<String> = segment.tasks.iter().map(task).collect();
        let block = |block: &CompiledBlock| {
            let marks = [(block.rescues, "r"), (block.begun, "<"), (block.goes_on, ">")];
            let marks: String = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
            format!("{}{marks}", block.index)
        };
        let blocks: Vec<String> = segment.blocks.iter().map(block).collect();
        let who = if segment.all_of_window { String::new() } else { format!(" on {:?}", segment.nodes) };
        format!("{} [{}]{who}", tasks.join(" "), blocks.join(" "))
    };
    snapshot.segments.iter().map(segment).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_block_that_is_cut_has_what_follows_a_failure_in_each_of_its_segments() {
    let spec = format!(
        "{ALL}{}",
        r#"  tasks:
    - {name: first, command.run: {argv: [x]}}
    - block:
        - {name: a, command.run: {argv: [x]}}
        - block:
            - {name: b, command.run: {argv: [x]}}
            - {name: c, command.run: {argv: [x]}, sync: true}
          always: [{name: d, command.run: {argv: [x]}}]
        - {name: once, command.run: {argv: [x]}, runOnce: true}
      rescue: [{block: [{name: e, command.run: {argv: [x]}}], rescue: [{name: f, command.run: {argv: [x]}}]}]
      always: [{name: g, command.run: {argv: [x]}}]
    - {name: last, command.run: {argv: [x]}}
"#
    );
    let snapshot = cluster(2).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    assert_eq!(
        blocks(&snapshot),
        "first@ a@0Body b@0Body/1Body d@0Body/1Always e@0Rescue/2Body f@0Rescue/2Rescue g@0Always [0r> 1> 2r]\n\
         c@0Body/1Body d@0Body/1Always e@0Rescue/2Body f@0Rescue/2Rescue g@0Always [0r<> 1< 2r]\n\
         once@0Body e@0Rescue/2Body f@0Rescue/2Rescue g@0Always [0r<> 2r] on [0]\n\
         e@0Rescue/2Body f@0Rescue/2Rescue g@0Always last@ [0r< 2r]"
    );
    let indices: Vec<u32> = snapshot.segments[1].tasks.iter().map(|task| task.index).collect();
    assert_eq!(indices, [3, 4, 6, 7, 8]);
}

#[test]
fn tasks_have_the_options_of_their_blocks() {
    let spec = format!(
        "{ALL}{}",
        r#"  tasks:
    - when: facts.a
      user: web
      timeout: 5s
      environment: {A: "1", B: "1"}
      targets: {selector: role=db}
      block:
        - {name: a, command.run: {argv: [x]}, when: facts.c, user: own, environment: {B: "2"}}
        - {when: facts.b, sensitive: true, onInterrupt: Rerun, block: [{name: b, command.run: {argv: [x]}}]}
      always: [{name: c, command.run: {argv: [x]}}]
    - {name: d, command.run: {argv: [x]}}
"#
    );
    let snapshot = cluster(4).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    assert_eq!(blocks(&snapshot), "a@0Body b@0Body/1Body c@0Always [0 1] on [1, 3]\nd@ []");
    let [a, b, c] = &snapshot.segments[0].tasks[..] else { panic!("three tasks") };
    assert_eq!((a.block_when.join(" "), a.when.as_str(), a.user.as_str()), ("facts.a".into(), "facts.c", "own"));
    assert_eq!((a.environment["A"].as_str(), a.environment["B"].as_str(), a.timeout_ms), ("1", "2", 5000));
    assert_eq!((b.block_when.join(" "), b.user.as_str(), b.sensitive), ("facts.a facts.b".into(), "web", true));
    assert_eq!((b.on_interrupt(), a.on_interrupt()), (OnInterrupt::Rerun, OnInterrupt::Fail));
    assert_eq!((c.block_when.join(" "), c.sensitive), ("facts.a".into(), false));
}

#[test]
fn a_retry_asks_for_the_locks_the_key_and_the_approval_of_the_old_run() {
    let spec = "  targets: {all: true}\n  locks: [{name: shop, mode: Clean, poison: true}]\n  \
                approval: {twoPersons: true}\n  tasks: [{name: a, time.sleep: 1s}]";
    let keyed = |mut run: Run| {
        let concurrency = lockstep_apis::v1alpha::Concurrency { key: "deploy".into(), ..Default::default() };
        run.spec.as_mut().unwrap().concurrency = Some(concurrency);
        run
    };
    let cluster = cluster(2);
    let old = cluster.compile(&keyed(run("  taskBooks: [web]")), Some(&book(spec))).unwrap();
    let nodes = BTreeSet::from(["uid-n2".to_owned()]);
    let (shared, sealed) = (BTreeMap::new(), BTreeMap::new());
    let retry = Retry {
        snapshot: &old,
        nodes: &nodes,
        shared: &shared,
        all: &shared,
        sealed_shared: &sealed,
        owed: &BTreeMap::new(),
    };
    let new = cluster.admit(&keyed(run("  taskBooks: [web]")), None, Some(retry)).unwrap();
    assert_eq!((new.nodes.len(), &new.locks, &new.approval), (1, &old.locks, &old.approval));
    assert!(new.locks[0].poison && new.approval.is_some_and(|approval| approval.two_persons));
    assert_eq!((old.concurrency_key.as_str(), new.concurrency_key.as_str()), ("deploy", "deploy"));
}

#[test]
fn handlers_are_at_the_end_of_each_segment_that_may_notify_them() {
    let spec = format!(
        "{ALL}{}",
        r#"  tasks:
    - {name: a, command.run: {argv: [x]}, notify: [second, first one]}
    - {name: b, command.run: {argv: [x]}, sync: true}
    - notify: [first_one]
      sync: true
      block: [{name: c, command.run: {argv: [x]}}]
      rescue: [{name: d, command.run: {argv: [x]}, notify: [second]}]
  handlers:
    - {name: first one, command.run: {argv: [x]}}
    - {name: second, command.run: {argv: [x]}, when: results.a.changed}
"#
    );
    assert_eq!(
        of(&cluster(1), &spec),
        "all at once, StopNow after 0: 1[n1]\n  all: a+ first_one second\n  all: b\n  all: c d first_one second"
    );
    let snapshot = cluster(1).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    let tasks = &snapshot.segments[0].tasks;
    assert_eq!((tasks[0].notify.as_slice(), tasks[1].index, tasks[1].handler), (&[4, 5][..], 4, true));
}

#[test]
fn a_check_has_one_window_no_locks_and_goes_on_behind_failures() {
    let book = book(
        "  targets: {all: true}\n  runOptions: {serialize: 1}\n  locks: [shop]\n  tasks:\n  - {name: one, command.run: \
         {argv: [id]}}\n  - {name: two, runOnce: true, command.run: {argv: [id]}}\n",
    );
    let snapshot =
        cluster(3).down(2).compile(&run("  taskBooks: [web]\n  check: true\n  diff: true"), Some(&book)).unwrap();
    assert_eq!(transcript(&snapshot), "all at once, FinishWindow after 4294967295: 3[n1 n2 n3]\n  all: one\n  n1: two");
    assert!(snapshot.locks.is_empty() && snapshot.concurrent && snapshot.check && snapshot.diff);
    assert_eq!(snapshot.nodes[1].early(), EarlyEnd::UnreachableSkipped);
}

#[test]
fn variables_of_objects_are_kept_once_and_resolved_for_each_node() {
    use lockstep_apis::v1alpha::Variables;
    let variables = |yaml: &str| match decode(&format!("metadata: {{apiVersion: v1alpha, kind: Variables, {yaml}")).kind
    {
        Some(object::Kind::Variables(variables)) => variables,
        other => panic!("{other:?}"),
    };
    let all = variables("name: all}\nspec: {static: {port: 1, dir: /srv}}");
    let web = variables("name: web}\nspec: {targets: {selector: role=web}, static: {port: 2}}");
    let own: [&Variables; 2] = [&web, &all];
    let book = book(
        "  targets: {selector: rank!=1}\n  variables: {mode: book}\n  tasks: [{name: a, command.run: {argv: [id]}}]",
    );
    let cluster = cluster(4);
    let nodes: Vec<_> = cluster.nodes.iter().map(|(node, up)| AdmissionNode { node, up: *up }).collect();
    let run = run("  taskBooks: [web]\n  set: {port: 9}");
    let none = BTreeMap::new();
    let library = Library::default();
    let admission = |run, own| Admission {
        run,
        book: Some(&book),
        library: &library,
        nodes: &nodes,
        groups: &[],
        picks: &none,
        config: None,
        variables: VariableSources { own, ..VariableSources::default() },
        now_ms: 0,
        retry: None,
    };
    let plain = self::run("  taskBooks: [web]");
    let snapshot = compile(&admission(&plain, &own)).unwrap();
    let sources: Vec<_> = snapshot.layers.iter().map(|layer| (layer.source.as_str(), layer.nodes.as_slice())).collect();
    // Of the nodes n2, n3, n4 the second is a web node.
    assert_eq!(sources, [("Variables/all", &[][..]), ("Variables/web", &[1])]);
    let ports = |snapshot: &Snapshot| {
        let port = |node| variables::of_snapshot(snapshot, node)["port"].as_integer().unwrap();
        [0, 1, 2].map(port)
    };
    assert_eq!(ports(&snapshot), [1, 2, 1]);
    assert_eq!(variables::of_snapshot(&snapshot, 0)["mode"].as_text(), Some("book"));
    assert_eq!(ports(&compile(&admission(&run, &own)).unwrap()), [9, 9, 9]);

    // A retry of the last two nodes has the same values for them, whatever the objects say by now.
    let kept = BTreeSet::from(["uid-n3".to_owned(), "uid-n4".to_owned()]);
    let (shared, sealed_shared) = (BTreeMap::new(), BTreeMap::new());
    let all = BTreeMap::new();
    let owed = BTreeMap::new();
    let retry = Retry {
        snapshot: &snapshot,
        nodes: &kept,
        shared: &shared,
        sealed_shared: &sealed_shared,
        all: &all,
        owed: &owed,
    };
    let again = compile(&Admission { retry: Some(retry), ..admission(&plain, &[]) }).unwrap();
    let port = |node| variables::of_snapshot(&again, node)["port"].as_integer().unwrap();
    assert_eq!([0, 1].map(port), [2, 1]);

    let tie = variables("name: tie}\nspec: {targets: {where: 'node.name == \"n3\"'}, static: {port: 3}}");
    let refused = compile(&admission(&plain, &[&web, &tie])).unwrap_err();
    assert_eq!(refused.reason, "VariableTie", "{refused}");
}
