//! Rollouts over the real protocol: who is given work for whom, gates that a real agent passes, choices that are kept.

use super::admin::{Admin, phase_of};
use super::agent::{Node, all};
use anyhow::{Context, Result};
use lockstep_apis::v1alpha::{AttemptRef, ClaimRequest, Outcome, PlanRequest, RunPhase, RunSpec, Value, agent_message};

const DRAINED: &str = r#"targets: {nodes: [a]}
tasks:
  - {name: other, command.run: {argv: [/bin/true]}}
  - {name: token, command.run: {argv: [/bin/true]}, register: {secret: true}}
  - name: drain
    delegateTo: {nodes: [lb]}
    command.run: {argv: [drain, "${{ node.name }}"], stdin: "${{ results.token.stdout }}"}
  - {name: read, command.run: {argv: [/bin/true]}, when: results.other.changed}
"#;

#[tokio::test]
async fn a_delegate_is_given_what_its_task_reads_and_nobody_else_is_given_anything() -> Result<()> {
    let admin = Admin::start().await?;
    let (web, balancer, thief) =
        (Node::join(&admin, "a").await?, Node::join(&admin, "lb").await?, Node::join(&admin, "x").await?);
    let (mut own, mut delegate, mut stranger) =
        (web.attach("own").await?, balancer.attach("delegate").await?, thief.attach("thief").await?);
    admin.book("web", DRAINED).await?;
    admin.run("web").await?;

    let (attempt, work) = own.take().await?;
    let mut report = all(&work, Outcome::Changed);
    for task in &mut report.tasks {
        task.result = Some(Value::map([("stdout", Value::text("tok-4711"))]));
    }
    assert!(own.report(&attempt, report).await?.stored);

    let attempt = delegate.offer().await?;
    assert_eq!((attempt.for_uid.as_str(), attempt.node_uid.as_str()), (web.uid.as_str(), balancer.uid.as_str()));
    // With its own uid in the key, which is all that a certificate vouches for.
    let forged = AttemptRef { node_uid: thief.uid.clone(), ..attempt.clone() };
    stranger.say(agent_message::Message::Claim(ClaimRequest { attempt: Some(forged.clone()) })).await?;
    assert!(stranger.claim(&forged).await?.work.is_none(), "it learns nothing of the work of others");

    let work = delegate.claim(&attempt).await?.work.context("the delegate is given it")?;
    assert_eq!((work.node_name.as_str(), work.delegate.as_ref().map(|node| node.name.as_str())), ("a", Some("lb")));
    assert_eq!(work.results.keys().collect::<Vec<_>>(), ["token"], "and not `other`, which it does not read");
    assert_eq!(work.secret_results, ["token"]);
    assert!(stranger.claim(&forged).await?.work.is_none(), "nor once it is claimed");
    assert!(delegate.report(&attempt, all(&work, Outcome::Ok)).await?.stored);

    let (attempt, work) = own.take().await?;
    assert!(own.report(&attempt, all(&work, Outcome::Ok)).await?.stored);
    let run = admin.ended("web").await?;
    assert_eq!(phase_of(&run), RunPhase::Succeeded, "{run:?}");
    Ok(())
}

#[tokio::test]
async fn a_real_agent_waits_at_the_gate_and_says_how_often_it_was_shut() -> Result<()> {
    let admin = Admin::start().await?;
    let folder = tempfile::tempdir()?;
    let flag = folder.path().join("ready").display().to_string();
    let book = format!(
        "targets: {{nodes: [s1]}}\nrunOptions:\n  serialize:\n    count: 1\n    gate:\n      check:\n        - {{id: up, \
         command.query: {{shell: \"test -e {flag} || {{ touch {flag}; exit 1; }}\"}}}}\n      retry: {{interval: 1ms, \
         limit: 5}}\ntasks: [{{name: work, delegateTo: {{nodes: [s1]}}, command.run: {{argv: [/bin/true]}}}}]"
    );
    admin.book("web", &book).await?;
    admin.run("web").await?;
    let run = admin.ended("web").await?;
    assert_eq!(phase_of(&run), RunPhase::Succeeded, "{run:?}");
    let output = admin.output("web", true).await?;
    assert!(output.contains("gate: 1 of 5: up: ") && output.ends_with("gate: open\n"), "{output}");
    Ok(())
}

#[tokio::test]
async fn a_sticky_pick_stays_though_its_order_changes() -> Result<()> {
    let admin = Admin::start().await?;
    let (first, second) = (Node::join(&admin, "a").await?, Node::join(&admin, "b").await?);
    let mut agent = second.attach("own").await?;
    let book = |order: &str| {
        format!(
            "targets: {{selector: by=test, limit: 1, pick: {{sticky: founder, orderBy: {order}}}}}\ntasks: [{{name: init, \
             command.run: {{argv: [/bin/true]}}}}]"
        )
    };
    admin.book("web", &book("node.name != 'b'")).await?;
    admin.run("web").await?;
    let (attempt, work) = agent.take().await?;
    assert_eq!(work.node_uid, second.uid);
    assert!(agent.report(&attempt, all(&work, Outcome::Ok)).await?.stored);
    assert_eq!(phase_of(&admin.ended("web").await?), RunPhase::Succeeded);

    admin.book("web", &book("node.name != 'a'")).await?;
    let spec = RunSpec { task_books: vec!["web".into()], ..RunSpec::default() };
    let plan = admin.runs().plan(PlanRequest { namespace: "default".into(), spec: Some(spec) }).await?.into_inner();
    let nodes = plan.snapshot.unwrap_or_default().nodes;
    assert_eq!(nodes.iter().map(|node| node.uid.as_str()).collect::<Vec<_>>(), [second.uid.as_str()]);
    assert_ne!(first.uid, second.uid);
    Ok(())
}
