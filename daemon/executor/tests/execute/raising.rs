//! Events that tasks raise.

use lockstep_apis::v1alpha::NodeEvent;
use prost::Message as _;

use super::*;

#[test]
fn what_tasks_raise_waits_in_the_folder_masked_and_within_a_limit() {
    let bench = Bench::new();
    let raise = |id: &str, parameters: Value| CompiledTask {
        action: "event.raise".into(),
        parameters: Some(parameters),
        ..shell(id, "")
    };
    let said = Value::map([("type", Value::text("a")), ("message", Value::text("it is ${{ shared.token.stdout }}"))]);
    let many = CompiledTask {
        r#loop: Some(Value::list((0..120).map(Value::from))),
        loop_limit: 1000,
        ..raise("many", Value::map([("type", Value::text("b"))]))
    };
    let token = Value::map([("stdout", Value::text("correct-horse"))]);
    let work = Work {
        shared: [("token".to_owned(), token)].into(),
        secret_shared: vec!["token".into()],
        ..work([raise("said", said), many])
    };
    let (path, report) = bench.run("a", &work);
    assert_eq!(outcomes(&report), [Outcome::Ok, Outcome::Failed]);
    assert!(report.tasks[1].message.contains("at most 100"), "{}", report.tasks[1].message);
    let raised = segment::raised(&path).unwrap();
    assert_eq!(raised.len(), 100);
    let first = NodeEvent::decode(fs::read(&raised[0]).unwrap().as_slice()).unwrap();
    assert_eq!(first.attempt.unwrap().run_uid, "run");
    let message = first.spec.unwrap().message;
    assert!(message.starts_with("it is ") && !message.contains("horse"), "{message}");
}
