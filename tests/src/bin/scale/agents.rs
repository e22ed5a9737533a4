//! Agents that do nothing but speak the protocol: claim what is offered, report it done.

use super::cluster::Joined;
use anyhow::{Context, Result, bail};
use lockstep_apis::v1alpha::{
    AgentMessage, ClaimRequest, Heartbeat, Hello, Outcome, Report, ReportRequest, ServerMessage, TaskReport, Work,
    agent_message, server_message,
};
use lockstep_grpc::{agents_client::AgentsClient, channel};
use std::time::{Duration, Instant};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

/// Connections that are made at once.
const DIALS: usize = 32;
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A report that the server has stored.
pub(crate) struct Stored {
    pub(crate) at: Instant,
}

pub(crate) struct Agents {
    count: usize,
    tasks: JoinSet<Result<()>>,
    sender: mpsc::UnboundedSender<Stored>,
    stored: mpsc::UnboundedReceiver<Stored>,
}

impl Agents {
    pub(crate) fn new() -> Agents {
        let (sender, stored) = mpsc::unbounded_channel();
        Agents { count: 0, tasks: JoinSet::new(), sender, stored }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Connects them, some at a time.
    pub(crate) async fn connect(&mut self, joined: Vec<Joined>, address: &str) -> Result<()> {
        let mut dials = JoinSet::new();
        for one in joined {
            if dials.len() == DIALS {
                self.attached(dials.join_next().await.context("a dial")??)?;
            }
            let (address, sender) = (address.to_owned(), self.sender.clone());
            dials.spawn(async move { attach(one, address, sender).await });
        }
        while let Some(done) = dials.join_next().await {
            self.attached(done?)?;
        }
        Ok(())
    }

    fn attached(&mut self, agent: Result<Agent>) -> Result<()> {
        self.tasks.spawn(agent?.serve());
        self.count += 1;
        Ok(())
    }

    /// Drops what earlier runs left.
    pub(crate) fn forget(&mut self) {
        while self.stored.try_recv().is_ok() {}
    }

    /// Waits for so many stored reports.
    pub(crate) async fn wait_for(&mut self, count: usize, limit: Duration) -> Result<Vec<Stored>> {
        let mut found = Vec::with_capacity(count);
        let end = tokio::time::Instant::now() + limit;
        while found.len() < count {
            tokio::select! {
                one = self.stored.recv() => found.push(one.context("agents are there")?),
                Some(ended) = self.tasks.join_next() => bail!("an agent ended: {:?}", ended?),
                () = tokio::time::sleep_until(end) => bail!("{} of {count} reports after {limit:?}", found.len()),
            }
        }
        Ok(found)
    }
}

struct Agent {
    to_server: mpsc::Sender<AgentMessage>,
    from_server: tonic::Streaming<ServerMessage>,
    sender: mpsc::UnboundedSender<Stored>,
}

async fn attach(joined: Joined, address: String, sender: mpsc::UnboundedSender<Stored>) -> Result<Agent> {
    let channel = channel::connect(&[address], &joined.identity).await?;
    let (to_server, messages) = mpsc::channel(16);
    let hello = Hello {
        version: "scale".into(),
        boot_id: joined.uid.clone(),
        instance: joined.uid,
        cluster_id: joined.cluster_id,
        ..Hello::default()
    };
    to_server.send(message(agent_message::Message::Hello(hello))).await?;
    let from_server = AgentsClient::new(channel).attach(ReceiverStream::new(messages)).await?.into_inner();
    Ok(Agent { to_server, from_server, sender })
}

impl Agent {
    async fn serve(mut self) -> Result<()> {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.tick().await;
        loop {
            tokio::select! {
                _ = beat.tick() => self.send(agent_message::Message::Heartbeat(Heartbeat::default())).await?,
                next = self.from_server.message() => match next?.and_then(|m| m.message) {
                    Some(server_message::Message::Offer(offer)) => {
                        self.send(agent_message::Message::Claim(ClaimRequest { attempt: offer.attempt })).await?;
                    }
                    Some(server_message::Message::Claim(answer)) => match answer.work {
                        Some(work) => {
                            let report = Some(report(&work));
                            let attempt = answer.attempt;
                            self.send(agent_message::Message::Report(ReportRequest { attempt, report })).await?;
                        }
                        None if answer.again => {
                            let attempt = answer.attempt;
                            self.send(agent_message::Message::Claim(ClaimRequest { attempt })).await?;
                        }
                        None => {}
                    },
                    Some(server_message::Message::Report(answer)) if answer.stored => {
                        let _ = self.sender.send(Stored { at: Instant::now() });
                    }
                    Some(_) => {}
                    None => bail!("the server closed the stream"),
                },
            }
        }
    }

    async fn send(&self, one: agent_message::Message) -> Result<()> {
        self.to_server.send(message(one)).await.context("the stream is open")
    }
}

fn message(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}

fn report(work: &Work) -> Report {
    let tasks = work
        .tasks
        .iter()
        .map(|task| TaskReport {
            task: task.index,
            outcome: Outcome::Ok.into(),
            started_ms: 1,
            duration_us: 1,
            ..TaskReport::default()
        })
        .collect();
    Report { tasks, started_ms: 1, finished_ms: 2, ..Report::default() }
}
