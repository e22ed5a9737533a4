//! Claims about tags: what a Run leaves out, and that nothing else moves.

use super::*;

fn tagged(spec: &str, of_run: &str) -> Result<Snapshot, Rejection> {
    let run = run(&format!("  taskBooks: [web]\n  {of_run}"));
    cluster(3).compile(&run, Some(&book(&format!("{ALL}{spec}"))))
}

fn left_out(snapshot: &Snapshot) -> Vec<(u32, &str, &str)> {
    let tasks = snapshot.segments.iter().flat_map(|segment| &segment.tasks);
    tasks.map(|task| (task.index, task.id.as_str(), task.left_out.as_str())).collect()
}

const BOOK: &str = r#"  tasks:
    - {name: a, tags: [web, db], command.run: {argv: [x]}}
    - {name: b, tags: web, command.run: {argv: [x]}}
    - {name: c, tags: always, command.run: {argv: [x]}}
    - {name: d, command.run: {argv: [x]}}
"#;

#[test]
fn what_tags_leave_out_keeps_its_place_and_says_why() {
    let told = |of_run| tagged(BOOK, of_run).unwrap();
    let by_db = told("tags: [db]");
    let out = "left out by `tags: db`";
    assert_eq!(left_out(&by_db), [(0, "a", ""), (1, "b", out), (2, "c", ""), (3, "d", out)]);
    let by_skip = told("skipTags: [db, always]");
    let out = ["left out by `skipTags: db`", "left out by `skipTags: always`"];
    assert_eq!(left_out(&by_skip), [(0, "a", out[0]), (1, "b", ""), (2, "c", out[1]), (3, "d", "")]);
    let by_both = told("tags: [web]\n  skipTags: [db]");
    let web = "left out by `tags: web`";
    assert_eq!(left_out(&by_both), [(0, "a", out[0]), (1, "b", ""), (2, "c", ""), (3, "d", web)]);
}

#[test]
fn what_is_left_out_is_no_sync_point_and_needs_no_node() {
    let spec = r#"  tasks:
    - {name: a, tags: web, command.run: {argv: [x]}}
    - {name: drain, tags: lb, delegateTo: {nodes: [gone]}, command.run: {argv: [x]}}
    - {name: once, tags: lb, runOnce: true, command.run: {argv: [x]}}
    - {name: some, tags: lb, targets: {selector: role=nobody}, command.run: {argv: [x]}}
    - {name: b, tags: web, command.run: {argv: ["${{ shared.once.skipped }}"]}}
"#;
    assert_eq!(
        transcript(&tagged(spec, "skipTags: [lb]").unwrap()).lines().nth(1),
        Some("  all: a drain- once+!- some- b reads once")
    );
    assert_eq!(tagged(spec, "tags: [lb]").unwrap_err().reason, "UnknownNode");
}

#[test]
fn rescue_and_always_go_with_what_is_done_in_their_block() {
    let spec = r#"  tasks:
    - name: first
      tags: one
      block: [{name: a, command.run: {argv: [x]}}]
      rescue: [{name: b, command.run: {argv: [x]}}]
    - name: second
      block: [{name: c, tags: two, command.run: {argv: [x]}}, {name: d, command.run: {argv: [x]}}]
      rescue: [{name: e, tags: mend, command.run: {argv: [x]}}]
      always: [{name: f, command.run: {argv: [x]}}]
"#;
    let ids = |of_run| {
        let snapshot = tagged(spec, of_run).unwrap();
        let done: Vec<String> =
            left_out(&snapshot).iter().filter(|own| own.2.is_empty()).map(|own| own.1.to_owned()).collect();
        let rescues: Vec<bool> = snapshot.segments[0].blocks.iter().map(|block| block.rescues).collect();
        (done.join(" "), rescues)
    };
    assert_eq!(ids("tags: [one]"), ("a b".to_owned(), vec![true, false]));
    assert_eq!(ids("tags: [two]"), ("c e f".to_owned(), vec![false, true]));
    // What rescues nothing is no rescue.
    assert_eq!(ids("skipTags: [mend]"), ("a b c d f".to_owned(), vec![true, false]));
}

#[test]
fn tags_in_a_block_of_some_nodes_leave_it_in_one_piece() {
    let spec = r#"  tasks:
    - name: block
      targets: {nodes: [n1]}
      block:
        - {name: a, command.run: {argv: [x]}}
        - {name: b, tags: slow, runOnce: true, command.run: {argv: [x]}}
        - {name: c, command.run: {argv: [x]}}
"#;
    let told = transcript(&tagged(spec, "skipTags: [slow]").unwrap());
    assert_eq!(told.lines().skip(1).collect::<Vec<_>>(), ["  n1: a b- c"]);
}

#[test]
fn tags_that_are_nowhere_are_all_named_with_the_nearest() {
    let rejection = tagged(BOOK, "tags: [wbe]\n  skipTags: [dbb, other]").unwrap_err();
    let told: Vec<String> = rejection.violations.iter().map(|own| format!("{}: {}", own.field, own.message)).collect();
    assert_eq!(
        told,
        [
            "spec.tags[0]: no task has the tag `wbe`: did you mean `web`?",
            "spec.skipTags[0]: no task has the tag `dbb`: did you mean `db`?",
            "spec.skipTags[1]: no task has the tag `other`: there are always, db, web",
        ]
    );
    assert_eq!(rejection.reason, "UnknownTag");
    assert_eq!(tagged(BOOK, "tags: [db]\n  skipTags: [db, always]").unwrap_err().reason, "NothingToDo");
}
