//! What this node has asked for, and what it holds: the memory that keeps an attempt from being started twice.
//! Knows attempts; what is done with each is in `segment`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::Work;
use lockstep_executor::segment as segments;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::locked;
use super::segment::{self, Origin, Surroundings, Word};
use crate::clock::boot_ms;

/// How many attempts are remembered after they were given to us. A server whose cache is old could offer one again for
/// as long as the cache lags; that is seconds, and this is hours of work.
const REMEMBERED: usize = 16_384;

/// Words of the server that wait for a segment; there are never more than a few.
const INBOX: usize = 16;

/// Shared by the session and the segments' tasks.
pub(super) struct Holdings {
    surroundings: Arc<Surroundings>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Claimed, not answered yet.
    asked: HashMap<Attempt, Asked>,
    /// Those that are seen through.
    held: HashMap<Attempt, Held>,
    /// All that were ever given to this process, in order, within limits.
    given: HashSet<Attempt>,
    order: VecDeque<Attempt>,
    tasks: JoinSet<()>,
}

/// A claim that waits for its answer.
struct Asked {
    /// When it was sent in this session, by the clock of this boot.
    sent_boot_ms: u64,
    /// A cancel came meanwhile.
    cancelled: bool,
}

/// An attempt that is seen through.
struct Held {
    /// Its task's.
    inbox: mpsc::Sender<Word>,
    /// Of its work; 0: it has none.
    fence_ms: u64,
}

impl Holdings {
    pub(super) fn new(surroundings: Surroundings) -> Self {
        Self { surroundings: Arc::new(surroundings), state: Mutex::default() }
    }

    /// Whether to claim what is offered; remembers that it was asked for.
    pub(super) fn ask(&self, attempt: &Attempt) -> bool {
        let mut state = locked(&self.state);
        if state.given.contains(attempt) || state.held.contains_key(attempt) || state.asked.contains_key(attempt) {
            return false;
        }
        state.asked.insert(attempt.clone(), Asked { sent_boot_ms: boot_ms(), cancelled: false });
        true
    }

    /// Whether the claim is still waiting for its answer.
    pub(super) fn is_asked(&self, attempt: &Attempt) -> bool {
        locked(&self.state).asked.contains_key(attempt)
    }

    /// The claims that wait for an answer, to be asked again over a new connection.
    pub(super) fn ask_again(&self) -> Vec<Attempt> {
        let mut state = locked(&self.state);
        // Answers of the old connection do not come any more.
        state.asked.values_mut().for_each(|asked| asked.sent_boot_ms = boot_ms());
        state.asked.keys().cloned().collect()
    }

    /// The shortest fence of what is held.
    pub(super) fn fence(&self) -> Option<Duration> {
        let state = locked(&self.state);
        state.held.values().map(|held| held.fence_ms).filter(|ms| *ms > 0).min().map(Duration::from_millis)
    }

    /// What was sent at `boot_ms` was acknowledged, for all that is held but what is `fenced`.
    pub(super) fn renew(&self, boot_ms: u64, fenced: &[Attempt]) {
        let kept: Vec<Attempt> = {
            let state = locked(&self.state);
            let held = state.held.iter().filter(|(attempt, held)| held.fence_ms > 0 && !fenced.contains(attempt));
            held.map(|(attempt, _)| attempt.clone()).collect()
        };
        for attempt in kept {
            // Its folder may just have gone, or not be there yet.
            if let Err(problem) = segments::renew(&self.surroundings.folder_of(&attempt), boot_ms) {
                tracing::debug!(attempt = super::shown(&attempt), %problem, "a fence was not put off");
            }
        }
    }

    /// What this process sees through.
    pub(super) fn held(&self) -> Vec<Attempt> {
        locked(&self.state).held.keys().cloned().collect()
    }

    /// The claim was refused.
    pub(super) fn refuse(&self, attempt: &Attempt) {
        locked(&self.state).asked.remove(attempt);
    }

    /// The claim was granted: begins the work, if it was asked for. An answer that comes twice begins nothing.
    pub(super) fn give(holdings: &Arc<Self>, attempt: &Attempt, work: Work) {
        let mut state = locked(&holdings.state);
        let Some(Asked { sent_boot_ms, cancelled }) = state.asked.remove(attempt) else { return };
        state.remember(attempt);
        let fence_ms = work.fence_ms;
        let origin = Origin::Given { work: Box::new(work), sent_boot_ms, cancelled };
        Self::begin(holdings, &mut state, attempt, fence_ms, origin);
    }

    /// An earlier process of this node claimed it, and we hold nothing of it: says so, and begins nothing.
    pub(super) fn forgotten(holdings: &Arc<Self>, attempt: &Attempt, work: Work) {
        let mut state = locked(&holdings.state);
        if state.asked.remove(attempt).is_some() {
            state.remember(attempt);
            Self::begin(holdings, &mut state, attempt, 0, Origin::Forgotten { work: Box::new(work) });
        }
    }

    /// Goes on with what an earlier agent left.
    pub(super) fn take_up(holdings: &Arc<Self>, work: &Work) {
        let attempt = segment::attempt_of(work);
        let mut state = locked(&holdings.state);
        state.remember(&attempt);
        Self::begin(holdings, &mut state, &attempt, work.fence_ms, Origin::Left);
    }

    fn begin(holdings: &Arc<Self>, state: &mut State, attempt: &Attempt, fence_ms: u64, origin: Origin) {
        let (sender, inbox) = mpsc::channel(INBOX);
        state.held.insert(attempt.clone(), Held { inbox: sender, fence_ms });
        let (holdings, attempt) = (holdings.clone(), attempt.clone());
        // What has ended before leaves its place in the set here.
        while state.tasks.try_join_next().is_some() {}
        state.tasks.spawn(async move {
            segment::attend(&holdings.surroundings, &attempt, origin, inbox).await;
            locked(&holdings.state).held.remove(&attempt);
        });
    }

    /// Leaves everything as it is on the disk: the next agent goes on with it. Executors live on.
    pub(super) fn let_go(&self) {
        locked(&self.state).tasks.abort_all();
    }

    /// Passes on what the server says to the attempt it is about. Nobody there: it is over, or was never ours.
    pub(super) async fn tell(&self, attempt: &Attempt, word: Word) {
        let inbox = {
            let mut state = locked(&self.state);
            if let (Word::Cancel, Some(asked)) = (&word, state.asked.get_mut(attempt)) {
                asked.cancelled = true;
            }
            state.held.get(attempt).map(|held| held.inbox.clone())
        };
        if let Some(inbox) = inbox {
            // An error means that the task has just ended.
            let _ = inbox.send(word).await;
        }
    }
}

impl State {
    fn remember(&mut self, attempt: &Attempt) {
        if self.given.insert(attempt.clone()) {
            self.order.push_back(attempt.clone());
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.given.remove(&oldest);
        }
    }
}
