//! Books with `ordering: Free`, done.

use lockstep_apis::v1alpha::{Ordering, RunOptions};

use super::*;

fn free(root: &Path, tasks: &str, check: bool) -> Seen {
    done(root, tasks, |run| {
        let options = RunOptions { ordering: Ordering::Free.into(), ..RunOptions::default() };
        run.book.spec.as_mut().unwrap().run_options = Some(options);
        run.check = check;
    })
}

#[test]
fn tasks_are_at_work_at_once_and_wait_for_what_they_require() {
    let root = tempfile::tempdir().unwrap();
    // Each of the two waits for what the other one makes: in order, neither would end.
    let tasks = r#"
    - name: last
      require: [left, right]
      command.run: {argv: [sh, -c, "test -e $LOCKSTEP_ROOT/l && test -e $LOCKSTEP_ROOT/r && echo both"]}
    - name: left
      timeout: 1m
      command.run: {argv: [sh, -c, "touch $LOCKSTEP_ROOT/l; until test -e $LOCKSTEP_ROOT/r; do :; done"]}
    - name: right
      timeout: 1m
      command.run: {argv: [sh, -c, "touch $LOCKSTEP_ROOT/r; until test -e $LOCKSTEP_ROOT/l; do :; done"]}
    - {name: reads, command.run: {argv: [echo, "${{ results.left.exitCode }}"]}}
"#;
    let seen = free(root.path(), tasks, false);
    assert_eq!(seen.outcomes, [Outcome::Changed; 4], "{:?}", seen.messages);
    let printed = seen.text(OutputStream::Stdout);
    assert!(printed.contains("both\n") && printed.contains("0\n"), "{printed}");
    assert!(seen.succeeded);
}

#[test]
fn after_a_failure_nothing_new_begins() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: never, require: [bad], command.run: {argv: [touch, /never]}}
    - {name: bad, command.run: {argv: ["false"]}}
    - {name: neither, require: [never], command.run: {argv: [touch, /never]}}
"#;
    let seen = free(root.path(), tasks, false);
    assert_eq!(seen.outcomes, [Outcome::Failed]);
    assert_eq!((seen.started, seen.not_reached, seen.succeeded), (1, 2, false));
}

#[test]
fn many_tasks_of_free_order_converge_and_a_check_foresees_them() {
    let root = tempfile::tempdir().unwrap();
    let mut tasks = String::from("    - {name: folder, file.directory: {path: /many}}\n");
    for number in 0..40 {
        tasks += &format!(
            "    - {{name: f{number}, require: [folder], file.managed: {{path: /many/{number}, content: x}}}}\n"
        );
    }
    let told = free(root.path(), &tasks, true);
    assert_eq!(told.outcomes, [Outcome::Changed; 41], "{:?}", told.messages);
    assert!(!root.path().join("many").exists());
    assert_eq!(free(root.path(), &tasks, false).outcomes, [Outcome::Changed; 41]);
    let again = free(root.path(), &tasks, false);
    assert_eq!(again.outcomes, [Outcome::Ok; 41], "{:?}", again.messages);
}
