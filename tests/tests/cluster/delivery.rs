//! Offers, claims, reports: what an agent may rely on, and what a hostile one cannot do.

use super::admin::{Admin, phase_of};
use super::agent::{Node, all};
use anyhow::Result;
use lockstep_apis::v1alpha::{Outcome, OutputChunk, OutputRequest, RunPhase, Value, agent_message, server_message};

const BOOK: &str = "targets: {selector: by=test}\ntasks:\n  - {name: work, command.run: {argv: [/bin/true]}}";

#[tokio::test]
async fn a_claim_is_given_once_and_its_answer_repeated_to_the_same_process() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut agent = node.attach("first").await?;
    admin.book("web", BOOK).await?;
    admin.run("web").await?;
    let (attempt, work) = agent.take().await?;
    assert_eq!(agent.claim(&attempt).await?.work.as_ref(), Some(&work), "the answer may have been lost");
    let answer = agent.report(&attempt, all(&work, Outcome::Changed)).await?;
    assert!(answer.stored);
    assert!(agent.report(&attempt, all(&work, Outcome::Failed)).await?.stored, "a report may come twice");
    let run = admin.ended("web").await?;
    assert_eq!(phase_of(&run), RunPhase::Succeeded, "the first report counts: {run:?}");
    assert!(agent.claim(&attempt).await?.work.is_none(), "what has ended is not given again");
    Ok(())
}

#[tokio::test]
async fn what_an_earlier_process_claimed_is_interrupted_and_not_given_again() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut first = node.attach("first").await?;
    admin.book("web", BOOK).await?;
    admin.run("web").await?;
    let (attempt, _) = first.take().await?;
    drop(first);
    let mut second = node.attach("second").await?;
    let run = admin.ended("web").await?;
    let nodes = run.status.unwrap_or_default().nodes.unwrap_or_default();
    assert_eq!(nodes.interrupted, 1, "{nodes:?}");
    assert!(second.claim(&attempt).await?.work.is_none());
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_is_held_goes_on_over_a_new_stream() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut agent = node.attach("first").await?;
    admin.book("web", BOOK).await?;
    admin.run("web").await?;
    let (attempt, work) = agent.take().await?;
    let mut again = node.attach_holding("second", vec![attempt.clone()]).await?;
    agent.hear_the_end().await?;
    assert!(again.report(&attempt, all(&work, Outcome::Ok)).await?.stored);
    assert_eq!(phase_of(&admin.ended("web").await?), RunPhase::Succeeded);
    Ok(())
}

#[tokio::test]
async fn a_node_gets_and_reports_nothing_that_is_anothers() -> Result<()> {
    let admin = Admin::start().await?;
    let (honest, thief) = (Node::join(&admin, "a").await?, Node::join(&admin, "b").await?);
    let mut own = honest.attach("own").await?;
    admin.book("web", &BOOK.replace("selector: by=test", "nodes: [a]")).await?;
    admin.run("web").await?;
    let (attempt, work) = own.take().await?;
    let thief = thief.attach("thief").await?;
    for message in [
        agent_message::Message::Claim(lockstep_apis::v1alpha::ClaimRequest { attempt: Some(attempt.clone()) }),
        agent_message::Message::Report(lockstep_apis::v1alpha::ReportRequest {
            attempt: Some(attempt.clone()),
            report: Some(all(&work, Outcome::Failed)),
        }),
        agent_message::Message::Output(OutputRequest {
            attempt: Some(attempt.clone()),
            number: 1,
            chunks: vec![OutputChunk { data: b"forged".to_vec(), ..OutputChunk::default() }],
            last: true,
        }),
    ] {
        thief.say(message).await?;
    }
    assert!(own.report(&attempt, all(&work, Outcome::Ok)).await?.stored);
    assert_eq!(phase_of(&admin.ended("web").await?), RunPhase::Succeeded);
    assert_eq!(admin.output("web", false).await?, "");
    Ok(())
}

#[tokio::test]
async fn a_paused_run_gives_nothing_and_offers_again_when_it_goes_on() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut agent = node.attach("first").await?;
    admin.book("web", BOOK).await?;
    admin.run("web").await?;
    let attempt = agent.offer().await?;
    admin.runs().pause(Admin::request("web")).await?;
    let refused = agent.claim(&attempt).await?;
    assert!(refused.work.is_none() && refused.refused.contains("paused"), "{refused:?}");
    admin.runs().resume(Admin::request("web")).await?;
    let (_, work) = agent.take().await?;
    assert!(agent.report(&attempt, all(&work, Outcome::Ok)).await?.stored);
    assert_eq!(phase_of(&admin.ended("web").await?), RunPhase::Succeeded);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_run_tells_the_node_to_stop_and_ends_with_its_report() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut agent = node.attach("first").await?;
    admin.book("web", BOOK).await?;
    admin.run("web").await?;
    let (attempt, work) = agent.take().await?;
    admin.runs().cancel(Admin::request("web")).await?;
    let heard = agent.hear("a cancel", |message| matches!(message, server_message::Message::Cancel(_))).await?;
    let server_message::Message::Cancel(cancel) = heard else { anyhow::bail!("{heard:?}") };
    assert_eq!(cancel.attempt.as_ref(), Some(&attempt));
    assert!(cancel.grace_ms > 0);
    let again = admin.runs().cancel(Admin::request("web")).await;
    assert_eq!(again.map(|_| ()).map_err(|status| status.code()), Err(tonic::Code::FailedPrecondition));
    admin.phase("web", &[RunPhase::Cancelling]).await?;
    agent.report(&attempt, all(&work, Outcome::Cancelled)).await?;
    assert_eq!(phase_of(&admin.ended("web").await?), RunPhase::Cancelled);
    Ok(())
}

#[tokio::test]
async fn a_secret_result_is_never_in_the_store_and_reaches_only_who_reads_it() -> Result<()> {
    const CANARY: &str = "canary-5f0c2a7e";
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut agent = node.attach("first").await?;
    let tasks = "targets: {selector: by=test}\ntasks:\n  - {name: token, runOnce: true, command.query: {argv: [/bin/true]}, register: {secret: true}}\n  - name: use\n    file.managed: {path: /etc/x, template: \"{{shared.token.stdout}}\"}";
    admin.book("web", tasks).await?;
    admin.run("web").await?;
    let (attempt, work) = agent.take().await?;
    let mut report = all(&work, Outcome::Ok);
    report.tasks[0].result = Some(Value::map([("stdout", Value::text(CANARY))]));
    assert!(agent.report(&attempt, report).await?.stored);
    let (attempt, work) = agent.take().await?;
    assert_eq!(work.secret_shared, ["token"]);
    let token = work.shared.get("token").and_then(|token| token.get("stdout")).and_then(Value::as_text);
    assert_eq!(token, Some(CANARY));
    assert!(agent.report(&attempt, all(&work, Outcome::Ok)).await?.stored);
    admin.ended("web").await?;
    let file = std::fs::read(admin.daemon.folder().join("state/store.redb"))?;
    assert!(!file.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()), "the secret is in the store's file");
    Ok(())
}

#[tokio::test]
async fn output_is_kept_once_and_followed_to_the_end() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut agent = node.attach("first").await?;
    admin.book("web", BOOK).await?;
    admin.run("web").await?;
    let (attempt, work) = agent.take().await?;
    let chunk = |text: &str| OutputChunk { data: text.as_bytes().to_vec(), ..OutputChunk::default() };
    for _ in 0..2 {
        let chunks = vec![chunk("one "), chunk("two")];
        let request = OutputRequest { attempt: Some(attempt.clone()), number: 1, chunks, last: true };
        agent.say(agent_message::Message::Output(request)).await?;
        let heard = agent.hear("an answer", |message| matches!(message, server_message::Message::Output(_))).await?;
        let server_message::Message::Output(answer) = heard else { anyhow::bail!("{heard:?}") };
        assert_eq!(answer.number, 2);
    }
    let (followed, reported) = tokio::join!(admin.output("web", true), agent.report(&attempt, all(&work, Outcome::Ok)));
    assert!(reported?.stored);
    assert_eq!(followed?, "one two");
    Ok(())
}
