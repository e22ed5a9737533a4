//! Claims about `include`.

use super::*;

fn named(name: &str, spec: &str) -> TaskBook {
    let mut of = book(&format!("{ALL}{spec}"));
    of.metadata.as_mut().unwrap().name = name.to_owned();
    of
}

fn among(books: &[TaskBook]) -> Cluster {
    Cluster { books: books.to_vec(), ..cluster(2) }
}

/// Compiles the first of them.
fn compiled(books: &[TaskBook], of_run: &str) -> Result<Snapshot, Rejection> {
    among(books).compile(&run(&format!("  taskBooks: [web]\n{of_run}")), Some(&books[0]))
}

/// Each violation with the book that it is in.
fn told(rejection: &Rejection) -> Vec<String> {
    let told = |own: &Violation| format!("{}|{}|{}: {}", own.file, own.reason, own.field, own.message);
    rejection.violations.iter().map(told).collect()
}

const BASE: &str = r#"  inputs: {version: {type: string, required: true}, port: {type: integer, default: 80}}
  variables: {level: base, only: base}
  tasks:
    - {name: install, command.run: {argv: [install, "${{ inputs.version }}"]}, notify: [reload]}
    - {name: once, runOnce: true, command.run: {argv: [id]}}
  handlers: [{name: reload, command.run: {argv: [reload, "${{ inputs.port }}"]}}]
"#;

#[test]
fn an_include_places_tasks_handlers_and_variables_with_inputs_of_its_own() {
    let web = r#"  inputs: {version: {type: string}, wanted: {type: boolean, default: true}}
  variables: {level: web}
  tasks:
    - {name: first, command.run: {argv: [id]}}
    - {name: base, when: inputs.wanted, tags: base, include: {taskBook: base, inputs: {version: "v${{ inputs.version }}"}}}
    - {name: last, command.run: {argv: ["${{ shared.once.stdout }}"]}}
"#;
    let snapshot = compiled(&[named("web", web), named("base", BASE)], "  inputs: {version: \"7\"}").unwrap();
    assert_eq!(
        transcript(&snapshot).lines().skip(1).collect::<Vec<_>>(),
        ["  all: first install reload", "  n1: once+!", "  all: last reads once"]
    );
    let task =
        |id: &str| snapshot.segments.iter().flat_map(|segment| &segment.tasks).find(|task| task.id == id).unwrap();
    let install = task("install");
    assert_eq!(
        (install.scope, &install.block_when[..], &install.block_scopes[..]),
        (1, &["inputs.wanted".to_owned()][..], &[0][..])
    );
    assert_eq!((task("reload").scope, task("last").scope), (1, 0));
    let inputs = &snapshot.scopes[0].inputs;
    assert_eq!((inputs["version"].as_text(), inputs["port"].as_integer()), (Some("v7"), Some(80)));
    let of = |name: &str| snapshot.variables[name].as_text();
    assert_eq!((of("level"), of("only")), (Some("web"), Some("base")));
}

#[test]
fn a_cycle_of_includes_is_refused_with_the_whole_chain() {
    let books = [
        named("web", "  tasks: [{name: a, include: base}]\n"),
        named("base", "  tasks: [{name: b, block: [{name: c, include: deep}]}]\n"),
        named("deep", "  tasks: [{name: d, include: base}, {name: e, include: web}]\n"),
    ];
    assert_eq!(
        told(&compiled(&books, "").unwrap_err()),
        [
            "TaskBook/deep|Cycle|spec.tasks[0].include: a book cannot include itself: `base` includes `deep` includes `base`",
            "TaskBook/deep|Cycle|spec.tasks[1].include: a book cannot include itself: `web` includes `base` includes `deep` \
             includes `web`",
        ]
    );
}

#[test]
fn what_is_wrong_with_an_include_is_told_at_once_and_where_it_is_written() {
    let web = r#"  inputs: {version: {type: string, default: x}}
  tasks:
    - {name: a, include: bsae}
    - {name: b, include: {taskBook: base, inputs: {prot: 1, port: many}}}
    - {name: c, user: "${{ inputs.version }}", include: {taskBook: other, inputs: {x: "${{ facts.y }}"}}}
    - {name: install, command.run: {argv: [id]}}
"#;
    let other = "  tasks: [{name: z, command.run: {argv: [\"${{ inputs.version }}\"]}}]\n";
    let books = [named("web", web), named("base", BASE), named("other", other)];
    let told = told(&compiled(&books, "").unwrap_err());
    let expected = [
        "|NotFoundReference|spec.tasks[0].include: there is no TaskBook `bsae` to include: did you mean `base`?",
        "|UnknownInput|spec.tasks[1].include.inputs.prot: the book `base` has no input `prot`: did you mean `port`?",
        "|Input|spec.tasks[1].include.inputs.port: must be an integer",
        "|Required|spec.tasks[1].include.inputs.version: the book `base` requires it: give it a value here",
        "|Reference|spec.tasks[2].user: reads `inputs`, which are others in the book `other`",
        "|Reference|spec.tasks[2].include.inputs.x: reads `facts.y`: only `inputs` are known",
        "TaskBook/other|Reference|spec.tasks[0]: reads `inputs.version`, which the book does not declare",
        "|DuplicateId|spec.tasks[3].name: has the id `install` of TaskBook/base spec.tasks[0]",
    ];
    for wrong in expected {
        assert!(told.iter().any(|own| own.starts_with(wrong)), "{wrong} is missing: {told:#?}");
    }
}

#[test]
fn an_input_that_is_wrong_only_when_it_has_a_value_refuses_the_run() {
    let web = r#"  inputs: {port: {type: string}}
  tasks: [{name: b, include: {taskBook: base, inputs: {version: "1", port: "${{ inputs.port }}"}}}]
"#;
    let rejection = compiled(&[named("web", web), named("base", BASE)], "  inputs: {port: many}").unwrap_err();
    assert_eq!(rejection.reason, "InvalidInputs");
    assert!(
        told(&rejection)[0].starts_with("|Input|spec.tasks[0].include.inputs.port: must be an integer"),
        "{rejection:?}"
    );
}

#[test]
fn includes_that_grow_without_end_are_refused_before_they_cost_anything() {
    let many = |next: &str| {
        let tasks: Vec<String> = (0..100).map(|_| format!("{{include: {next}}}")).collect();
        format!("  tasks: [{}]\n", tasks.join(", "))
    };
    let mut books = vec![named("web", &many("b1"))];
    for level in 1..15 {
        books.push(named(&format!("b{level}"), &many(&format!("b{}", level + 1))));
    }
    books.push(named("b15", "  tasks: [{command.run: {argv: [id]}}]\n"));
    let rejection = compiled(&books, "").unwrap_err();
    assert!(told(&rejection).iter().any(|own| own.contains("|TooLarge|")), "{rejection}");
}
