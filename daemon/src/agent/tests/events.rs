//! What tasks raise reaches a server once it is heard, and is asked for again until it is stored.

use lockstep_apis::v1alpha::{EventsAnswer, NodeEvent};

use super::*;

fn raising(types: &[&str]) -> Work {
    let task = |(index, r#type): (usize, &&str)| CompiledTask {
        index: index as u32,
        id: format!("t{index}"),
        action: "event.raise".into(),
        parameters: Some(Value::map([("type", Value::text(*r#type)), ("message", Value::text("said"))])),
        ..CompiledTask::default()
    };
    Work { tasks: types.iter().enumerate().map(task).collect(), ..work(1, String::new()) }
}

/// Number and type of each.
fn told(events: &[NodeEvent]) -> Vec<(u64, String)> {
    let specs = events.iter().filter_map(|event| event.spec.as_ref());
    specs.map(|spec| (spec.number, spec.r#type.clone())).collect()
}

impl Peer {
    /// The next batch of Events; reports and output are acknowledged meanwhile.
    async fn events(&mut self, work: &Work) -> Vec<NodeEvent> {
        loop {
            match self.next().await {
                agent_message::Message::Events(request) => return request.events,
                agent_message::Message::Report(_) => self.stored(work).await,
                agent_message::Message::Output(request) => drop(self.keep(request).await),
                other => panic!("neither events, report nor output: {other:?}"),
            }
        }
    }

    /// Batches up to the one that has this number.
    async fn events_up_to(&mut self, work: &Work, number: u64) -> Vec<NodeEvent> {
        loop {
            let events = self.events(work).await;
            if told(&events).iter().any(|(last, _)| *last == number) {
                return events;
            }
        }
    }

    /// Acknowledges reports and output, never Events.
    async fn listen(&mut self, work: &Work) {
        loop {
            self.events(work).await;
        }
    }

    async fn acknowledge(&self, number: u64) {
        self.say(server_message::Message::Events(EventsAnswer { number })).await;
    }
}

#[tokio::test]
async fn what_tasks_raise_is_sent_again_by_each_next_agent_until_it_is_acknowledged() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let work = raising(&["a", "b/c"]);
    peer.hand_over(&work).await;
    let expected = vec![(1, "a".to_owned()), (2, "b/c".to_owned())];
    let first = peer.events(&work).await;
    assert_eq!(first[0].attempt, Some(reference(&work)));
    // Not acknowledged: the connection breaks, then the agent ends.
    drop(peer);
    let (mut peer, _) = bench.session().await;
    assert_eq!(told(&peer.events_up_to(&work, 2).await), expected);
    // The report may come before the Events or after them.
    tokio::select! {
        () = bench.until("the folder goes", |bench| bench.folders() == 0) => {}
        () = peer.listen(&work) => {}
    }
    bench.stop().await;
    drop(peer);
    bench.start();
    let (mut peer, _) = bench.session().await;
    assert_eq!(told(&peer.events(&work).await), expected);
    peer.acknowledge(1).await;
    assert_eq!(told(&peer.events(&work).await), expected[1..]);
    peer.acknowledge(2).await;
    let outbox = bench.settings.outbox_folder();
    bench.until("the outbox is empty", |_| std::fs::read_dir(&outbox).unwrap().count() == 1).await;
}

#[tokio::test]
async fn what_was_raised_while_no_agent_was_there_is_taken_by_the_next() {
    let mut bench = Bench::new().await;
    let (mut peer, _) = bench.session().await;
    let (begun, go) = (bench.path("begun"), bench.path("go"));
    let mut work = raising(&["late"]);
    let wait = self::work(1, format!("echo x > {begun}; while [ ! -e {go} ]; do sleep 0.01; done"));
    work.tasks.insert(0, CompiledTask { index: 7, ..wait.tasks[0].clone() });
    peer.hand_over(&work).await;
    bench.until("the task begins", |_| Path::new(&begun).exists()).await;
    bench.stop().await;
    drop(peer);
    std::fs::write(&go, "").unwrap();
    let segments = bench.settings.segments_folder();
    let raised = |_: &Bench| {
        let folder = std::fs::read_dir(&segments).unwrap().next().unwrap().unwrap().path();
        lockstep_executor::segment::raised(&folder).unwrap().len() == 1
    };
    bench.until("the executor raises it", raised).await;
    bench.start();
    let (mut peer, _) = bench.session().await;
    assert_eq!(told(&peer.events(&work).await), [(1, "late".to_owned())]);
}
