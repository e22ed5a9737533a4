//! What a node tells of itself: Events, facts, and, when nothing happens, nothing.

use super::admin::{Admin, within};
use super::agent::{Node, all};
use anyhow::{Context, Result, bail};
use lockstep_apis::manifest;
use lockstep_apis::v1alpha::{
    ApplyRequest, AttemptRef, EventSpec, EventsRequest, FactsUpdate, GetRequest, NodeEvent, NodeStatus, ObjectRef,
    Outcome, Value, WatchEventType, WatchRequest, agent_message, object, server_message,
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

impl Admin {
    /// The first Event of a type.
    async fn told_of(&self, namespace: &str, r#type: &str) -> Result<EventSpec> {
        let request = WatchRequest { kind: "Event".into(), namespace: namespace.into(), ..WatchRequest::default() };
        let mut changes = self.objects().watch(request).await?.into_inner();
        within(r#type, async {
            while let Some(change) = changes.message().await? {
                if let Some(object::Kind::Event(event)) = change.object.and_then(|object| object.kind)
                    && let Some(spec) = event.spec.filter(|spec| spec.r#type == r#type)
                {
                    return Ok(spec);
                }
            }
            bail!("the watch ended")
        })
        .await
    }

    async fn node(&self, name: &str) -> Result<NodeStatus> {
        let reference = ObjectRef { kind: "Node".into(), name: name.into(), ..ObjectRef::default() };
        match self.objects().get(GetRequest { r#ref: Some(reference) }).await?.into_inner().kind {
            Some(object::Kind::Node(node)) => node.status.context("a status"),
            other => bail!("not a Node: {other:?}"),
        }
    }

    async fn until_node(&self, name: &str, what: &str, holds: impl Fn(&NodeStatus) -> bool) -> Result<NodeStatus> {
        within(what, async {
            loop {
                let status = self.node(name).await?;
                if holds(&status) {
                    return Ok(status);
                }
            }
        })
        .await
    }

    async fn apply(&self, text: &str) -> Result<()> {
        let objects = manifest::decode("in", text.as_bytes(), None).map_err(|found| anyhow::anyhow!("{found:?}"))?;
        self.objects().apply(ApplyRequest { objects, dry_run: false }).await?;
        Ok(())
    }
}

#[tokio::test]
async fn what_a_task_raises_is_an_event_about_its_run() -> Result<()> {
    let admin = Admin::start().await?;
    let raise = "targets: {all: true}\ntasks:\n  - event.raise: {type: deploy/done, severity: Critical, message: 'on ${{ node.name }}', data: {n: 7}}";
    admin.book("web", raise).await?;
    admin.run("web").await?;
    let told = admin.told_of("default", "raised/deploy/done").await?;
    assert_eq!((told.regarding.as_str(), told.node.as_str()), ("Run/default/web", "s1"));
    assert_eq!((told.message.as_str(), told.data.as_ref().and_then(|data| data.get("n"))), ("on s1", Some(&7.into())));
    assert!(told.source.starts_with("node/") && told.number == 1, "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_node_tells_only_of_itself_and_of_what_it_claimed() -> Result<()> {
    let admin = Admin::start().await?;
    let (honest, liar) = (Node::join(&admin, "a").await?, Node::join(&admin, "b").await?);
    let mut own = honest.attach("own").await?;
    admin.book("web", "targets: {nodes: [a]}\ntasks:\n  - {name: work, command.run: {argv: [/bin/true]}}").await?;
    admin.run("web").await?;
    let (attempt, work) = own.take().await?;
    let event = |number, r#type: &str, attempt: Option<&AttemptRef>| {
        let spec = EventSpec { r#type: r#type.into(), number, node: "s1".into(), ..EventSpec::default() };
        NodeEvent { spec: Some(spec), attempt: attempt.cloned(), ..NodeEvent::default() }
    };
    let mut liar = liar.attach("liar").await?;
    let forged = AttemptRef { node_uid: "somebody".into(), ..attempt.clone() };
    let events = vec![
        event(1, "run/finished", None),
        event(2, "deploy", Some(&attempt)),
        event(3, "deploy", Some(&forged)),
        event(4, "node/odd", None),
    ];
    liar.say(agent_message::Message::Events(EventsRequest { events })).await?;
    let heard = liar.hear("an answer", |message| matches!(message, server_message::Message::Events(_))).await?;
    let server_message::Message::Events(answer) = heard else { bail!("{heard:?}") };
    assert_eq!(answer.number, 4);
    let odd = admin.told_of("system", "node/odd").await?;
    assert_eq!((odd.node.as_str(), odd.regarding.as_str()), ("b", "Node/b"));
    let dropped = admin.told_of("system", "node/events-dropped").await?;
    assert_eq!(dropped.data.as_ref().and_then(|data| data.get("count")), Some(&3.into()));
    // Who has claimed it, may.
    own.say(agent_message::Message::Events(EventsRequest { events: vec![event(1, "deploy", Some(&attempt))] })).await?;
    let told = admin.told_of("default", "raised/deploy").await?;
    assert_eq!((told.node.as_str(), told.regarding.as_str()), ("a", "Run/default/web"));
    own.report(&attempt, all(&work, Outcome::Ok)).await?;
    Ok(())
}

#[tokio::test]
async fn of_facts_that_come_in_a_row_the_last_count_and_none_that_are_too_long() -> Result<()> {
    let admin = Admin::start().await?;
    let agent = Node::join(&admin, "a").await?.attach("first").await?;
    let facts = |n: i64| Value::map([("n", Value::from(n))]);
    for n in 1..=20 {
        agent.say(agent_message::Message::Facts(FactsUpdate { facts: Some(facts(n)) })).await?;
    }
    admin.until_node("a", "the last facts", |status| status.facts.as_ref() == Some(&facts(20))).await?;
    let long = Value::text("x".repeat(300 * 1024));
    agent.say(agent_message::Message::Facts(FactsUpdate { facts: Some(long) })).await?;
    agent.say(agent_message::Message::Facts(FactsUpdate { facts: Some(facts(21)) })).await?;
    admin.until_node("a", "facts that are kept", |status| status.facts.as_ref() == Some(&facts(21))).await?;
    Ok(())
}

#[tokio::test]
async fn a_nodes_standing_is_shown_while_it_works() -> Result<()> {
    let admin = Admin::start().await?;
    let mut agent = Node::join(&admin, "a").await?.attach("first").await?;
    admin.book("web", "targets: {nodes: [a]}\ntasks:\n  - {name: work, command.run: {argv: [/bin/true]}}").await?;
    admin.run("web").await?;
    let (attempt, work) = agent.take().await?;
    let status = admin.node("a").await?;
    assert_eq!(status.run, "default/web");
    let ready = &status.conditions[0];
    assert_eq!((ready.r#type.as_str(), ready.status.as_str()), ("Ready", "True"), "{ready:?}");
    agent.report(&attempt, all(&work, Outcome::Ok)).await?;
    admin.until_node("a", "no work", |status| status.run.is_empty()).await?;
    Ok(())
}

/// Heartbeats and looks at facts come and go meanwhile, a second and ten seconds apart.
#[tokio::test]
async fn an_idle_node_makes_no_store_write_and_changed_facts_one() -> Result<()> {
    let admin = Admin::start().await?;
    let config =
        "metadata: {apiVersion: v1alpha, kind: Config, name: cluster}\nspec: {heartbeat: 1s, factsInterval: 10s}";
    admin.apply(config).await?;
    let request = WatchRequest { kind: "Node".into(), ..WatchRequest::default() };
    let mut changes = admin.objects().watch(request).await?.into_inner();
    // A bookmark comes when nothing was told for ten seconds; it has the store's revision.
    let mut quiet_at = String::new();
    let quiet = async {
        while let Some(change) = changes.message().await? {
            if change.r#type() != WatchEventType::Bookmark {
                quiet_at.clear();
            } else if quiet_at == change.resource_version {
                return Ok(());
            } else {
                quiet_at = change.resource_version;
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, quiet).await.context("ten seconds without a write")??;
    let folder = admin.daemon.folder().join("root/etc/lockstep/facts.d");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("rack.json"), "{\"row\": 3}")?;
    let row = |status: &NodeStatus| status.facts.as_ref()?.get("custom")?.get("rack")?.get("row")?.as_integer();
    let news = async {
        while let Some(change) = changes.message().await? {
            if let Some(object::Kind::Node(node)) = change.object.and_then(|object| object.kind) {
                assert_eq!(node.status.as_ref().and_then(row), Some(3), "the first write is that of the facts");
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, news).await.context("the new facts")?
}
