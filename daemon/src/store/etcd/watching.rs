//! One watch of etcd, over as many streams and members as that takes: resumes behind the last revision it gave.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, EventType, WatchOptions, WatchResponse};
use lockstep_apis::commit::Revision;
use lockstep_apis::keys::Key;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::MAX_ANSWER_BYTES;
use super::fault::Fault;
use super::keyspace::Keyspace;
use super::members::{DEADLINE, Members, PAUSE};
use crate::store::{Change, Refusal, StoreError, WatchEvent};

/// After this long without a word the member is asked for one.
const QUIET: Duration = Duration::from_secs(5);

/// For a word that was asked for; after that the stream is taken for dead.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Watching {
    pub(super) members: Arc<Members>,
    pub(super) keyspace: Keyspace,
    pub(super) prefix: Key,
    /// The first revision that was not given yet.
    pub(super) next: Revision,
    pub(super) events: mpsc::Sender<Result<WatchEvent, StoreError>>,
}

enum Ended {
    /// The stream; another one may go on.
    Stream(String),
    /// The watch.
    Watch(StoreError),
    /// Nobody listens.
    Unheard,
}

impl Watching {
    /// Until the watch ends. `stands` is told when the first stream does, or dropped.
    pub(super) async fn run(mut self, stands: oneshot::Sender<()>) {
        let mut stands = Some(stands);
        let mut heard = Instant::now();
        loop {
            let member = self.members.current();
            match self.stream(member.client.watch_client(), &mut stands, &mut heard).await {
                Ended::Unheard => return,
                Ended::Watch(error) => return drop(self.events.send(Err(error)).await),
                Ended::Stream(problem) => {
                    self.members.leave(&member);
                    // A watch is never silent for long: who cannot be reached cannot be watched.
                    if heard.elapsed() >= DEADLINE {
                        let error = StoreError::refused("watch", Refusal::Unavailable(problem));
                        return drop(self.events.send(Err(error)).await);
                    }
                    tracing::debug!(problem, prefix = %self.prefix, "a watch resumes on another member");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn stream(
        &mut self,
        client: etcd_client::WatchClient,
        stands: &mut Option<oneshot::Sender<()>>,
        heard: &mut Instant,
    ) -> Ended {
        let mut client = client.max_decoding_message_size(MAX_ANSWER_BYTES);
        let (begin, end) = self.keyspace.range(&self.prefix);
        let from = i64::try_from(self.next).unwrap_or(i64::MAX);
        let options = WatchOptions::new().with_range(end).with_start_revision(from);
        let mut stream = match timeout(PATIENCE, client.watch(begin, Some(options))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return ended(&error),
            Err(_) => return Ended::Stream(format!("no watch within {PATIENCE:?}")),
        };
        let mut asked = false;
        loop {
            let patience = if asked { PATIENCE } else { QUIET };
            let response = match timeout(patience, stream.message()).await {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None)) => return Ended::Stream("the watch's stream ended".into()),
                Ok(Err(error)) => return ended(&error),
                Err(_) if asked => return Ended::Stream(format!("no word within {:?}", QUIET + PATIENCE)),
                Err(_) => {
                    asked = true;
                    if let Err(error) = stream.request_progress().await {
                        return ended(&error);
                    }
                    continue;
                }
            };
            if let Err(ended) = self.hear(&response).await {
                return ended;
            }
            // Behind the events were given: waiting for a slow listener is not the member's silence.
            *heard = Instant::now();
            asked = false;
            if response.created()
                && let Some(stands) = stands.take()
            {
                // Whoever asked for the watch may be gone; the next event will tell.
                let _ = stands.send(());
            }
        }
    }

    async fn hear(&mut self, response: &WatchResponse) -> Result<(), Ended> {
        if response.canceled() {
            return Err(self.cancelled(response));
        }
        if response.created() {
            return Ok(());
        }
        if response.events().is_empty() {
            let revision = response.header().map_or(0, |header| super::revision(header.revision()));
            return self.say(WatchEvent::Progress { revision }).await;
        }
        let of = |event: &Event| event.kv().map_or(0, |kv| super::revision(kv.mod_revision()));
        for events in response.events().chunk_by(|a, b| of(a) == of(b)) {
            let revision = of(&events[0]);
            if revision < self.next {
                continue;
            }
            let changes: Result<Vec<_>, _> = events.iter().map(|event| self.change(event)).collect();
            let changes = changes.map_err(|refusal| Ended::Watch(StoreError::refused("watch", refusal)))?;
            self.say(WatchEvent::Changes { revision, changes }).await?;
            self.next = revision + 1;
        }
        Ok(())
    }

    fn cancelled(&self, response: &WatchResponse) -> Ended {
        let reason = response.cancel_reason();
        if response.compact_revision() > 0 {
            return Ended::Watch(StoreError::Compacted { revision: super::revision(response.compact_revision()) });
        }
        if reason.contains("permission denied") {
            return Ended::Watch(StoreError::refused("watch", Refusal::Denied(reason.into())));
        }
        Ended::Stream(format!("etcd cancelled the watch: {reason}"))
    }

    async fn say(&self, event: WatchEvent) -> Result<(), Ended> {
        self.events.send(Ok(event)).await.map_err(|_| Ended::Unheard)
    }

    fn change(&self, event: &Event) -> Result<Change, Refusal> {
        let kv = event.kv().ok_or_else(|| Refusal::Damaged("an event without a key".into()))?;
        Ok(match event.event_type() {
            EventType::Put => Change::Put(self.keyspace.entry(kv.clone())?),
            EventType::Delete => Change::Delete(self.keyspace.key(kv.key())?, super::revision(kv.mod_revision())),
        })
    }
}

fn ended(error: &etcd_client::Error) -> Ended {
    match Fault::of(error, None) {
        Fault::Unreached(problem) | Fault::Unknown(problem) => Ended::Stream(problem),
        fault => Ended::Watch(fault.of_read("watch")),
    }
}
