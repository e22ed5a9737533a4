//! Books that include others, done.

use super::*;

fn named(name: &str, spec: &str) -> TaskBook {
    let text =
        format!("metadata: {{apiVersion: v1alpha, kind: TaskBook, name: {name}, namespace: default}}\nspec:\n{spec}");
    match manifest::decode("book.yaml", text.as_bytes(), None).unwrap().remove(0).kind {
        Some(Kind::TaskBook(book)) => book,
        other => panic!("no book: {other:?}"),
    }
}

#[test]
fn included_tasks_read_the_inputs_that_they_are_given() {
    let root = tempfile::tempdir().unwrap();
    let web = named(
        "web",
        r#"  targets: {all: true}
  inputs: {file: {type: string, default: outer}}
  tasks:
    - {name: before, file.managed: {path: "/${{ inputs.file }}", content: "${{ inputs.file }}"}}
    - name: base
      when: inputs.file == "outer"
      include: {taskBook: base, inputs: {file: "in-${{ inputs.file }}"}}
    - {name: not, when: inputs.file == "inner", include: {taskBook: other, inputs: {file: x}}}
    - {name: after, assert.that: ['inputs.file == "outer"', results.deep.changed]}
"#,
    );
    let base = named(
        "base",
        r#"  targets: {all: true}
  inputs: {file: {type: string, required: true}}
  tasks:
    - {name: own, file.managed: {path: "/${{ inputs.file }}", template: "{{inputs.file}}"}, notify: [told]}
    - {name: nested, include: {taskBook: deep, inputs: {file: "${{ inputs.file }}/deep"}}}
  handlers: [{name: told, file.managed: {path: "/told-${{ inputs.file }}", content: ""}}]
"#,
    );
    let deep = r#"  targets: {all: true}
  inputs: {file: {type: string, required: true}}
  tasks:
    - name: guarded
      block: [{name: deep, loop: [1, 2], file.managed: {path: "/d${{ item }}", content: "${{ inputs.file }}"}}]
      always: [{name: end, assert.that: ['inputs.file.endsWith("deep")']}]
"#;
    let other = named("other", &deep.replace("deep", "odd").replace("name: end", "name: odd end"));
    let library = vec![base, named("deep", deep), other];
    let seen =
        done(root.path(), "    - {name: other, time.sleep: 1ms}\n", |run| (run.book, run.library) = (web, library));
    use Outcome::{Changed as C, Ok as O, Skipped as S};
    assert_eq!(seen.outcomes, [C, C, C, O, S, S, O, C], "{:?}", seen.messages);
    let text = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
    assert_eq!(
        (text("outer"), text("in-outer"), text("d2")),
        ("outer".into(), "in-outer".into(), "in-outer/deep".into())
    );
    assert!(root.path().join("told-in-outer").exists());
}
