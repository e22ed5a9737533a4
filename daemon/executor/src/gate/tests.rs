//! Claims about gates: what follows from a look, and books whose gates open or not.

use std::{fs, path::Path};

use lockstep_apis::{
    manifest,
    v1alpha::{TaskBook, object::Kind},
};
use lockstep_modules::Cancel;

use super::*;
use crate::local::{LocalEvent, LocalRun, run};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_gate_opens_at_the_first_true_look_and_is_shut_for_good_at_its_limit() {
    let gate = CompiledGate { interval_ms: 50, limit: 3, ..CompiledGate::default() };
    let mut vigil = Vigil::default();
    assert_eq!(vigil.saw(false, ms(0), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(true, ms(50), &gate), Next::Open);
    let mut vigil = Vigil::default();
    assert_eq!(vigil.saw(false, ms(0), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(false, ms(50), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(false, ms(100), &gate), Next::Shut);
}

#[test]
fn soaking_begins_anew_when_a_look_finds_the_gate_shut() {
    let gate = CompiledGate { interval_ms: 50, limit: 3, soak_ms: 120, ..CompiledGate::default() };
    let mut vigil = Vigil::default();
    assert_eq!(vigil.saw(true, ms(0), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(true, ms(50), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(false, ms(100), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(true, ms(150), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(true, ms(200), &gate), Next::Look(ms(50)));
    assert_eq!(vigil.saw(true, ms(250), &gate), Next::Look(ms(20)), "the last look is at the soak's end");
    assert_eq!(vigil.saw(true, ms(270), &gate), Next::Open);
}

#[test]
fn only_looks_that_find_it_shut_count_against_the_limit() {
    let gate = CompiledGate { interval_ms: 1, limit: 2, soak_ms: 1000, ..CompiledGate::default() };
    let mut vigil = Vigil::default();
    for now in 0..500 {
        assert_eq!(vigil.saw(true, ms(now), &gate), Next::Look(ms(1)));
    }
    assert_eq!(vigil.saw(false, ms(500), &gate), Next::Look(ms(1)));
    assert_eq!(vigil.saw(false, ms(501), &gate), Next::Shut);
}

fn book(gate: &str) -> TaskBook {
    let text = format!(
        "metadata: {{apiVersion: v1alpha, kind: TaskBook, name: b, namespace: default}}\n\
         spec:\n  targets: {{all: true}}\n  runOptions: {{serialize: {{count: 1, gate: {gate}}}}}\n  \
         tasks: [{{name: find, command.query: {{argv: [echo, up]}}}}]"
    );
    let objects = manifest::decode("book.yaml", text.as_bytes(), None).unwrap();
    match objects.into_iter().next().unwrap().kind {
        Some(Kind::TaskBook(book)) => book,
        other => panic!("no book: {other:?}"),
    }
}

/// How the gate ended, its message, and what was printed.
fn passed(root: &Path, gate: &str, change: impl FnOnce(&mut LocalRun)) -> (Outcome, String, String) {
    let mut local = LocalRun { book: book(gate), root: Some(root.to_owned()), ..LocalRun::default() };
    change(&mut local);
    let (mut end, mut text) = (None, String::new());
    run(&local, &Cancel::new().unwrap(), &mut |event| match event {
        LocalEvent::Output(task, chunk) if task.gate.is_some() => text.push_str(&String::from_utf8_lossy(&chunk.data)),
        LocalEvent::Ended(task, report) if task.gate.is_some() => {
            end = Some((report.outcome(), report.message.clone()))
        }
        _ => {}
    })
    .unwrap();
    let (outcome, message) = end.expect("the book has a gate");
    (outcome, message, text)
}

/// Prints how often it was done so far.
const COUNT: &str = "command.query: {shell: 'echo x >> $LOCKSTEP_ROOT/looks; wc -l < $LOCKSTEP_ROOT/looks'}";

#[test]
fn the_gate_looks_until_its_condition_holds_and_says_how_often_it_did_not() {
    let root = tempfile::tempdir().unwrap();
    let gate = format!(
        "{{check: [{{id: looks, {COUNT}}}], condition: 'int(checks.looks.stdout) >= 3 && results.find.stdout == \"up\"', \
         retry: {{interval: 1ms, limit: 5}}}}"
    );
    let (outcome, message, text) = passed(root.path(), &gate, |_| {});
    assert_eq!((outcome, message.as_str()), (Outcome::Ok, ""));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("gate: 2 of 5: int(checks.looks.stdout) >= 3"), "{text}");
    assert_eq!(lines[2], "gate: open");
    let looks = fs::read_to_string(root.path().join("looks")).unwrap();
    assert_eq!(looks.lines().count(), 3, "not looked at again once it is open");
}

#[test]
fn a_gate_that_never_opens_fails_the_node_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let gate = "{check: [{id: health, command.query: {argv: [cat, /nowhere]}}], retry: {interval: 1ms, limit: 2}}";
    let (outcome, message, text) = passed(root.path(), gate, |_| {});
    assert_eq!(outcome, Outcome::Failed);
    assert!(message.starts_with("gate: 2 of 2: health: "), "{message}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_check_that_the_condition_reads_is_judged_by_it_and_others_must_end_well() {
    let root = tempfile::tempdir().unwrap();
    let of = |condition: &str| {
        let gate = format!(
            "{{check: [{{id: a, command.query: {{argv: ['false']}}}}, {{id: b, command.query: {{argv: ['true']}}}}], \
             condition: '{condition}', retry: {{interval: 1ms, limit: 1}}}}"
        );
        passed(root.path(), &gate, |_| {})
    };
    assert_eq!(of("checks.a.exitCode == 1").0, Outcome::Ok);
    let (outcome, message, _) = of("checks.b.exitCode == 0");
    assert!(outcome == Outcome::Failed && message.starts_with("gate: 1 of 1: a: "), "{message}");
    // A condition without an answer is not true yet, and the check that gave none says why.
    let (outcome, message, _) = of("checks.a.status == 200");
    assert!(outcome == Outcome::Failed && message.starts_with("gate: 1 of 1: a: "), "{message}");
}

#[test]
fn a_later_check_reads_an_earlier_one() {
    let root = tempfile::tempdir().unwrap();
    let gate = "{check: [{id: a, command.query: {argv: [echo, '7']}}, \
                {id: b, assert.that: {conditions: [checks.a.stdout == '7']}}], retry: {interval: 1ms, limit: 1}}";
    assert_eq!(passed(root.path(), gate, |_| {}).0, Outcome::Ok);
}

#[test]
fn a_check_mode_run_waits_at_no_gate() {
    let root = tempfile::tempdir().unwrap();
    let gate = format!("{{check: [{{id: looks, {COUNT}}}], retry: {{interval: 1ms, limit: 1}}}}");
    assert_eq!(passed(root.path(), &gate, |local| local.check = true).0, Outcome::Skipped);
    assert!(!root.path().join("looks").exists());
}

#[test]
fn a_cancel_ends_the_waiting_at_once() {
    let root = tempfile::tempdir().unwrap();
    let gate = "{check: [{id: a, command.query: {argv: ['false']}}], retry: {interval: 1h, limit: 9}}";
    let local = LocalRun { book: book(gate), root: Some(root.path().to_owned()), ..LocalRun::default() };
    let cancel = Cancel::new().unwrap();
    let mut end = None;
    run(&local, &cancel, &mut |event| match event {
        LocalEvent::Output(task, _) if task.gate.is_some() => cancel.throw(),
        LocalEvent::Ended(task, report) if task.gate.is_some() => end = Some(report.outcome()),
        _ => {}
    })
    .unwrap();
    assert_eq!(end, Some(Outcome::Cancelled));
}
