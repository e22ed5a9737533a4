//! An agent that does what a test says: the real protocol with a real certificate, and nothing behind it.

use super::admin::{Admin, within};
use anyhow::{Context, Result, bail};
use lockstep_apis::v1alpha::{
    AgentMessage, AttemptRef, ClaimAnswer, ClaimRequest, CreateTokenRequest, Hello, JoinRequest, Outcome, Report,
    ReportAnswer, ReportRequest, ServerMessage, TaskReport, Work, agent_message, server_message,
};
use lockstep_daemon::identity::credentials::FreshKey;
use lockstep_daemon::identity::{Authority, tokens};
use lockstep_grpc::agents_client::AgentsClient;
use lockstep_grpc::channel::{self, ClientIdentity};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// A node that has joined.
pub(crate) struct Node {
    pub(crate) uid: String,
    pub(crate) identity: ClientIdentity,
    address: String,
}

impl Node {
    /// Joins as `lockstepd join` does, with the label `by=test`.
    pub(crate) async fn join(admin: &Admin, name: &str) -> Result<Node> {
        let labels = [("by".to_owned(), "test".to_owned())].into();
        let request = CreateTokenRequest { node_name: name.into(), labels, ..CreateTokenRequest::default() };
        let text = admin.cluster().create_token(request).await?.into_inner().token;
        let token = tokens::parse(&text)?;
        let key = FreshKey::generate()?;
        let request = JoinRequest {
            token_id: token.id.clone(),
            token_secret: token.secret.to_vec(),
            node_name: name.into(),
            csr: key.request().to_vec(),
            ..JoinRequest::default()
        };
        let address = admin.daemon.address().to_owned();
        let pinned = channel::connect_pinned(&address, token.pin).await?;
        let answer = AgentsClient::new(pinned.channel).join(request).await?.into_inner();
        let authority = Arc::new(Authority::from_der(answer.ca_certificate.into())?);
        let identity = key.certified(answer.certificate_chain, authority)?.client()?;
        Ok(Node { uid: answer.node_uid, identity, address })
    }

    pub(crate) async fn channel(&self) -> Result<Channel> {
        Ok(channel::connect(std::slice::from_ref(&self.address), &self.identity).await?)
    }

    /// Attaches as a process of this name that holds nothing.
    pub(crate) async fn attach(&self, instance: &str) -> Result<Agent> {
        self.attach_holding(instance, Vec::new()).await
    }

    pub(crate) async fn attach_holding(&self, instance: &str, holding: Vec<AttemptRef>) -> Result<Agent> {
        let (to_server, messages) = mpsc::channel(16);
        let hello = Hello {
            version: "test".into(),
            boot_id: "boot".into(),
            instance: instance.into(),
            holding,
            ..Hello::default()
        };
        to_server.send(envelope(agent_message::Message::Hello(hello))).await?;
        let channel = self.channel().await?;
        let from_server = AgentsClient::new(channel).attach(ReceiverStream::new(messages)).await?.into_inner();
        let mut agent = Agent { to_server, from_server, kept: Vec::new() };
        agent.hear("a welcome", |message| matches!(message, server_message::Message::Welcome(_))).await?;
        Ok(agent)
    }
}

pub(crate) struct Agent {
    to_server: mpsc::Sender<AgentMessage>,
    from_server: Streaming<ServerMessage>,
    /// Heard, and not what was waited for.
    kept: Vec<server_message::Message>,
}

impl Agent {
    pub(crate) async fn say(&self, message: agent_message::Message) -> Result<()> {
        self.to_server.send(envelope(message)).await.context("the stream is open")
    }

    /// The next message of a kind; others are kept for later.
    pub(crate) async fn hear(
        &mut self,
        what: &str,
        is: impl Fn(&server_message::Message) -> bool,
    ) -> Result<server_message::Message> {
        if let Some(at) = self.kept.iter().position(&is) {
            return Ok(self.kept.remove(at));
        }
        within(what, async {
            loop {
                match self.from_server.message().await?.and_then(|message| message.message) {
                    Some(message) if is(&message) => return Ok(message),
                    Some(message) => self.kept.push(message),
                    None => bail!("the server ended the stream"),
                }
            }
        })
        .await
    }

    /// The end of the stream, however it comes.
    pub(crate) async fn hear_the_end(&mut self) -> Result<()> {
        within("the end of the stream", async {
            while let Ok(Some(_)) = self.from_server.message().await {}
            Ok(())
        })
        .await
    }

    pub(crate) async fn offer(&mut self) -> Result<AttemptRef> {
        match self.hear("an offer", |message| matches!(message, server_message::Message::Offer(_))).await? {
            server_message::Message::Offer(offer) => offer.attempt.context("an attempt"),
            other => bail!("{other:?}"),
        }
    }

    /// Asks for an attempt until the answer is final.
    pub(crate) async fn claim(&mut self, attempt: &AttemptRef) -> Result<ClaimAnswer> {
        loop {
            self.say(agent_message::Message::Claim(ClaimRequest { attempt: Some(attempt.clone()) })).await?;
            let heard = self.hear("a claim's answer", |m| matches!(m, server_message::Message::Claim(_))).await?;
            let server_message::Message::Claim(answer) = heard else { bail!("{heard:?}") };
            if !answer.again {
                return Ok(answer);
            }
        }
    }

    /// Takes the next offer.
    pub(crate) async fn take(&mut self) -> Result<(AttemptRef, Work)> {
        let attempt = self.offer().await?;
        let answer = self.claim(&attempt).await?;
        let work = answer.work.with_context(|| format!("refused: {}", answer.refused))?;
        Ok((attempt, work))
    }

    pub(crate) async fn report(&mut self, attempt: &AttemptRef, report: Report) -> Result<ReportAnswer> {
        let request = ReportRequest { attempt: Some(attempt.clone()), report: Some(report) };
        self.say(agent_message::Message::Report(request)).await?;
        let heard = self.hear("a report's answer", |m| matches!(m, server_message::Message::Report(_))).await?;
        let server_message::Message::Report(answer) = heard else { bail!("{heard:?}") };
        Ok(answer)
    }
}

/// Every task of the work ended so.
pub(crate) fn all(work: &Work, outcome: Outcome) -> Report {
    let task = |task: &lockstep_apis::v1alpha::CompiledTask| TaskReport {
        task: task.index,
        outcome: outcome.into(),
        started_ms: 1,
        ..TaskReport::default()
    };
    Report { tasks: work.tasks.iter().map(task).collect(), started_ms: 1, finished_ms: 2, ..Report::default() }
}

fn envelope(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}
