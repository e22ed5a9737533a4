//! Tasks that reboot: another boot is another `boot_id` here; nothing goes down.

use super::*;

const NEXT: &str = "the next boot";

fn reboot(argv: &[&str]) -> CompiledTask {
    CompiledTask {
        id: "reboot".into(),
        action: "reboot.now".into(),
        parameters: Some(Value::map([("argv", Value::list(argv.iter().map(|word| Value::text(*word))))])),
        timeout_ms: 600_000,
        keep_result: true,
        ..Default::default()
    }
}

fn in_next_boot(path: &Path) -> Report {
    match segment::status(path, NEXT).unwrap() {
        Status::Ended(report) => report,
        other => panic!("not ended: {other:?}"),
    }
}

#[test]
fn a_reboot_is_done_by_the_next_boot_and_what_was_before_it_is_kept() {
    let bench = Bench::new();
    let asked = bench.path("asked");
    let line = format!("echo x >> {}", asked.display());
    let path = bench.create("a", &work([shell("first", "true"), reboot(&["sh", "-c", &line])]));
    let mut executor = start(&path);
    until("the machine is asked to reboot", || asked.exists().then_some(()));
    assert_eq!(segment::status(&path, &bench.boot).unwrap(), Status::Working);
    kill("-TERM", executor.id());
    assert_eq!(executor.wait().unwrap().code(), Some(71), "it ends as the machine goes down");
    assert_eq!(segment::status(&path, &bench.boot).unwrap(), Status::Working, "it may still go down");
    assert_eq!(start(&path).wait().unwrap().code(), Some(70), "nobody begins it again");
    let report = in_next_boot(&path);
    assert_eq!(outcomes(&report), [Outcome::Changed, Outcome::Changed]);
    assert_eq!(report.tasks[1].result.as_ref().unwrap().get("changed"), Some(&Value::from(true)));
    assert_eq!(fs::read_to_string(asked).unwrap(), "x\n");
}

#[test]
fn an_executor_that_is_killed_on_the_way_down_does_not_matter() {
    let bench = Bench::new();
    let asked = bench.path("asked");
    let path = bench.create("a", &work([reboot(&["touch", asked.to_str().unwrap()])]));
    let mut executor = start(&path);
    until("the machine is asked to reboot", || asked.exists().then_some(()));
    executor.kill().unwrap();
    executor.wait().unwrap();
    assert_eq!(segment::status(&path, &bench.boot).unwrap(), Status::Working);
    assert_eq!(outcomes(&in_next_boot(&path)), [Outcome::Changed]);
}

#[test]
fn a_reboot_that_cannot_be_had_fails_and_a_later_boot_is_not_its() {
    let bench = Bench::new();
    let (_, report) = bench.run("a", &work([reboot(&["sh", "-c", "echo inhibited >&2; exit 1"])]));
    assert_eq!(outcomes(&report), [Outcome::Failed]);
    let message = &report.tasks[0].message;
    assert!(message.contains("the code 1") && message.contains("inhibited"), "{message}");
    // It does not go down in time.
    let short = CompiledTask { timeout_ms: 50, ..reboot(&["true"]) };
    let (path, report) = bench.run("b", &work([short]));
    assert_eq!(outcomes(&report), [Outcome::Failed]);
    assert_eq!(in_next_boot(&path), report);
}

#[test]
fn a_check_reboots_nothing() {
    let bench = Bench::new();
    let asked = bench.path("asked");
    let work = Work { check: true, ..work([reboot(&["touch", asked.to_str().unwrap()])]) };
    let (_, report) = bench.run("a", &work);
    assert_eq!(outcomes(&report), [Outcome::Changed]);
    assert_eq!(report.tasks[0].message, "would reboot");
    assert!(!asked.exists());
}
