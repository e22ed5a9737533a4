//! One agent's stream: its queue, what it was sent, and the task that reads it. Knows messages; what they lead to is
//! beside it.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use lockstep_apis::commit::{LeaseId, Revision};
use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{
    AgentMessage, AttemptRef, FactsUpdate, Hello, OutputAnswer, OutputRequest, ServerMessage, agent_message,
    server_message,
};
use lockstep_core::protocol;
use tokio::sync::{Notify, mpsc};
use tonic::{Status, Streaming};

use super::facts::News;
use super::{Delivery, envelope};
use crate::clock::now_ms;
use crate::identity::PeerIdentity;
use crate::logs::Written;
use crate::status::{Answer, Problem};

/// Messages that wait for an agent to read. It has one Run at a time, and few answers outstanding.
const QUEUE: usize = 128;

/// Requests of one agent that are worked on at once; more is not what our agent does.
const MAX_UNDER_WAY: usize = 64;

/// For the first word.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Offers and cancels that were sent.
#[derive(Default)]
struct Sent {
    offers: BTreeSet<Attempt>,
    cancels: BTreeSet<Attempt>,
}

/// An attached agent.
pub(super) struct Session {
    /// Uid of the node.
    pub(super) node: String,
    /// Its name.
    pub(super) name: String,
    /// The agent process.
    pub(super) instance: String,
    /// Of the machine's present boot.
    pub(super) boot_id: String,
    /// And that boot's number.
    pub(super) boot_number: u64,
    /// When it was attached.
    pub(super) since_ms: u64,
    /// The same by the clock of the machine's boot.
    pub(super) attached_boot_ms: u64,
    /// The lease under which its record was written, and at which revision.
    pub(super) recorded: Mutex<Option<(LeaseId, Revision)>>,
    /// What it said that it holds, and was given since.
    pub(super) holding: Mutex<BTreeSet<Attempt>>,
    /// Facts that are to be written, and who writes them.
    pub(super) facts: News,
    /// One batch of the node's Events at a time; when the last one was stored.
    pub(super) telling: tokio::sync::Mutex<Option<tokio::time::Instant>>,
    sender: mpsc::Sender<Box<ServerMessage>>,
    sent: Mutex<Sent>,
    heard_ms: AtomicU64,
    under_way: AtomicUsize,
    ending: Mutex<Option<String>>,
    over: Notify,
}

impl Session {
    /// Queues a message. A full queue ends the session: the agent does not read.
    pub(super) fn send(&self, message: server_message::Message) {
        match self.sender.try_send(Box::new(envelope(message))) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.close("the agent does not read"),
        }
    }

    /// Ends it, for a reason.
    pub(super) fn close(&self, reason: &str) {
        locked(&self.ending).get_or_insert_with(|| reason.to_owned());
        self.over.notify_one();
    }

    /// How long nothing was heard.
    pub(super) fn silence_ms(&self) -> u64 {
        now_ms().saturating_sub(self.heard_ms.load(Ordering::Relaxed))
    }

    /// What of these was not sent yet; from now on it was. What is gone from them may be sent again when it is back.
    pub(super) fn news(&self, offers: &[Attempt], cancels: &[(Attempt, u64)]) -> Vec<Attempt> {
        let mut sent = locked(&self.sent);
        sent.offers.retain(|attempt| offers.contains(attempt));
        sent.cancels.retain(|attempt| cancels.iter().any(|(cancelled, _)| cancelled == attempt));
        let mut news: Vec<Attempt> =
            offers.iter().filter(|attempt| sent.offers.insert((*attempt).clone())).cloned().collect();
        news.extend(cancels.iter().map(|(attempt, _)| attempt).filter(|a| sent.cancels.insert((*a).clone())).cloned());
        news
    }

    /// An offer was refused: it may be made again.
    pub(super) fn forget_offer(&self, attempt: &Attempt) {
        locked(&self.sent).offers.remove(attempt);
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the agent reads.
pub struct Stream(mpsc::Receiver<Box<ServerMessage>>);

impl futures::Stream for Stream {
    type Item = Result<ServerMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(*message)))
    }
}

/// Takes an agent's stream. The first message must be its Hello. Errors: it is not, or of another cluster.
pub async fn attach(
    delivery: &Arc<Delivery>,
    peer: &PeerIdentity,
    mut incoming: Streaming<AgentMessage>,
) -> Answer<Stream> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
    let first = first.map_err(|_| Problem::Invalid("no Hello in time".into()))?;
    let first = first.map_err(|status| Problem::Invalid(status.message().to_owned()))?;
    let Some(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }) = first else {
        return Err(Problem::Invalid("the first message must be a Hello".into()));
    };
    delivery.check_hello(&hello)?;
    let name = delivery.parts.cache.read().node(&peer.uid).and_then(|node| Some(node.metadata.as_ref()?.name.clone()));
    let name = name.ok_or_else(|| Problem::Unauthenticated("this node was deleted".into()))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let session = Arc::new(Session {
        node: peer.uid.clone(),
        name,
        instance: hello.instance.clone(),
        boot_id: hello.boot_id.clone(),
        boot_number: hello.boot_number,
        since_ms: now_ms(),
        attached_boot_ms: hello.boot_ms,
        recorded: Mutex::default(),
        holding: Mutex::new(hello.holding.iter().map(Attempt::from).collect()),
        facts: News::default(),
        telling: tokio::sync::Mutex::default(),
        sender,
        sent: Mutex::default(),
        heard_ms: AtomicU64::new(now_ms()),
        under_way: AtomicUsize::new(0),
        ending: Mutex::default(),
        over: Notify::new(),
    });
    tokio::spawn(serve(delivery.clone(), session, hello, incoming));
    Ok(Stream(receiver))
}

/// One session from greeting to end.
async fn serve(delivery: Arc<Delivery>, session: Arc<Session>, hello: Hello, incoming: Streaming<AgentMessage>) {
    {
        let mut sessions = delivery.sessions();
        let is_later =
            |current: &Session| protocol::is_later(&delivery.record_of(current), &delivery.record_of(&session));
        if sessions.get(&session.node).is_some_and(|current| is_later(current)) {
            tracing::debug!(node = session.name, "a Hello came late: the node has attached anew since");
            return;
        }
        if let Some(before) = sessions.insert(session.node.clone(), session.clone()) {
            before.close("the agent attached anew");
        }
    }
    // Its own future: what greeting needs is not kept for the session's life.
    Box::pin(delivery.greet(&session, hello)).await;
    delivery.push(&session);
    let reason = read(&delivery, &session, incoming).await;
    {
        let mut sessions = delivery.sessions();
        if sessions.get(&session.node).is_some_and(|current| Arc::ptr_eq(current, &session)) {
            sessions.remove(&session.node);
        }
    }
    tracing::debug!(node = session.name, reason, "a session is over");
    delivery.farewell(&session, &reason).await;
}

/// Reads until the end; returns why it came.
async fn read(delivery: &Arc<Delivery>, session: &Arc<Session>, mut incoming: Streaming<AgentMessage>) -> String {
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = session.over.notified() => {
                return locked(&session.ending).clone().unwrap_or_default();
            }
            () = session.sender.closed() => return "the agent closed the stream".into(),
        };
        let message = match message {
            Ok(Some(AgentMessage { message })) => message,
            Ok(None) => return "the agent ended the stream".into(),
            Err(status) => return status.message().to_owned(),
        };
        session.heard_ms.store(now_ms(), Ordering::Relaxed);
        match message {
            None => {}
            Some(agent_message::Message::Heartbeat(heartbeat)) => delivery.acknowledge(session, heartbeat.number),
            Some(agent_message::Message::Hello(_)) => return "a second Hello".into(),
            // In order: the numbers of one attempt follow each other.
            Some(agent_message::Message::Output(output)) => delivery.keep_output(session, output).await,
            Some(message) => {
                // The last that came counts, in whatever order they are worked on.
                let message = match message {
                    agent_message::Message::Facts(update) => {
                        session.facts.put(update.facts);
                        agent_message::Message::Facts(FactsUpdate::default())
                    }
                    message => message,
                };
                if session.under_way.fetch_add(1, Ordering::Relaxed) >= MAX_UNDER_WAY {
                    return "too many requests at once".into();
                }
                let (delivery, session) = (delivery.clone(), session.clone());
                tokio::spawn(async move {
                    delivery.hear(&session, message).await;
                    session.under_way.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
}

impl Delivery {
    async fn hear(&self, session: &Session, message: agent_message::Message) {
        match message {
            agent_message::Message::Claim(claim) => {
                if let Some(attempt) = own(session, claim.attempt) {
                    self.claim(session, attempt).await;
                }
            }
            agent_message::Message::Report(request) => {
                if let (Some(attempt), Some(report)) = (own(session, request.attempt), request.report) {
                    self.report(session, attempt, report).await;
                }
            }
            agent_message::Message::Facts(_) => self.write_facts(session).await,
            agent_message::Message::Events(request) => self.keep_events(session, request.events).await,
            agent_message::Message::Hello(_)
            | agent_message::Message::Output(_)
            | agent_message::Message::Heartbeat(_) => {}
        }
    }

    async fn keep_output(self: &Arc<Self>, session: &Arc<Session>, output: OutputRequest) {
        let Some(attempt) = own(session, output.attempt.clone()) else { return };
        // Only of what it has claimed: a node cannot fill our disk with Runs that it makes up.
        let claimed = || self.parts.cache.read().world().attempt(&attempt).is_some_and(|state| state.claim.is_some());
        if !claimed() {
            if self.parts.cache.catch_up(&*self.parts.store).await.is_err() {
                return;
            }
            if !claimed() {
                // Gone with its Run: nobody will ask for it, so the agent may forget it.
                let number = (output.number + output.chunks.len() as u64).saturating_sub(1);
                let answer = OutputAnswer { attempt: Some((&attempt).into()), number };
                return session.send(server_message::Message::Output(answer));
            }
        }
        let logs = self.parts.logs.clone();
        let written = tokio::task::spawn_blocking(move || logs.append(&attempt, &output).map(|kept| (attempt, kept)));
        match written.await.map_err(std::io::Error::other).flatten() {
            // What else the agent says does not wait for the disk.
            Ok((attempt, written)) => {
                let (delivery, session) = (self.clone(), session.clone());
                session.under_way.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    delivery.sync_output(&session, &attempt, written).await;
                    session.under_way.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(problem) => tracing::error!(node = session.name, %problem, "output was not kept"),
        }
    }

    /// Tells the agent what is on the disk: then it forgets its own copy.
    async fn sync_output(&self, session: &Session, attempt: &Attempt, written: Written) {
        match self.parts.logs.sync(written).await {
            Ok(number) => {
                let answer = OutputAnswer { attempt: Some(attempt.into()), number };
                session.send(server_message::Message::Output(answer));
            }
            Err(problem) => tracing::error!(node = session.name, %problem, "output is not on the disk"),
        }
    }
}

/// The attempt, if it is this node's: what it says of others is not listened to.
fn own(session: &Session, attempt: Option<AttemptRef>) -> Option<Attempt> {
    let attempt = Attempt::from(&attempt?);
    if attempt.node == session.node {
        return Some(attempt);
    }
    tracing::warn!(node = session.name, claimed = attempt.node, "a node spoke of an attempt that is not its own");
    None
}
