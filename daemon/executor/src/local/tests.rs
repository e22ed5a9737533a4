//! Books as users write them, done in a folder that stands for the machine.

use std::{fs, path::Path};

use lockstep_apis::{
    manifest,
    v1alpha::{OutputStream, object::Kind},
};

use super::*;

mod include;
mod together;

fn book(tasks: &str) -> TaskBook {
    let text = format!(
        "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: b, namespace: default}}\n\
         spec:\n  targets: {{all: true}}\n  variables: {{port: 8080}}\n  tasks:\n{tasks}"
    );
    let objects = manifest::decode("book.yaml", text.as_bytes(), None).unwrap();
    match objects.into_iter().next().unwrap().kind {
        Some(Kind::TaskBook(book)) => book,
        other => panic!("no book: {other:?}"),
    }
}

struct Seen {
    outcomes: Vec<Outcome>,
    messages: Vec<String>,
    output: Vec<(OutputStream, String)>,
    started: usize,
    not_reached: usize,
    succeeded: bool,
}

impl Seen {
    fn text(&self, stream: OutputStream) -> String {
        self.output.iter().filter(|(of, _)| *of == stream).map(|(_, text)| text.as_str()).collect()
    }
}

fn done(root: &Path, tasks: &str, change: impl FnOnce(&mut LocalRun)) -> Seen {
    let mut local = LocalRun { book: book(tasks), root: Some(root.to_owned()), ..LocalRun::default() };
    change(&mut local);
    let mut seen = Seen {
        outcomes: Vec::new(),
        messages: Vec::new(),
        output: Vec::new(),
        started: 0,
        not_reached: 0,
        succeeded: false,
    };
    let outcome = run(&local, &Cancel::new().unwrap(), &mut |event| match event {
        LocalEvent::Started(_) => seen.started += 1,
        LocalEvent::Output(_, chunk) => {
            seen.output.push((chunk.stream(), String::from_utf8_lossy(&chunk.data).into_owned()));
        }
        LocalEvent::Ended(_, report) => {
            seen.outcomes.push(report.outcome());
            seen.messages.push(report.message.clone());
        }
    })
    .unwrap();
    assert_eq!(outcome.tasks.len(), seen.outcomes.len());
    (seen.not_reached, seen.succeeded) = (outcome.not_reached, outcome.succeeded);
    seen
}

const WEB: &str = r#"
    - {name: folder, file.directory: {path: /etc}}
    - name: configure
      file.managed: {path: /etc/web.conf, mode: "0640", template: "port {{vars.port}} on {{facts.hostname}}\n"}
    - name: reload
      when: results.configure.changed
      command.run: {argv: [echo, reloaded]}
"#;

#[test]
fn book_converges_and_then_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    use Outcome::{Changed, Ok, Skipped};
    let first = done(root.path(), WEB, |_| {});
    assert_eq!(first.outcomes, [Changed, Changed, Changed], "{:?}", first.messages);
    assert_eq!(first.text(OutputStream::Stdout), "reloaded\n");
    assert!(fs::read_to_string(root.path().join("etc/web.conf")).unwrap().starts_with("port 8080 on "));
    let second = done(root.path(), WEB, |_| {});
    assert_eq!(second.outcomes, [Ok, Ok, Skipped], "{:?}", second.messages);
    assert_eq!(second.started, 2);
}

#[test]
fn what_tags_leave_out_is_skipped_and_not_looked_at() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: a, tags: files, file.directory: {path: /a}}
    - {name: b, when: facts.no.such.fact, command.run: {argv: ["false"]}}
    - {name: c, tags: files, file.managed: {path: "/a/${{ results.b.skipped }}", content: x}}
"#;
    let seen = done(root.path(), tasks, |run| run.tags = vec!["files".into()]);
    assert_eq!(seen.outcomes, [Outcome::Changed, Outcome::Skipped, Outcome::Changed], "{:?}", seen.messages);
    assert_eq!(seen.messages[1], "left out by `tags: files`");
    assert_eq!((seen.started, seen.succeeded), (2, true));
    assert!(root.path().join("a/true").exists());
}

#[test]
fn set_wins_over_the_books_variables() {
    let root = tempfile::tempdir().unwrap();
    let seen = done(root.path(), WEB, |run| _ = run.set.insert("port".into(), Value::from(9)));
    assert_eq!(seen.outcomes, [Outcome::Changed; 3], "{:?}", seen.messages);
    assert!(fs::read_to_string(root.path().join("etc/web.conf")).unwrap().starts_with("port 9 on "));
}

#[test]
fn check_changes_nothing_and_says_what_would() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - name: configure
      file.managed: {path: /web.conf, content: "one\n"}
    - name: make
      command.run: {argv: [touch, "${{ vars.port }}"]}
    - name: guarded
      command.run: {argv: [touch, /x], creates: /web.conf}
    - name: after
      when: results.make.exitCode == 0
      command.query: {argv: ["true"]}
    - name: follows
      when: results.configure.changed
      file.absent: {path: /gone}
"#;
    let seen = done(root.path(), tasks, |run| (run.check, run.diff) = (true, true));
    use Outcome::{Changed, Ok, Unpredicted};
    assert_eq!(seen.outcomes[0], Changed, "{:?}", seen.messages);
    assert_eq!(seen.outcomes[1], Unpredicted, "{:?}", seen.messages);
    assert_eq!(seen.outcomes[3], Unpredicted, "{:?}", seen.messages);
    assert_eq!(seen.outcomes[4], Ok, "{:?}", seen.messages);
    assert!(seen.text(OutputStream::Diff).contains("+one"), "{:?}", seen.output);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_task_is_tried_until_its_condition_is_true() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - name: grow
      command.run: {shell: 'echo x >> "$LOCKSTEP_ROOT/grown"; wc -l < "$LOCKSTEP_ROOT/grown"'}
      retries: {limit: 5, interval: 0s, until: "int(result.stdout) == 3"}
      changed: "false"
    - {name: judged, assert.that: ["results.grow.attempts == 3", "!results.grow.changed"]}
    - name: in vain
      command.run: {shell: 'echo y >> "$LOCKSTEP_ROOT/vain"; exit 7'}
      retries: {limit: 2, interval: 0s}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Outcome::Ok, Outcome::Ok, Outcome::Failed], "{:?}", seen.messages);
    assert!(seen.messages[2].starts_with("tried 3 times: exit 7"), "{:?}", seen.messages);
    assert_eq!(fs::read_to_string(root.path().join("vain")).unwrap(), "y\n".repeat(3));
    assert_eq!(seen.started, 3, "a task begins once, however often it is tried");
}

#[test]
fn what_never_comes_true_fails_though_the_action_succeeds() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - name: hope
      command.query: {argv: [echo, no]}
      retries: {limit: 1, interval: 0s, until: result.stdout == "yes"}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Outcome::Failed]);
    assert!(seen.messages[0].contains("tried 2 times, and never came true: result.stdout"), "{:?}", seen.messages);
    let checked = done(root.path(), tasks, |run| run.check = true);
    assert_eq!(checked.outcomes, [Outcome::Unpredicted], "{:?}", checked.messages);
}

#[test]
fn what_an_early_try_changed_stays_changed() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - name: place
      file.managed: {path: /placed, content: "x"}
      retries: {limit: 3, interval: 0s, until: "!result.changed"}
"#;
    let seen = done(root.path(), tasks, |_| {});
    // The second try finds nothing to do, and the machine is another one all the same.
    assert_eq!(seen.outcomes, [Outcome::Changed], "{:?}", seen.messages);
}

#[test]
fn an_ignored_failure_is_told_and_the_book_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: wrong, command.run: {argv: ["false"]}, ignoreErrors: true}
    - name: cope
      when: results.wrong.failed
      file.managed: {path: /coped, content: ""}
    - {name: mistaken, when: vars.prot == 1, ignoreErrors: true, time.sleep: 1s}
    - {name: never, time.sleep: 1h}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Outcome::Failed, Outcome::Changed, Outcome::Failed], "{:?}", seen.messages);
    assert!(root.path().join("coped").exists());
    assert_eq!(seen.not_reached, 1, "a condition that cannot be evaluated is no error to ignore");
}

/// Every path with its inode, times, mode and content.
fn tree(folder: &Path) -> Vec<(std::path::PathBuf, u64, i64, i64, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt;
    let seen = fs::symlink_metadata(folder).unwrap();
    let content = if seen.is_file() { fs::read(folder).unwrap() } else { Vec::new() };
    let mut found = vec![(folder.to_owned(), seen.ino(), seen.ctime(), seen.ctime_nsec(), content)];
    if seen.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| found.extend(tree(entry)));
    }
    found
}

#[test]
fn a_check_leaves_no_trace_and_says_what_the_run_then_does_or_that_nobody_can_tell() {
    let books = [
        WEB,
        "
    - {name: a, file.managed: {path: /a, content: x}}
    - {name: same, file.managed: {path: /a, content: x}}
    - {name: made, command.run: {argv: [touch, /nowhere/b], creates: /a}}
    - {name: gone, file.absent: {path: /there}}
    - {name: removes, command.run: {argv: [\"true\"], removes: /there}}
    - {name: linked, file.symlink: {path: /l, target: a}}
    - {name: twice, file.absent: {path: /l}}
",
        r#"
    - {name: writes, command.run: {shell: 'echo 1 > "$LOCKSTEP_ROOT/made"'}}
    - {name: reads, command.query: {shell: 'cat "$LOCKSTEP_ROOT/made"'}}
    - {name: uses, file.managed: {path: /copy, content: "${{ results.reads.stdout }}"}}
    - {name: chooses, when: results.reads.stdout == "1", file.managed: {path: /one, content: ""}}
"#,
        r#"
    - {name: guarded, command.run: {argv: ["true"], unless: [test, -e, /], checkSafe: true}}
    - {name: guards, command.run: {argv: ["true"], onlyIf: [test, -e, /], checkSafe: true}}
    - {name: unsafe, command.run: {argv: ["true"], onlyIf: ["false"]}}
    - {name: later, command.run: {argv: ["true"], onlyIf: ["false"], checkSafe: true}}
"#,
        r#"
    - {name: tells, command.run: {argv: ["true"]}, notify: [follows]}
    - {name: surely, file.managed: {path: /s, content: x}, notify: [certain]}
  handlers:
    - {name: follows, file.managed: {path: /f, content: x}}
    - {name: certain, file.managed: {path: /c, content: x}}
"#,
    ];
    for tasks in books {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("there"), "x").unwrap();
        for turn in ["fresh", "converged"] {
            let before = tree(root.path());
            let checked = done(root.path(), tasks, |run| (run.check, run.diff) = (true, true));
            assert_eq!(tree(root.path()), before, "{turn}: {tasks}");
            let ran = done(root.path(), tasks, |_| {});
            let told = format!("{turn}: {tasks}\n{:?}\n{:?}\n{:?}", checked.outcomes, checked.messages, ran.messages);
            assert_eq!(checked.outcomes.len(), ran.outcomes.len(), "{told}");
            for (foretold, came) in checked.outcomes.iter().zip(&ran.outcomes) {
                assert!(foretold == came || *foretold == Outcome::Unpredicted, "{told}");
            }
        }
    }
}

#[test]
fn what_can_be_told_in_a_check_is_told() {
    use Outcome::{Changed, Ok, Unpredicted};
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: settled, command.query: {argv: [echo, "1"]}}
    - {name: read, when: results.settled.stdout == "1", time.sleep: 1h}
    - {name: unless, command.run: {argv: ["true"], unless: ["true"], checkSafe: true}}
    - {name: onlyIf, command.run: {argv: ["true"], onlyIf: ["true"], checkSafe: true}}
    - {name: unsettled, command.run: {argv: ["true"], onlyIf: ["true"], checkSafe: true}}
    - {name: place, file.managed: {path: /a, content: ""}}
    - {name: creates, command.run: {argv: ["true"], creates: /a}}
    - {name: missing, file.line: {path: /made/by/a/package, line: x}}
"#;
    let seen = done(root.path(), tasks, |run| run.check = true);
    let expected = [Ok, Ok, Ok, Changed, Unpredicted, Changed, Ok, Unpredicted];
    assert_eq!(seen.outcomes, expected, "{:?}", seen.messages);
}

#[test]
fn what_fails_in_a_check_behind_a_change_is_unpredicted_whatever_the_action() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("there"), "x").unwrap();
    let change = "    - {name: changes, file.directory: {path: /made}}\n";
    for fails in [
        "file.managed: {path: /there/below, content: x}",
        "file.directory: {path: /there}",
        "file.symlink: {path: /there/below, target: x}",
        "file.line: {path: /there, regexp: y, line: y, insertBefore: nowhere}",
        "file.replaced: {path: /nowhere, regexp: a, replacement: b}",
        "archive.unpacked: {source: /nowhere.tar, path: /made}",
        "command.query: {argv: ['false']}",
        "http.request: {url: 'http://127.0.0.1:1/'}",
    ] {
        let task = format!("    - {{name: fails, {fails}}}\n");
        let seen = done(root.path(), &format!("{change}{task}"), |run| run.check = true);
        assert_eq!(seen.outcomes.get(1), Some(&Outcome::Unpredicted), "{fails}: {:?}", seen.messages);
    }
    // An item is a task before the next one.
    let looped = "    - {name: loop, loop: [/new, /there/below], file.directory: {path: '${{ item }}'}}\n";
    let seen = done(root.path(), looped, |run| run.check = true);
    assert_eq!(seen.outcomes, [Outcome::Unpredicted], "{:?}", seen.messages);
    let before = "    - {name: fails, file.managed: {path: /there/below, content: x}}\n";
    assert_eq!(done(root.path(), before, |run| run.check = true).outcomes, [Outcome::Failed]);
}

#[test]
fn variables_that_a_task_sets_are_stronger_than_all_others() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: before, assert.that: ["vars.port == 8080"]}
    - name: set
      variable.set: {values: {port: "${{ vars.port + 1 }}", tls: {min: "1.3"}}}
    - {name: skipped, when: "false", variable.set: {values: {port: 1}}}
    - {name: more, variable.set: {values: {tls: {max: "1.4"}}}}
    - {name: after, assert.that: ["vars.port == 9", "vars.tls.min == '1.3'", "vars.tls.max == '1.4'"]}
"#;
    let seen = done(root.path(), tasks, |run| _ = run.set.insert("port".into(), Value::from(8080)));
    assert_eq!(seen.outcomes.last(), Some(&Outcome::Failed), "8081 is not 9: {:?}", seen.messages);
    let right = tasks.replace("== 9\"", "== 8081\"");
    use Outcome::{Ok, Skipped};
    assert_eq!(done(root.path(), &right, |_| {}).outcomes, [Ok, Ok, Skipped, Ok, Ok]);
}

#[test]
fn a_variable_whose_task_does_not_run_is_unknown_in_a_check() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: make, command.run: {argv: [echo, "1"]}}
    - {name: set, variable.set: {values: {port: "${{ results.make.stdout }}"}}}
    - {name: read, when: "vars.port == 8080", time.sleep: 1h}
    - {name: other, file.managed: {path: /x, template: "{{vars.port}}"}}
"#;
    let seen = done(root.path(), tasks, |run| run.check = true);
    assert_eq!(seen.outcomes, [Outcome::Unpredicted; 4], "{:?}", seen.messages);
}

#[test]
fn refreshed_facts_are_those_of_now() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/lockstep/facts.d")).unwrap();
    let tasks = r#"
    - {name: none, assert.that: ["!has(facts.custom.rack)"]}
    - {name: make, file.managed: {path: /etc/lockstep/facts.d/rack.json, content: '{"row": 3}'}}
    - {name: as before, assert.that: ["!has(facts.custom.rack)"]}
    - {name: refresh, facts.refresh: {}}
    - {name: now, assert.that: ["facts.custom.rack.row == 3", "facts.hostname != ''"]}
    - {name: wrong, ignoreErrors: true, facts.refresh: {all: "${{ true }}"}}
"#;
    let refused = manifest::decode(
        "book.yaml",
        format!("metadata: {{apiVersion: v1alpha, kind: TaskBook, name: b, namespace: d}}\nspec:\n  tasks:{tasks}")
            .as_bytes(),
        None,
    );
    assert!(refused.is_err_and(|violations| violations[0].reason == "UnknownField"));
    let seen = done(root.path(), &tasks[..tasks.find("    - {name: wrong").unwrap()], |_| {});
    use Outcome::{Changed, Ok};
    assert_eq!(seen.outcomes, [Ok, Changed, Ok, Ok, Ok], "{:?}", seen.messages);
}

#[test]
fn an_event_is_raised_to_nobody_and_that_is_said() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: raise, event.raise: {type: deploy/done, severity: Warning, labels: {tier: web}, data: {port: "${{ vars.port }}"}}}
    - {name: short, event.raise: deploy/done}
    - {name: wrong, ignoreErrors: true, event.raise: {type: "${{ 'Deploy done' }}", labels: {"a b": x}}}
"#;
    use Outcome::{Failed, Ok};
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes[..3], [Ok, Ok, Failed], "{:?}", seen.messages);
    assert_eq!(seen.messages[0], "raised nothing: there is no cluster to tell");
    assert!(seen.messages[2].contains("type:"), "{}", seen.messages[2]);
    let seen = done(root.path(), tasks, |run| run.check = true);
    assert_eq!((seen.outcomes[0], seen.messages[0].as_str()), (Ok, "would raise raised/deploy/done"));
}

#[test]
fn failure_ends_the_book_and_tells_what_was_not_reached() {
    let root = tempfile::tempdir().unwrap();
    let tasks = "
    - {name: wrong, assert.that: {conditions: [\"vars.port == 1\", \"true\"]}}
    - {name: next, time.sleep: 1h}
    - {name: last, time.sleep: 1h}
";
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!((seen.outcomes.as_slice(), seen.not_reached), (&[Outcome::Failed][..], 2));
    assert!(seen.messages[0].contains("vars.port == 1"), "{:?}", seen.messages);
}

#[test]
fn what_one_node_makes_for_others_is_shared_with_itself() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: token, runOnce: true, command.query: {argv: [echo, tok-4711-xyz]}, register: {secret: true}}
    - name: use it
      file.managed: {path: /token, mode: "0600", template: "{{shared.token.stdout}}\n"}
    - {name: leak, sync: true, command.query: {argv: [cat, "/proc/self/environ"], secretEnvironment: true}, environment: {T: "${{ shared.token.stdout }}"}}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes.len(), 3, "{:?}", seen.messages);
    assert_eq!(fs::read_to_string(root.path().join("token")).unwrap(), "tok-4711-xyz\n");
    let printed = seen.text(OutputStream::Stdout);
    assert!(printed.contains("T=***") && !printed.contains("4711"), "{printed}");
}

#[test]
fn validation_gets_the_files_path() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - name: refused
      file.managed: {path: /a, content: "bad\n", validate: {argv: [grep, -q, good, "${{ file }}"]}}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Outcome::Failed]);
    assert!(!root.path().join("a").exists());
    let seen = done(root.path(), &tasks.replace("bad", "good"), |_| {});
    assert_eq!(seen.outcomes, [Outcome::Changed], "{:?}", seen.messages);
}

#[test]
fn tasks_for_other_nodes_are_refused_with_their_field() {
    let tasks = "
    - {name: a, time.sleep: 1ms}
    - {name: b, time.sleep: 1ms, targets: {nodes: [db1]}}
";
    let local = LocalRun { book: book(tasks), ..LocalRun::default() };
    match run(&local, &Cancel::new().unwrap(), &mut |_| panic!("something was done")) {
        Err(LocalError::Refused { reason, violations, .. }) => {
            assert_eq!(reason, "NeedsCluster");
            assert_eq!(violations[0].field, "spec.tasks[1].targets");
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn thrown_switch_ends_the_running_task() {
    let local = LocalRun { book: book("    - {name: a, time.sleep: 1h}\n"), ..LocalRun::default() };
    let cancel = Cancel::new().unwrap();
    let outcome = run(&local, &cancel, &mut |event| {
        if let LocalEvent::Started(_) = event {
            cancel.throw();
        }
    })
    .unwrap();
    assert_eq!(outcome.count(Outcome::Cancelled), 1);
    assert!(!outcome.succeeded);
}

const GUARDED: &str = r#"
    - name: guarded
      when: vars.port > 1
      environment: {WHO: "${{ node.name }}", WHAT: outer}
      block:
        - {name: first, file.managed: {path: /first, content: "1\n"}}
        - {name: second, command.run: {argv: ["sh", "-c", "echo $WHAT >&2; exit 3"]}, environment: {WHAT: inner}}
        - {name: third, command.run: {argv: ["true"]}}
      rescue:
        - name: told
          command.run: {argv: [echo, "${{ failure.task }}: ${{ results.second.exitCode }}: ${{ failure.message }}"]}
          when: results.second.failed
      always:
        - {name: cleaned, file.absent: {path: /first}}
        - {name: said, when: failure.name == "second", command.query: {argv: [echo, followed]}}
    - {name: after, command.query: {argv: [echo, after]}}
"#;

#[test]
fn a_rescue_reads_the_failure_and_the_book_goes_on() {
    use Outcome::{Changed, Failed, Ok};
    let root = tempfile::tempdir().unwrap();
    let seen = done(root.path(), GUARDED, |_| {});
    assert_eq!(seen.outcomes, [Changed, Failed, Changed, Changed, Ok, Ok], "{:?}", seen.messages);
    assert!(seen.succeeded && seen.not_reached == 0);
    let printed = seen.text(OutputStream::Stdout);
    assert!(printed.starts_with("second: 3: ") && printed.ends_with("followed\nafter\n"), "{printed}");
    assert_eq!(seen.text(OutputStream::Stderr), "inner\n");
    assert!(!root.path().join("first").exists());
}

#[test]
fn a_block_whose_condition_is_false_is_skipped_with_all_that_is_in_it() {
    let root = tempfile::tempdir().unwrap();
    let seen = done(root.path(), GUARDED, |run| _ = run.set.insert("port".into(), Value::from(1)));
    use Outcome::{Ok, Skipped};
    assert_eq!(seen.outcomes, [Skipped, Skipped, Skipped, Skipped, Skipped, Ok], "{:?}", seen.messages);
    assert_eq!(seen.started, 1);
}

#[test]
fn what_is_not_rescued_ends_the_book_after_always() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - block:
        - {name: a, command.run: {argv: ["false"]}, sync: true}
      rescue: [{name: b, command.run: {argv: ["false"]}}]
      always: [{name: c, command.query: {argv: [echo, always]}}]
    - {name: d, command.run: {argv: ["true"]}}
"#;
    use Outcome::{Failed, Ok};
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Failed, Failed, Ok], "{:?}", seen.messages);
    assert_eq!((seen.succeeded, seen.not_reached, seen.text(OutputStream::Stdout).as_str()), (false, 1, "always\n"));
}

#[test]
fn a_cut_block_is_done_once_on_one_machine() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - block:
        - {name: a, command.run: {argv: [echo, a]}}
        - {name: b, command.run: {argv: [echo, b]}, runOnce: true}
        - {name: c, command.run: {argv: [echo, c]}, sync: true}
      rescue: [{name: r, command.run: {argv: [echo, r]}}]
      always: [{name: z, command.run: {argv: [echo, z]}}]
    - {name: d, command.run: {argv: [echo, d]}}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.text(OutputStream::Stdout), "a\nb\nc\nz\nd\n", "{:?}", seen.messages);
    let failing = tasks.replace("[echo, b]", "['false']");
    let seen = done(root.path(), &failing, |_| {});
    assert_eq!(seen.text(OutputStream::Stdout), "a\nr\nz\nd\n", "{:?}", seen.messages);
    assert!(seen.succeeded);
}

#[test]
fn after_a_cancel_only_always_is_done_and_within_the_grace() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - block: [{name: sleeper, time.sleep: 60s}, {name: next, command.run: {argv: [echo, next]}}]
      rescue: [{name: rescue, command.run: {argv: [echo, rescue]}}]
      always:
        - {name: clean, command.run: {argv: [echo, clean]}}
        - {name: too long, command.run: {argv: [sleep, "60"]}}
        - {name: too late, command.run: {argv: [echo, late]}}
    - {name: after, command.run: {argv: [echo, after]}}
"#;
    let mut book = book(tasks);
    book.spec.as_mut().unwrap().run_options = Some(lockstep_apis::v1alpha::RunOptions {
        grace: Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 }),
        ..Default::default()
    });
    let local = LocalRun { book, root: Some(root.path().to_owned()), ..LocalRun::default() };
    let cancel = Cancel::new().unwrap();
    let (mut ended, mut printed) = (Vec::new(), String::new());
    let outcome = run(&local, &cancel, &mut |event| match event {
        LocalEvent::Started(task) if task.name == "sleeper" => cancel.throw(),
        LocalEvent::Ended(task, report) => ended.push((task.name.clone(), report.outcome())),
        LocalEvent::Output(_, chunk) => printed.push_str(&String::from_utf8_lossy(&chunk.data)),
        LocalEvent::Started(_) => {}
    })
    .unwrap();
    use Outcome::{Cancelled, Changed, Failed};
    let names: Vec<_> = ended.iter().map(|(name, outcome)| (name.as_str(), *outcome)).collect();
    assert_eq!(names, [("sleeper", Cancelled), ("clean", Changed), ("too long", Failed)]);
    assert_eq!(printed, "clean\n");
    assert!(!outcome.succeeded);
}

#[test]
fn a_loop_is_one_task_with_a_result_for_each_item() {
    use Outcome::{Changed, Ok, Skipped};
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - name: files
      loop: [{name: a, port: 1}, {name: b, port: 2}, {name: c, port: 3}]
      when: item.port != 2
      file.managed: {path: "/${{ item.name }}", template: "{{item.port}} of {{index}}\n"}
    - name: pairs
      loop: {y: 2, x: 1}
      command.query: {argv: [echo, "${{ item.key }}=${{ item.value }}"]}
    - name: computed
      loop: ${{ results.pairs.items.map(r, r.stdout) }}
      command.query: {argv: [echo, "${{ item }}!"]}
    - name: nothing
      loop: ${{ [] }}
      command.run: {argv: ["false"]}
    - name: not wanted
      when: vars.port == 1
      loop: ${{ vars.absent }}
      command.run: {argv: ["false"]}
    - name: after
      when: results.files.changed && results.files.items[1].skipped && results.files.items[2].item.name == "c"
      command.query: {argv: [echo, "${{ results.files.items.size() }}"]}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Changed, Ok, Ok, Skipped, Skipped, Ok], "{:?}", seen.messages);
    assert_eq!(seen.text(OutputStream::Stdout), "x=1\ny=2\nx=1!\ny=2!\n3\n");
    assert_eq!(fs::read_to_string(root.path().join("c")).unwrap(), "3 of 2\n");
    assert!(!root.path().join("b").exists());
    let second = done(root.path(), tasks, |_| {});
    assert_eq!(second.outcomes[0], Ok, "{:?}", second.messages);
}

#[test]
fn a_loop_ends_at_the_item_that_fails_and_names_it() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - name: each
      loop: [x, y, z]
      command.run: {shell: "echo ${{ item }}; test ${{ item }} != y"}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Outcome::Failed]);
    assert!(seen.messages[0].starts_with("item 2 of 3 (y): "), "{:?}", seen.messages);
    assert_eq!(seen.text(OutputStream::Stdout), "x\ny\n");
    let ignored = tasks.replace("loop:", "ignoreErrors: true\n      loop:");
    let seen = done(root.path(), &ignored, |_| {});
    assert_eq!(seen.text(OutputStream::Stdout), "x\ny\nz\n");
    assert!(seen.succeeded);
}

#[test]
fn a_loop_is_limited_and_says_what_it_cannot_go_through() {
    let root = tempfile::tempdir().unwrap();
    let of = |items: &str| {
        let tasks = format!(
            "\n    - {{name: a, loop: '${{{{ {items} }}}}', loopLimit: 2, command.query: {{argv: ['true']}}}}\n"
        );
        done(root.path(), &tasks, |_| {}).messages.concat()
    };
    assert_eq!(of("[1, 2, 3]"), "LoopLimit: 3 items, and at most 2 are allowed: raise `loopLimit`");
    assert!(of("1 + 1").contains("must be a list or a map"), "{}", of("1 + 1"));
    assert_eq!(of("[1, 2]"), "");
}

#[test]
fn a_check_goes_through_a_loop_too() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: files, loop: [a, b], file.managed: {path: "/${{ item }}", content: x}}
    - {name: make, loop: [a, b], command.run: {argv: [touch, "${{ item }}"]}}
    - {name: over, loop: "${{ results.make.items }}", command.query: {argv: ["true"]}}
"#;
    let seen = done(root.path(), tasks, |run| run.check = true);
    use Outcome::{Changed, Unpredicted};
    assert_eq!(seen.outcomes, [Changed, Unpredicted, Unpredicted], "{:?}", seen.messages);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn this_machine_alone_is_all_nodes() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: say, command.query: {argv: [echo, hello]}}
    - {name: hear, assert.that: {conditions: ["size(all.say) == 1", "all.say[node.name].stdout == 'hello'"]}}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Outcome::Ok, Outcome::Ok], "{:?}", seen.messages);
}

#[test]
fn what_another_node_does_is_refused() {
    let local = LocalRun {
        book: book("    - {name: drain, delegateTo: {nodes: [lb1]}, command.run: {argv: [x]}}"),
        ..LocalRun::default()
    };
    match run(&local, &Cancel::new().unwrap(), &mut |_| {}) {
        Err(LocalError::Refused { reason, violations, .. }) => {
            assert_eq!((reason.as_str(), violations[0].field.as_str()), ("NeedsCluster", "spec.tasks[0].delegateTo"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn handlers_run_once_in_their_order_and_only_after_a_change() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: one, file.managed: {path: /one, content: "1"}, notify: [second, first]}
    - {name: two, file.managed: {path: /two, content: "2"}, notify: [first]}
    - {name: three, command.query: {argv: [echo, tasks]}, notify: [never]}
  handlers:
    - {name: first, command.run: {argv: [echo, first]}}
    - {name: never, command.run: {argv: [echo, never]}}
    - {name: second, command.run: {argv: [echo, second]}, when: results.one.changed}
"#;
    use Outcome::{Changed, Ok};
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!(seen.outcomes, [Changed, Changed, Ok, Changed, Changed], "{:?}", seen.messages);
    assert_eq!(seen.text(OutputStream::Stdout), "tasks\nfirst\nsecond\n");
    let second = done(root.path(), tasks, |_| {});
    assert_eq!((second.outcomes.as_slice(), second.not_reached), (&[Ok, Ok, Ok][..], 0));
}

#[test]
fn after_a_failure_no_handler_runs() {
    let root = tempfile::tempdir().unwrap();
    let tasks = r#"
    - {name: one, file.managed: {path: /one, content: "1"}, notify: [first]}
    - {name: two, command.run: {argv: ["false"]}}
    - {name: three, command.run: {argv: ["true"]}}
  handlers:
    - {name: first, command.run: {argv: [echo, first]}}
"#;
    let seen = done(root.path(), tasks, |_| {});
    assert_eq!((seen.outcomes.as_slice(), seen.not_reached), (&[Outcome::Changed, Outcome::Failed][..], 1));
}
