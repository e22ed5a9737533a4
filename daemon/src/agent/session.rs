//! One stream to one server: greets, claims what is offered, and passes on what is said to each segment. Knows the
//! messages; what they lead to on this machine is in `segment`.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use lockstep_apis::duration;
use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{
    AgentMessage, AttemptRef, ClaimAnswer, ClaimRequest, EventsRequest, FactsUpdate, Heartbeat, Hello, ServerMessage,
    Settings, Welcome, agent_message::Message, server_message,
};
use lockstep_grpc::agents_client::AgentsClient;
use lockstep_grpc::peer::is_uid;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::holdings::Holdings;
use super::posting::Posting;
use super::segment::Word;
use super::{Agent, now_ms, renewal};
use crate::clock::boot_ms;

/// Where segments send; `None` between sessions.
pub(super) type Link = Option<mpsc::Sender<AgentMessage>>;

/// Messages that wait for the connection; more make the senders wait.
const OUTBOX: usize = 64;

/// Largest message of a server: the work of a segment with all it reads.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// For the server's first word.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Before a claim is asked again whose outcome the server did not know.
const AGAIN: Duration = Duration::from_millis(100);

/// Heartbeats that may be open at once.
const MAX_HEARTBEATS: usize = 64;

/// So that one that is lost, and a new connection, do not cost the work.
const HEARTBEATS_IN_A_FENCE: u32 = 6;

/// If the server does not say.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often it is checked, against the wall clock, whether the certificate is to be renewed.
const RENEWAL_LOOK: Duration = Duration::from_secs(300);

/// How a session ended.
pub(super) enum End {
    /// We have a new certificate: connect with it at once.
    Renewed,
    /// The connection broke, was refused, or never was.
    Lost {
        /// How long it was good.
        lasted: Duration,
    },
}

/// Serves one session to its end.
pub(super) async fn serve(agent: &mut Agent, channel: Channel, address: &str) -> End {
    let begun = Instant::now();
    let problem = match open(agent, channel.clone(), address).await {
        Ok(mut session) => match session.run(agent, channel).await {
            Ok(()) => return End::Renewed,
            Err(problem) => problem,
        },
        Err(problem) => problem,
    };
    tracing::info!(%address, %problem, "the session with the server is over");
    End::Lost { lasted: begun.elapsed() }
}

struct Session {
    outbox: mpsc::Sender<AgentMessage>,
    incoming: Streaming<ServerMessage>,
    heartbeat: Duration,
    sent: Heartbeats,
    posting: Posting,
}

/// Heartbeats that were sent and not acknowledged, with when by the clock of this boot.
#[derive(Default)]
struct Heartbeats {
    last: u64,
    open: VecDeque<(u64, u64)>,
}

impl Heartbeats {
    /// One is sent now. Returns its number.
    fn send(&mut self) -> u64 {
        self.last += 1;
        self.open.push_back((self.last, boot_ms()));
        // A server that acknowledges none of so many does not begin to.
        if self.open.len() > MAX_HEARTBEATS {
            self.open.pop_front();
        }
        self.last
    }

    /// When the one was sent that is acknowledged; those before it are settled, too.
    fn acknowledge(&mut self, number: u64) -> Option<u64> {
        let at = self.open.iter().position(|(open, _)| *open == number)?;
        self.open.drain(..=at).next_back().map(|(_, sent_ms)| sent_ms)
    }
}

/// Greets and waits to be welcome. From then on segments have a link.
async fn open(agent: &mut Agent, channel: Channel, address: &str) -> Result<Session, String> {
    let (outbox, outgoing) = mpsc::channel(OUTBOX);
    let hello = hello(agent, address).await;
    outbox.try_send(envelope(Message::Hello(hello))).expect("invariant: a new channel has room");
    let mut client = AgentsClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let attach = client.attach(ReceiverStream::new(outgoing));
    let refused = |status: tonic::Status| status.message().to_owned();
    let opening = async {
        let mut incoming = attach.await.map_err(refused)?.into_inner();
        let first = incoming.message().await.map_err(refused)?;
        Ok::<_, String>((incoming, first))
    };
    let (incoming, first) = timeout(WELCOME_TIMEOUT, opening).await.map_err(|_| "no welcome in time".to_owned())??;
    let Some(ServerMessage { message: Some(server_message::Message::Welcome(welcome)) }) = first else {
        return Err("the server's first word is not a welcome".into());
    };
    let heartbeat = greet_back(agent, &welcome)?;
    tracing::info!(%address, server = welcome.server_uid, "attached to a server");
    agent.link.send_replace(Some(outbox.clone()));
    for attempt in agent.holdings.ask_again() {
        claim(&outbox, &attempt).await;
    }
    let posting = Posting::new(agent.outbox.clone());
    Ok(Session { outbox, incoming, heartbeat, sent: Heartbeats::default(), posting })
}

async fn hello(agent: &mut Agent, address: &str) -> Hello {
    Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: agent.boot_id.clone(),
        instance: agent.instance.clone(),
        facts: agent.facts.known().await,
        addresses: our_address(address).into_iter().collect(),
        holding: agent.holdings.held().iter().map(AttemptRef::from).collect(),
        incarnation: agent.membership.incarnation,
        cluster_id: agent.membership.cluster_id.clone(),
        boot_ms: boot_ms(),
        boot_number: agent.boot_number,
    }
}

/// The address of ours that the way to the server leaves from. Sends nothing.
fn our_address(server: &str) -> Option<String> {
    let server: std::net::SocketAddr = server.parse().ok()?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// Refuses a store that is not ours or older than what we have seen; learns the rest. Returns the heartbeat.
fn greet_back(agent: &mut Agent, welcome: &Welcome) -> Result<Duration, String> {
    let membership = &mut agent.membership;
    if welcome.cluster_id != membership.cluster_id {
        return Err(format!("the server is of the cluster {:?}, not {:?}", welcome.cluster_id, membership.cluster_id));
    }
    if welcome.incarnation < membership.incarnation {
        let (theirs, seen) = (welcome.incarnation, membership.incarnation);
        return Err(format!("the server's store is older ({theirs}) than what this node has seen ({seen})"));
    }
    if membership.learn(&welcome.servers, welcome.incarnation)
        && let Err(problem) = membership.store(&agent.settings.membership_file())
    {
        tracing::warn!(%problem, "where the servers are could not be remembered");
    }
    agent.facts.look_every(given(welcome.facts_interval.as_ref()));
    Ok(given(welcome.heartbeat.as_ref()).unwrap_or(HEARTBEAT))
}

impl Session {
    /// Goes on until something breaks (the error), or the certificate was renewed.
    async fn run(&mut self, agent: &mut Agent, channel: Channel) -> Result<(), String> {
        let uid = agent.uid().to_owned();
        let mut beaten = Instant::now();
        let mut renewal_look = ticking(RENEWAL_LOOK);
        loop {
            let next_beat = beaten + self.period(&agent.holdings);
            tokio::select! {
                message = self.incoming.message() => {
                    let message = message.map_err(|status| status.message().to_owned())?;
                    let message = message.ok_or("the server ended it")?;
                    if let Some(settings) = self.hear(&agent.holdings, &uid, message).await {
                        self.heartbeat = given(settings.heartbeat.as_ref()).unwrap_or(self.heartbeat);
                        agent.facts.look_every(given(settings.facts_interval.as_ref()));
                    }
                }
                () = sleep_until(next_beat) => {
                    beaten = Instant::now();
                    let number = self.sent.send();
                    self.send(Message::Heartbeat(Heartbeat { number })).await?;
                }
                facts = agent.facts.changed() => {
                    self.send(Message::Facts(FactsUpdate { facts: Some(facts) })).await?;
                }
                events = self.posting.next() => self.send(Message::Events(EventsRequest { events })).await?,
                _ = renewal_look.tick(), if renewal::is_due(&agent.credentials, now_ms()) => {
                    let path = agent.settings.node_credentials();
                    match renewal::renew(&agent.credentials, channel.clone(), &path).await {
                        Ok(renewed) => {
                            agent.credentials = renewed;
                            return Ok(());
                        }
                        Err(problem) => tracing::warn!(%problem, "the certificate was not renewed; trying again"),
                    }
                }
            }
        }
    }

    /// Between heartbeats: several in each fence of what is held.
    fn period(&self, holdings: &Holdings) -> Duration {
        holdings.fence().map_or(self.heartbeat, |fence| self.heartbeat.min(fence / HEARTBEATS_IN_A_FENCE))
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        self.outbox.send(envelope(message)).await.map_err(|_| "the connection is gone".to_owned())
    }

    /// Does what the server says. Returns the settings if they changed.
    async fn hear(&mut self, holdings: &Arc<Holdings>, uid: &str, message: ServerMessage) -> Option<Settings> {
        use server_message::Message as Heard;
        match message.message? {
            Heard::Offer(offer) => {
                let attempt = ours(offer.attempt, uid)?;
                if holdings.ask(&attempt) {
                    claim(&self.outbox, &attempt).await;
                }
            }
            Heard::Claim(answer) => self.answered(holdings, uid, answer),
            Heard::Report(answer) => {
                holdings.tell(&ours(answer.attempt, uid)?, Word::Report { stored: answer.stored }).await;
            }
            Heard::Output(answer) => {
                holdings.tell(&ours(answer.attempt, uid)?, Word::Output { number: answer.number }).await;
            }
            Heard::Cancel(cancel) => holdings.tell(&ours(cancel.attempt, uid)?, Word::Cancel).await,
            Heard::Settings(settings) => return Some(settings),
            Heard::Heartbeat(answer) => {
                if let Some(sent_ms) = self.sent.acknowledge(answer.number) {
                    let fenced: Vec<Attempt> = answer.fenced.iter().map(Attempt::from).collect();
                    holdings.renew(sent_ms, &fenced);
                }
            }
            Heard::Events(answer) => self.posting.answered(answer.number).await,
            // A second welcome says nothing new.
            Heard::Welcome(_) => {}
        }
        None
    }

    fn answered(&self, holdings: &Arc<Holdings>, uid: &str, answer: ClaimAnswer) {
        let Some(attempt) = ours(answer.attempt, uid) else { return };
        match answer.work {
            Some(work) if super::segment::attempt_of(&work) == attempt => match answer.refused.is_empty() {
                true => Holdings::give(holdings, &attempt, work),
                false => Holdings::forgotten(holdings, &attempt, work),
            },
            Some(_) => tracing::error!("the server sent the work of another attempt than was claimed"),
            None if answer.again => {
                let (holdings, outbox) = (holdings.clone(), self.outbox.clone());
                // Ends by itself; an outbox that is gone by then only loses what the next session asks again.
                tokio::spawn(async move {
                    tokio::time::sleep(AGAIN).await;
                    if holdings.is_asked(&attempt) {
                        claim(&outbox, &attempt).await;
                    }
                });
            }
            None => {
                tracing::debug!(attempt = super::shown(&attempt), refused = answer.refused, "a claim was refused");
                holdings.refuse(&attempt);
            }
        }
    }
}

/// A duration, if the server says one.
fn given(duration: Option<&prost_types::Duration>) -> Option<Duration> {
    duration.map(duration::from_proto).filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// The attempt, if it is this node's and its parts can be parts of a folder's name.
fn ours(reference: Option<AttemptRef>, uid: &str) -> Option<Attempt> {
    let attempt = Attempt::from(&reference?);
    let plain = [&attempt.run, &attempt.for_node].into_iter().all(|part| is_uid(part));
    let is_ours = attempt.node == uid && plain;
    if !is_ours {
        tracing::error!(?attempt, "the server spoke of an attempt that is not ours");
    }
    is_ours.then_some(attempt)
}

async fn claim(outbox: &mpsc::Sender<AgentMessage>, attempt: &Attempt) {
    let request = ClaimRequest { attempt: Some(attempt.into()) };
    // An error means that the session is over; the next one asks again.
    let _ = outbox.send(envelope(Message::Claim(request))).await;
}

fn envelope(message: Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}

/// First after one period: what a session begins with says the same.
fn ticking(period: Duration) -> tokio::time::Interval {
    let mut ticking = interval_at(Instant::now() + period, period);
    ticking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticking
}
