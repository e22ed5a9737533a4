//! Claims about `require` and `requireIn`.

use super::*;

fn free(tasks: &str) -> Vec<String> {
    of_book(&format!("  targets: {{all: true}}\n  runOptions: {{ordering: Free}}\n  tasks:\n{tasks}"))
}

fn in_order(tasks: &str) -> Vec<String> {
    of_book(&format!("  targets: {{all: true}}\n  tasks:\n{tasks}"))
}

#[test]
fn requires_that_can_be_have_no_violation() {
    let tasks = r#"
    - {name: Last one, require: [b, a], command.run: {argv: [x]}}
    - {name: a, command.run: {argv: [x]}}
    - {name: b, requireIn: Last one, require: a, command.run: {argv: ["${{ results.a.stdout }}"]}}
"#;
    assert_eq!(free(tasks), Vec::<String>::new());
    let earlier = "    - {name: a, command.run: {argv: [x]}}\n    - {name: b, require: a, command.run: {argv: [x]}}\n";
    assert_eq!(in_order(earlier), Vec::<String>::new());
}

#[test]
fn every_cycle_and_every_unknown_name_is_told_at_once() {
    let tasks = r#"
    - {name: a, require: [c], command.run: {argv: [x]}}
    - {name: b, require: [a], command.run: {argv: [x]}}
    - {name: c, require: [b, instal], command.run: {argv: [x]}}
    - {name: install, command.run: {argv: [x]}}
    - {name: d, requireIn: [nobody], command.run: {argv: [x]}}
    - {name: e, require: [f], command.run: {argv: [x]}}
    - {name: f, command.run: {argv: [x]}, when: results.e.changed}
    - {name: g, require: [g], command.run: {argv: [x]}}
"#;
    assert_eq!(
        free(tasks),
        [
            "UnknownTask spec.tasks[2].require[1]: no task is called `instal`: did you mean `install`?",
            "UnknownTask spec.tasks[4].requireIn[0]: no task is called `nobody`: give the task that is meant this `id`",
            "Cycle spec.tasks[0]: waits for itself: `a` requires `c` requires `b` requires `a`",
            "Cycle spec.tasks[5]: waits for itself: `e` requires `f` requires `e`",
            "Cycle spec.tasks[7]: waits for itself: `g` requires `g`",
        ]
    );
}

#[test]
fn what_cannot_be_required_is_refused_with_what_to_do() {
    let later = "    - {name: a, require: b, command.run: {argv: [x]}}\n    - {name: b, command.run: {argv: [x]}}\n";
    let told = in_order(later);
    assert!(told[0].starts_with("Require spec.tasks[0].require[0]: tasks are done as they are written"), "{told:?}");
    let behind = r#"
    - {name: a, require: b, command.run: {argv: [x]}}
    - {name: b, sync: true, command.run: {argv: [x]}}
"#;
    let told = free(behind);
    assert_eq!(
        told,
        [
            "Require spec.tasks[0].require[0]: `b` is behind a sync point, for which this task would wait: move one of them"
        ]
    );
    let block = "    - {name: a, block: [{name: b, command.run: {argv: [x]}}], always: [{name: c, command.run: {argv: [x]}}]}\n";
    assert!(free(block)[0].starts_with("NotYet spec.tasks[0].block: is not there yet under `ordering: Free`"));
    assert_eq!(in_order(block), Vec::<String>::new());
    let of_block = "    - {name: z, command.run: {argv: [x]}}\n    - {name: a, require: z, block: [{name: b, command.run: {argv: [x]}}]}\n";
    assert_eq!(
        in_order(of_block),
        ["NotYet spec.tasks[1].require: of a block is not there yet: give it to the tasks in it"]
    );
    let handler =
        "    - {name: a, command.run: {argv: [x]}}\n  handlers: [{name: h, require: [a], command.run: {argv: [x]}}]\n";
    assert!(free(handler)[0].starts_with("NoMatch spec.handlers[0].require[0]: handlers are done in the order"));
}
