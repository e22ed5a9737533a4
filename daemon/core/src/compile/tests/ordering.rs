//! Claims about `ordering: Free`: what waits for what in a snapshot.

use super::*;

/// By segment: each task with what it waits for.
fn after(spec: &str) -> Vec<String> {
    let spec = format!("{ALL}  runOptions: {{ordering: Free}}\n{spec}");
    let snapshot = cluster(2).compile(&run("  taskBooks: [web]"), Some(&book(&spec))).unwrap();
    let told = |segment: &Segment| {
        let id = |index: &u32| segment.tasks.iter().find(|task| task.index == *index).map_or("?", |task| &task.id);
        let one = |task: &CompiledTask| {
            let after: Vec<&str> = task.after.iter().map(id).collect();
            format!("{}@{}({})", task.id, task.together, after.join(" "))
        };
        segment.tasks.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    snapshot.segments.iter().map(told).collect()
}

#[test]
fn tasks_wait_for_what_they_require_and_read_and_for_nothing_else() {
    let spec = r#"  tasks:
    - {name: a, require: [d], command.run: {argv: [x]}}
    - {name: b, requireIn: [c], command.run: {argv: [x]}}
    - {name: c, command.run: {argv: [x]}}
    - {name: d, command.run: {argv: [x]}, notify: [h]}
    - {name: e, command.run: {argv: ["${{ results.b.stdout }}"]}}
    - {name: set, variable.set: {values: {port: 1}}}
    - {name: f, command.run: {argv: ["${{ vars.port }}"]}}
    - {name: g, command.run: {argv: ["${{ vars.other }}"]}}
  handlers: [{name: h, command.run: {argv: [x]}}]
"#;
    assert_eq!(after(spec), ["a@1(d) b@1() c@1(b) d@1() e@1(b) set@1() f@1(set) g@1() h@0()"]);
}

#[test]
fn what_is_in_an_earlier_segment_has_ended() {
    let spec = r#"  tasks:
    - {name: a, command.run: {argv: [x]}}
    - {name: b, sync: true, require: [a], command.run: {argv: [x]}}
    - {name: c, require: [b, a], command.run: {argv: [x]}}
    - {name: d, runOnce: true, require: [c], command.run: {argv: [x]}}
"#;
    assert_eq!(after(spec), ["a@1()", "b@2() c@2(b)", "d@3()"]);
}
