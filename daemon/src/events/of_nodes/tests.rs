use lockstep_apis::v1alpha::object;

use super::*;
use crate::events::{batch_of, objects_of};
use crate::store::embedded::{Embedded, EmbeddedSettings};

const N1: Speaker<'_> = Speaker { uid: "u1", name: "n1" };

fn numbered(number: u64, r#type: &str) -> NodeEvent {
    let spec = EventSpec { r#type: r#type.into(), number, ..EventSpec::default() };
    NodeEvent { spec: Some(spec), ..NodeEvent::default() }
}

fn raised(number: u64, r#type: &str, run: &str) -> NodeEvent {
    let attempt = AttemptRef { run_uid: run.into(), node_uid: "u1".into(), ..AttemptRef::default() };
    NodeEvent { attempt: Some(attempt), ..numbered(number, r#type) }
}

/// The node has claimed work of one Run.
fn claimed(attempt: &AttemptRef) -> Option<About> {
    (attempt.run_uid == "r1").then(|| About { namespace: "shop".into(), run: "web-1".into() })
}

struct Bench {
    _folder: tempfile::TempDir,
    store: Embedded,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&EmbeddedSettings::new(folder.path().join("s"))).await.unwrap();
        Self { _folder: folder, store }
    }

    async fn send(&self, events: Vec<NodeEvent>) -> u64 {
        store_of_node(&self.store, &ConfigSpec::default(), N1, events, claimed).await.unwrap()
    }

    /// `namespace regarding type` of each that is stored, in the order of its key, and its labels.
    async fn stored(&self) -> Vec<(String, BTreeMap<String, String>)> {
        let page = self.store.snapshot(&keys::events_prefix(None)).await.unwrap();
        let objects = page.entries.iter().flat_map(objects_of);
        let shown = objects.map(|object| {
            let Some(object::Kind::Event(event)) = &object.kind else { panic!("an event") };
            let spec = event.spec.as_ref().unwrap();
            assert_eq!((spec.node.as_str(), spec.source.as_str()), ("n1", "node/u1"));
            let metadata = object.metadata();
            assert!(batch_of(&metadata.namespace, &metadata.name).is_some());
            let count = spec.data.as_ref().and_then(|data| data.get("count")?.as_integer());
            let count = count.map_or(String::new(), |count| format!(" {count}"));
            let line = format!("{} {} {}{count}", metadata.namespace, spec.regarding, spec.r#type);
            (line, metadata.labels.clone())
        });
        shown.collect()
    }

    async fn lines(&self) -> Vec<String> {
        self.stored().await.into_iter().map(|(line, _)| line).collect()
    }
}

#[tokio::test]
async fn a_node_that_sends_again_is_stored_once_and_speaks_only_of_itself() {
    let bench = Bench::new().await;
    let mut forged = numbered(2, "beacon/y");
    let spec = forged.spec.as_mut().unwrap();
    (spec.node, spec.regarding, spec.source) = ("other".into(), "Node/other".into(), "server/s".into());
    let sent = vec![numbered(1, "beacon/x"), forged];
    assert_eq!(bench.send(sent.clone()).await, 2);
    assert_eq!(bench.send(sent).await, 2);
    assert_eq!(bench.lines().await, ["system Node/n1 beacon/x", "system Node/n1 beacon/y"]);
}

#[tokio::test]
async fn what_a_task_raised_is_in_its_runs_namespace_below_raised() {
    let bench = Bench::new().await;
    let mut event = raised(1, "deploy/done", "r1");
    event.labels.insert("tier".into(), "web".into());
    assert_eq!(bench.send(vec![event]).await, 1);
    let (line, labels) = bench.stored().await.remove(0);
    assert_eq!(line, "shop Run/shop/web-1 raised/deploy/done");
    assert_eq!(labels.get("tier").map(String::as_str), Some("web"));
}

#[tokio::test]
async fn what_is_lost_or_refused_is_counted_once() {
    let bench = Bench::new().await;
    let mut large = numbered(10, "node/x");
    large.spec.as_mut().unwrap().data = Some(Value::text("x".repeat(MAX_DATA_BYTES + 1)));
    let mut labelled = raised(9, "a", "r1");
    labelled.labels.insert("a b".into(), String::new());
    // 1 to 3 were dropped before they were sent.
    let sent = vec![
        numbered(4, "run/finished"),
        raised(5, "a", "somebody elses"),
        raised(6, "A B", "r1"),
        numbered(7, "node/ok"),
        numbered(8, ""),
        labelled,
        large,
    ];
    assert_eq!(bench.send(sent.clone()).await, 10);
    assert_eq!(bench.send(sent).await, 10);
    assert_eq!(bench.lines().await, ["system Node/n1 node/ok", "system Node/n1 node/events-dropped 9"]);
}

#[tokio::test]
async fn one_commit_takes_so_many_and_the_rest_comes_again() {
    let bench = Bench::new().await;
    let all: Vec<NodeEvent> = (1..=MAX_BATCH as u64 + 5).map(|number| numbered(number, "node/x")).collect();
    assert_eq!(bench.send(all.clone()).await, MAX_BATCH as u64);
    assert_eq!(bench.send(all).await, MAX_BATCH as u64 + 5);
    assert_eq!(bench.lines().await.len(), MAX_BATCH + 5);
}
