//! Claims about checks: each wrong book is refused with a field and a sentence.

use lockstep_apis::manifest;
use lockstep_apis::v1alpha::object::Kind;

use super::*;

mod ordering;

/// The violations of one manifest, as `Reason field: message`.
fn violations(yaml: &str) -> Vec<String> {
    let objects = manifest::decode("book.yaml", yaml.as_bytes(), Some("default"))
        .unwrap_or_else(|violations| panic!("{yaml}\n{violations:?}"));
    let found = match objects[0].kind.as_ref() {
        Some(Kind::TaskBook(own)) => book(own),
        Some(Kind::Run(own)) => run(own),
        _ => panic!("neither a book nor a Run"),
    };
    found.iter().map(|violation| format!("{} {}: {}", violation.reason, violation.field, violation.message)).collect()
}

fn of_book(spec: &str) -> Vec<String> {
    violations(&format!("metadata: {{apiVersion: v1alpha, kind: TaskBook, name: b}}\nspec:\n{spec}"))
}

#[test]
fn a_book_in_order_has_no_violation() {
    let spec = r#"
  inputs: {version: {type: string, pattern: '\d+\.\d+', default: "1.2"}}
  targets: {selector: role=web, where: facts.os.family == "debian"}
  variables: {port: 8080}
  locks: [shop]
  tasks:
    - {name: Make token, runOnce: true, command.run: {argv: [mk]}, register: {secret: true}}
    - {id: conf, file.managed: {path: /etc/x, template: "{{shared.make_token.stdout}} {{inputs.version}}\n", validate: {argv: [check, "${{ file }}"]}}}
    - {name: use, command.run: {shell: "reload ${{ results.conf.changed }}"}, when: results.conf.changed, success: result.exitCode < 2}
    - {assert.that: {conditions: [results.use.exitCode == 0, vars.port > 1]}}
"#;
    assert_eq!(of_book(spec), Vec::<String>::new());
}

#[test]
fn each_mistake_is_named_with_its_field_and_what_to_do() {
    let table = [
        (
            "  concurrency: {key: \"${{ vars.x }}\"}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Reference spec.concurrency.key: reads `vars.x`: only `inputs` are known before a run is created",
        ),
        (
            "  inputs: {region: {type: string}}\n  concurrency: {key: \"${{ inputs.regoin }}\"}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Reference spec.concurrency.key: the book has no input `regoin`: did you mean `region`?",
        ),
        (
            "  concurrency: {key: \"\"}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Format spec.concurrency.key: is empty",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, when: vras.x}]",
            "Expression spec.tasks[0].when: line 1, column 1: unknown name `vras`: did you mean `vars`?",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x, \"${{ 1 + }}\"]}}]",
            "Expression spec.tasks[0].command.run.argv[1]: line 1, column",
        ),
        (
            "  tasks: [{name: a, file.managed: {path: /x, template: \"a\\n{{vras.x}}\"}}]",
            "Expression spec.tasks[0].file.managed.template: line 2, column 1: unknown name `vras`",
        ),
        (
            "  tasks: [{name: a, assert.that: {conditions: ['true', '1 +']}}]",
            "Expression spec.tasks[0].assert.that.conditions[1]: line 1, column",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [\"${{ results.A.stdout }}\"]}}]",
            "Reference spec.tasks[1]: reads `results.A`, and no task has the id `A`: did you mean `results.a`?",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, when: results.b.changed}, {name: b, command.run: {argv: [x]}}]",
            "reads `results.b` of a later task: only results of earlier tasks are there",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, when: results.a.changed}]",
            "reads `results.a` of this task itself",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [x]}, when: shared.a.changed}]",
            "reads `shared.a`, and every node does the task `a`: give it `runOnce: true`",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [x]}, when: 'results[node.name].changed'}]",
            "reads `results` as a whole: name the task",
        ),
        (
            "  tasks: [{name: do it, command.run: {argv: [x]}}, {id: do_it, command.run: {argv: [x]}}]",
            "DuplicateId spec.tasks[1].id: has the id `do_it` of spec.tasks[0]",
        ),
        (
            "  runOptions: {serialize: 1}\n  tasks: [{name: a, serialize: 1, command.run: {argv: [x]}}]",
            "NestedGroup spec.tasks[0].serialize: is a rollout group within the book's own",
        ),
        (
            "  targets: {where: vars.x == 1}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Reference spec.targets.where: reads `vars.x`: only `node` and `facts` are known",
        ),
        (
            "  runOptions: {serialize: {count: 1, orderBy: vars.x}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Reference spec.runOptions.serialize.orderBy: reads `vars.x`: only `node` and `facts` are known",
        ),
        (
            "  tasks: [{name: a, serialize: {count: 1, orderBy: nod.labels.x}, command.run: {argv: [x]}}]",
            "Expression spec.tasks[0].serialize.orderBy: line 1, column 1: unknown name `nod`: did you mean `node`?",
        ),
        (
            "  runOptions: {serialize: {count: 1, gate: {check: [{id: a, command.run: {argv: [x]}}]}}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "NotReadOnly spec.runOptions.serialize.gate.check[0].command.run: `command.run` may change the node",
        ),
        (
            "  runOptions: {serialize: {count: 1, gate: {check: [{id: a, command.query: {argv: [x]}, when: 'true'}]}}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "NotInGate spec.runOptions.serialize.gate.check[0]: is a check of a gate: it has `id`",
        ),
        (
            "  runOptions: {serialize: {count: 1, gate: {check: [{command.query: {argv: [x]}}]}}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Required spec.runOptions.serialize.gate.check[0].id: is read by its `id`",
        ),
        (
            "  runOptions: {serialize: {count: 1, gate: {check: [{id: a, command.query: {argv: [x]}}, {id: a, command.query: {argv: [x]}}]}}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "DuplicateId spec.runOptions.serialize.gate.check[1].id: has the id `a` of another check",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, serialize: {count: 1, gate: {check: [{id: up, command.query: {argv: [x]}}], condition: checks.pu.exitCode == 0}}}]",
            "Reference spec.tasks[0].serialize.gate.condition: reads `checks.pu`, and no check before it has the id `pu`: did you mean `checks.up`?",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, serialize: {count: 1, gate: {check: [{id: b, command.query: {argv: [\"${{ checks.c.stdout }}\"]}}, {id: c, command.query: {argv: [x]}}]}}}]",
            "Reference spec.tasks[0].serialize.gate.check[0]: reads `checks.c`, and no check before it has the id `c`: no check is before it",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, serialize: {count: 1, gate: {check: [{id: b, command.query: {argv: [x, \"${{ 1 + }}\"]}}]}}}]",
            "Expression spec.tasks[0].serialize.gate.check[0].command.query.argv[1]: line 1, column",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, serialize: {count: 1, gate: {check: [{id: b, command.query: {argv: [x]}}], condition: results.c.changed}}}, {name: c, command.run: {argv: [x]}}]",
            "Reference spec.tasks[0].serialize.gate: reads `results.c` of a later task",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, serialize: {count: 1, gate: {check: [{id: b, command.query: {argv: [x]}}], condition: result.exitCode == 0}}}]",
            "Reference spec.tasks[0].serialize.gate: `result` is not known here",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, when: checks.b.changed}]",
            "Reference spec.tasks[0]: `checks` is not known here: only a health gate (`serialize.gate`) has checks",
        ),
        (
            "  runOptions: {serialize: {count: 1, gate: {check: [{id: c, command.query: {argv: [x, \"${{ results.t.stdout }}\"]}}]}}}\n  tasks: [{name: t, command.run: {argv: [mk]}, register: {secret: true}}]",
            "SecretExposed spec.runOptions.serialize.gate.check[0].command.query.argv: puts the secret `results.t.stdout`",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, throttle: 2}]",
            "Throttle spec.tasks[0].throttle: limits what is done at once on a delegate: give `delegateTo`",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, delegateTo: {where: vars.x}}]",
            "Reference spec.tasks[0].delegateTo.where: reads `vars.x`: only `node` and `facts` are known",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, delegateTo: {nodes: [\"${{ vars.lb }}\"]}}]",
            "Reference spec.tasks[0].delegateTo.nodes[0]: reads `vars.lb`: only `node` and `facts` are known",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [\"${{ delegate.name }}\"]}}]",
            "`delegate` is not known here: only a task with `delegateTo` is done by another node",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [\"${{ delegate.nmae }}\"]}, delegateTo: {nodes: [lb]}}]",
            "reads `delegate.nmae`, which is not there: did you mean `name`?",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [\"${{ all.aa['n1'].stdout }}\"]}}]",
            "reads `all.aa`, and no task has the id `aa`: did you mean `all.a`?",
        ),
        (
            "  tasks: [{name: t, command.run: {argv: [mk]}, register: {secret: true}}, {name: b, command.run: {argv: [x], stdin: \"${{ all.t['n1'].stdout }}\"}}]",
            "reads `all.t`, and the result of the task `t` is secret",
        ),
        (
            "  runOptions: {serialize: {count: 1, gate: {check: [{id: c, command.query: {argv: [x]}}], condition: size(all.a) > 0}}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Reference spec.runOptions.serialize.gate: reads `all`: a gate looks at its own node",
        ),
        (
            "  targets: {all: true, pick: {sticky: a}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Required spec.targets.limit: chooses so many as `limit` says",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, targets: {all: true, limit: 1, pick: {orderBy: vars.x}}}]",
            "Reference spec.tasks[0].targets.pick.orderBy: reads `vars.x`",
        ),
        (
            "  targets: {all: true, limit: 1, pick: {onMissing: Choose}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Required spec.targets.pick.sticky: says what becomes of a choice that is remembered",
        ),
        (
            "  runOptions: {serialize: 1}\n  tasks: [{name: a, serialize: 1, block: [{command.run: {argv: [x]}}]}]",
            "NestedGroup spec.tasks[0].serialize: is a rollout group within the book's own",
        ),
        (
            "  tasks: [{name: a, block: [{name: b, serialize: 1, block: [{command.run: {argv: [x]}}]}]}]",
            "NestedGroup spec.tasks[0].block[0].serialize: is a rollout group, which cannot begin within a block",
        ),
        (
            "  tasks: [{name: a, serialize: 1, block: [{serialize: 1, command.run: {argv: [x]}}]}]",
            "NestedGroup spec.tasks[0].block[0].serialize: is a rollout group, which cannot begin within a block",
        ),
        (
            "  tasks: [{serialize: {count: 1, orderBy: vars.x}, block: [{command.run: {argv: [x]}}]}]",
            "Reference spec.tasks[0].serialize.orderBy: reads `vars.x`",
        ),
        (
            "  tasks: [{serialize: {count: 1, gate: {check: [{id: c, command.query: {argv: [x]}}], condition: results.b.changed}}, block: [{command.run: {argv: [x]}}]}, {name: b, command.run: {argv: [x]}}]",
            "Reference spec.tasks[0].serialize.gate: reads `results.b` of a later task",
        ),
        (
            "  inputs: {version: {type: string}}\n  tasks: [{name: a, command.run: {argv: [\"${{ inputs.vresion }}\"]}}]",
            "reads `inputs.vresion`, which the book does not declare: did you mean `version`?",
        ),
        (
            "  inputs: {n: {type: integer, default: many}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Input spec.inputs.n.default: must be an integer, and is the text \"many\"",
        ),
        (
            "  inputs: {n: {type: string, pattern: 'a+', default: xax}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Input spec.inputs.n.default: the text \"xax\" does not match the pattern `a+`",
        ),
        (
            "  inputs: {n: {type: integer, pattern: 'a+'}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Input spec.inputs.n.pattern: only inputs of type string have a pattern",
        ),
        (
            "  inputs: {n: {type: string, enum: [a, 1]}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Input spec.inputs.n.enum[1]: must be a string, and is the integer 1",
        ),
        (
            "  inputs: {a-b: {type: string}}\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Input spec.inputs.a-b: `a-b` cannot be read as `inputs.a-b`",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [\"${{ node.nmae }}\"]}}]",
            "reads `node.nmae`, which is not there: did you mean `name`?",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, when: result.exitCode == 0}]",
            "Reference spec.tasks[0].when: `result` is not known here: only `success`, `changed` and `retries.until` judge a result",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, retries: {until: file == 'x'}}]",
            "Reference spec.tasks[0].retries.until: `file` is not known here: only `validate` checks a file",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [x]}, retries: {until: '1 +'}}]",
            "Expression spec.tasks[0].retries.until",
        ),
        (
            "  tasks: [{name: a, assert.that: ['true'], retries: 2}]",
            "Retries spec.tasks[0].retries: tries conditions again that nothing changes meanwhile",
        ),
        (
            "  tasks: [{name: a, command.run: {argv: [\"${{ file }}\"]}}]",
            "`file` is not known here: only `validate` checks a file",
        ),
        (
            "  locks: [a, b, a]\n  tasks: [{name: a, command.run: {argv: [x]}}]",
            "Duplicate spec.locks[2].name: asks for the lock `a` a second time",
        ),
        (
            "  tasks: [{name: t, runOnce: true, command.run: {argv: [mk]}, register: {secret: true}}, {name: b, command.run: {argv: [join, \"${{ shared.t.stdout }}\"]}}]",
            "SecretExposed spec.tasks[1].command.run.argv: puts the secret `shared.t.stdout` where every user",
        ),
        (
            "  tasks: [{name: t, command.run: {argv: [mk]}, register: {secret: true}}, {name: b, environment: {T: \"${{ results.t.stdout }}\"}, command.run: {argv: [join]}}]",
            "SecretExposed spec.tasks[1].environment: puts the secret `results.t.stdout` into the environment",
        ),
    ];
    for (spec, expected) in table {
        let found = of_book(spec);
        assert!(found.iter().any(|violation| violation.contains(expected)), "{spec}\n{found:#?}");
    }
}

#[test]
fn a_secret_may_be_where_the_task_says_so() {
    let spec = "  tasks: [{name: t, command.run: {argv: [mk]}, register: {secret: true}}, {name: b, environment: {T: \"${{ results.t.stdout }}\"}, command.run: {argv: [\"${{ results.t.stdout }}\"], secretArgv: true, secretEnvironment: true}}, {name: c, command.run: {argv: [x], stdin: \"${{ results.t.stdout }}\"}}]";
    assert_eq!(of_book(spec), Vec::<String>::new());
}

#[test]
fn all_mistakes_come_at_once() {
    let spec = "  targets: {where: vars.x}\n  inputs: {n: {type: integer, default: x}}\n  locks: [a, a]\n  tasks: [{name: a, command.run: {argv: [x]}, when: '1 +', success: vras.x}, {name: a, command.run: {argv: [x]}}]";
    let found = of_book(spec);
    let reasons: Vec<&str> = found.iter().filter_map(|violation| violation.split(' ').next()).collect();
    assert_eq!(reasons, ["Input", "Reference", "Duplicate", "Expression", "Expression", "DuplicateId"]);
}

#[test]
fn a_run_with_tasks_of_its_own_says_which_nodes() {
    let of_run =
        |spec: &str| violations(&format!("metadata: {{apiVersion: v1alpha, kind: Run, name: r}}\nspec:\n{spec}"));
    assert_eq!(of_run("  taskBooks: [web]"), Vec::<String>::new());
    let found = of_run("  tasks: [{command.run: {argv: [x]}}]\n  inputs: {a: 1}");
    assert!(found[0].starts_with("NoTargets spec.targets: selects nothing"), "{found:?}");
    assert!(found[1].starts_with("UnknownInput spec.inputs.a: only a book declares inputs"), "{found:?}");
}

#[test]
fn ids_come_from_names() {
    let table = [("Make token", "make_token"), ("a-b.c", "a_b_c"), ("1st", "_1st"), ("Über", "_ber"), ("", "")];
    for (name, id) in table {
        assert_eq!(default_id(name), id);
    }
}

#[test]
fn mistakes_in_blocks_are_named_where_they_are() {
    let table = [
        (
            "  tasks: [{block: [{name: a, command.run: {argv: [x]}, when: vras.x}]}]",
            "Expression spec.tasks[0].block[0].when: line 1, column 1: unknown name `vras`",
        ),
        (
            "  tasks: [{when: 1 +, block: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [x]}}]}]",
            "Expression spec.tasks[0].when: line 1",
        ),
        (
            "  tasks: [{when: results.a.changed, block: [{name: a, command.run: {argv: [x]}}]}]",
            "Reference spec.tasks[0].when: reads `results.a` of",
        ),
        (
            "  tasks: [{block: [{name: a, command.run: {argv: [x]}}], always: [{name: A, command.run: {argv: [x]}}]}]",
            "DuplicateId spec.tasks[0].always[0].name: has the id `a` of spec.tasks[0].block[0]",
        ),
        (
            "  tasks: [{block: [{name: a, command.run: {argv: [x]}}], rescue: [{name: b, reboot.now: {}}]}]",
            "SyncPoint spec.tasks[0].rescue[0].reboot.now: is a sync point",
        ),
        ("  tasks: [{name: a, reboot.now: {}, retries: {limit: 2}}]", "Reboot spec.tasks[0].retries: cannot be"),
        ("  tasks: [{name: a, reboot.now: {}, loop: [1, 2]}]", "Reboot spec.tasks[0].loop: cannot be"),
        ("  tasks: [{name: a, reboot.ifRequired: {}, changed: 'false'}]", "Reboot spec.tasks[0].changed: cannot be"),
        (
            "  tasks: [{name: a, reboot.ifRequired: {}, delegateTo: {nodes: [n]}}]",
            "Reboot spec.tasks[0].delegateTo: cannot be",
        ),
        (
            "  tasks: [{block: [{name: a, command.run: {argv: [x]}}], rescue: [{name: b, sync: true, command.run: {argv: [x]}}]}]",
            "SyncPoint spec.tasks[0].rescue[0].sync: is a sync point",
        ),
        (
            "  tasks: [{block: [{name: a, command.run: {argv: [x]}}], always: [{block: [{name: b, runOnce: true, command.run: {argv: [x]}}]}]}]",
            "SyncPoint spec.tasks[0].always[0].block[0].runOnce: is a sync point",
        ),
        (
            "  tasks: [{block: [{name: a, command.run: {argv: [x]}}], always: [{targets: {nodes: [n]}, block: [{name: b, command.run: {argv: [x]}}]}]}]",
            "SyncPoint spec.tasks[0].always[0].targets: is a sync point",
        ),
        (
            "  tasks: [{block: [{name: a, runOnce: true, command.run: {argv: [x]}}], rescue: [{name: b, when: shared.a.changed, command.run: {argv: [x]}}]}]",
            "Reference spec.tasks[0].rescue[0]: reads `shared.a.changed`, for which the nodes would wait",
        ),
        (
            "  tasks: [{block: [{name: a, serialize: 1, command.run: {argv: [x]}}]}]",
            "NestedGroup spec.tasks[0].block[0].serialize: is a rollout group, which cannot begin within a block",
        ),
        (
            "  tasks: [{block: [{name: a, command.run: {argv: ['${{ failure.task }}']}}], always: [{command.run: {argv: [x]}}]}]",
            "Reference spec.tasks[0].block[0]: reads `failure.task`, which is not known here",
        ),
        (
            "  tasks: [{block: [{name: a, command.run: {argv: [x]}}], rescue: [{name: b, command.run: {argv: ['${{ failure.tsak }}']}}]}]",
            "reads `failure.tsak`, which is not there: did you mean `task`?",
        ),
        (
            "  tasks: [{targets: {where: vars.x == 1}, block: [{name: a, command.run: {argv: [x]}}]}]",
            "Reference spec.tasks[0].targets.where: reads `vars.x`",
        ),
        (
            "  tasks: [{name: t, command.run: {argv: [mk]}, register: {secret: true}}, {environment: {T: \"${{ results.t.stdout }}\"}, block: [{name: b, command.run: {argv: [join]}}]}]",
            "SecretExposed spec.tasks[1].block[0].environment: puts the secret",
        ),
    ];
    for (spec, expected) in table {
        let found = of_book(spec);
        assert!(found.iter().any(|violation| violation.contains(expected)), "{spec}\n{found:#?}");
    }
}

#[test]
fn a_mistake_of_a_block_is_told_once_however_many_tasks_are_in_it() {
    let spec =
        "  tasks: [{when: vras.x, block: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [x]}}]}]";
    assert_eq!(of_book(spec).len(), 1);
    let spec = "  tasks: [{when: results.x.changed, block: [{name: a, command.run: {argv: [x]}}, {name: b, command.run: {argv: [x]}}]}]";
    assert_eq!(of_book(spec).len(), 1);
}

#[test]
fn blocks_in_order_have_no_violation() {
    let spec = r#"
  tasks:
    - {name: mk, runOnce: true, command.run: {argv: [mk]}}
    - when: vars.x
      block:
        - {name: a, sync: true, command.run: {argv: [x]}}
        - {name: b, runOnce: true, command.run: {argv: [x]}}
        - {name: c, command.run: {argv: ["${{ shared.b.stdout }}"]}}
      rescue:
        - when: failure.task == "a"
          block: [{name: d, command.run: {argv: ["${{ results.a.exitCode }}", "${{ shared.mk.stdout }}"]}}]
          always: [{name: e, command.run: {argv: ["${{ failure.message }}"]}}]
    - {name: f, command.run: {argv: ["${{ results.d.stdout }}"]}}
"#;
    assert_eq!(of_book(spec), Vec::<String>::new());
}

#[test]
fn blocks_do_not_go_down_for_ever() {
    let deep = |depth: usize| {
        let inner =
            (0..depth).fold("{command.run: {argv: [x]}}".to_owned(), |inner, _| format!("{{block: [{inner}]}}"));
        of_book(&format!("  tasks: [{inner}]"))
    };
    assert_eq!(deep(16), Vec::<String>::new());
    assert!(deep(17)[0].contains("TooDeep"), "{:?}", deep(17));
    let many = "{command.run: {argv: [x]}}, ".repeat(5_001);
    let found = of_book(&format!("  tasks: [{{block: [{many}]}}, {{block: [{many}]}}]"));
    assert!(found[0].starts_with("TooLarge spec.tasks: 10002 tasks"), "{found:?}");
}

#[test]
fn mistakes_in_loops_are_named() {
    let task = |rest: &str| {
        format!("  tasks: [{{name: t, command.run: {{argv: [mk]}}, register: {{secret: true}}}}, {{name: a, {rest}}}]")
    };
    let table = [
        (task("loop: 5, command.run: {argv: [x]}"), "TypeMismatch spec.tasks[1].loop: must be a list, a map"),
        (task("loop: [1, 2], loopLimit: 1, command.run: {argv: [x]}"), "LoopLimit spec.tasks[1].loop: 2 items"),
        (task("loop: ['${{ itme }}'], command.run: {argv: [x]}"), "Expression spec.tasks[1].loop[0]: line 1"),
        (task("loop: ['${{ item }}'], command.run: {argv: [x]}"), "Reference spec.tasks[1].loop: reads `item`"),
        (
            task("command.run: {argv: ['${{ index }}']}"),
            "Reference spec.tasks[1]: reads `index`, and only a task with `loop`",
        ),
        (
            task("loop: '${{ [results.t.stdout] }}', command.run: {argv: ['${{ item }}']}"),
            "SecretExposed spec.tasks[1].command.run.argv: puts the secret `results.t.stdout`",
        ),
    ];
    for (spec, expected) in table {
        let found = of_book(&spec);
        assert!(found.iter().any(|violation| violation.contains(expected)), "{spec}\n{found:#?}");
    }
}

#[test]
fn what_a_book_that_is_not_known_here_may_have_is_not_missed() {
    let spec = r#"  targets: {all: true}
  tasks:
    - {name: base, include: {taskBook: base, inputs: {x: 1}}}
    - {name: use, when: results.installed.changed, notify: [of base], command.run: {argv: [x, "${{ shared.token }}"]}}
    - {name: wrong, command.run: {argv: ["${{ results.later.stdout }}"]}}
    - {name: later, command.run: {argv: [x]}}
"#;
    let told = of_book(spec);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("reads `results.later` of a later task"), "{told:?}");
}

#[test]
fn a_handler_is_notified_by_tasks_of_one_machine() {
    let spec = |first: &str, second: &str| {
        let lb = "delegateTo: {nodes: [lb1]}, ";
        let task = |name: &str, by: &str| {
            let by = if by == "lb" { lb } else { "" };
            format!("    - {{name: {name}, notify: [h], {by}command.run: {{argv: [x]}}}}\n")
        };
        let tasks = task("a", first) + &task("b", second);
        of_book(&format!(
            "  targets: {{all: true}}\n  tasks:\n{tasks}  handlers: [{{name: h, command.run: {{argv: [x]}}}}]\n"
        ))
    };
    assert_eq!(spec("lb", "lb"), Vec::<String>::new());
    assert_eq!(spec("", ""), Vec::<String>::new());
    let told = spec("lb", "");
    assert!(told[0].starts_with("NoMatch spec.tasks[1].notify: notifies `h`, as spec.tasks[0] does"), "{told:?}");
}

#[test]
fn mistakes_about_handlers_are_named() {
    let of = |task: &str, handler: &str| {
        of_book(&format!(
            "  tasks: [{{name: a, {task}command.run: {{argv: [x]}}}}, {{name: s, runOnce: true, command.run: {{argv: [x]}}}}]\n  handlers: [{{{handler}command.run: {{argv: [x]}}}}]"
        ))
    };
    let table = [
        (
            of("notify: [restart], ", "name: restrat, "),
            "UnknownHandler spec.tasks[0].notify[0]: no handler is called `restart`: did you mean `restrat`?",
        ),
        (of("notify: [s], ", "name: h, "), "UnknownHandler spec.tasks[0].notify[0]: no handler is called `s`"),
        (of("", "name: h, sync: true, "), "SyncPoint spec.handlers[0].sync: is a sync point"),
        (of("", "name: h, when: shared.s.changed, "), "SyncPoint spec.handlers[0]: reads `shared` or `all`"),
        (of("", "name: h, notify: [h], "), "NoMatch spec.handlers[0].notify: handlers notify no handlers"),
        (of("", ""), "Required spec.handlers[0].name: is notified by its `name`"),
        (of("", "name: a, "), "DuplicateId spec.handlers[0].name: has the id `a` of spec.tasks[0]"),
        (of("when: results.h.changed, ", "name: h, "), "reads `results.h` of a later task"),
        (of("", "name: h, when: vras.x, "), "Expression spec.handlers[0].when: line 1, column 1: unknown name `vras`"),
    ];
    for (found, expected) in table {
        assert!(found.iter().any(|violation| violation.contains(expected)), "{expected}\n{found:#?}");
    }
    assert_eq!(of("notify: [Do it, do_it], ", "name: Do it, when: results.a.changed, "), Vec::<String>::new());
}
