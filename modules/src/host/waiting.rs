//! Waits for the network and the message bus on the thread of the task that asks. What it needs is made when something
//! first waits, so a book that never does pays nothing. Knows no protocol.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;
use tokio::runtime::Runtime;

use super::{Host, Stop, Stopped, locked};

/// A runtime whose end waits for nobody: a name server that never answers must not hold up a task's report.
#[derive(Debug)]
pub(super) struct Waiting(Option<Runtime>);

impl Waiting {
    fn new() -> io::Result<Waiting> {
        Ok(Waiting(Some(tokio::runtime::Builder::new_current_thread().enable_all().build()?)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("invariant: it is there until it is dropped")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unfinished {
    /// Cancelled, or too late.
    Stopped(Stopped),
    /// The system has no descriptors left to wait with.
    Failed(io::Error),
}

impl Host {
    /// Waits for the work, unless the task is cancelled or its time is over first; then the work is dropped where it is.
    pub(crate) fn wait<T>(&self, stop: &Stop<'_>, work: impl Future<Output = T>) -> Result<T, Unfinished> {
        let mut slot = locked(&self.waiting);
        let waiting = match &mut *slot {
            Some(waiting) => waiting,
            none => none.insert(Waiting::new().map_err(Unfinished::Failed)?),
        };
        waiting.runtime().block_on(async {
            let switch = stop.cancel.fd().try_clone_to_owned().map_err(Unfinished::Failed)?;
            // No pipe, but as one it becomes readable.
            let switch = pipe::Receiver::from_owned_fd_unchecked(switch).map_err(Unfinished::Failed)?;
            let deadline = stop.deadline.unwrap_or_else(|| Instant::now() + FOREVER);
            tokio::select! {
                biased;
                done = work => Ok(done),
                _ = switch.readable() => Err(Unfinished::Stopped(Stopped::Cancelled)),
                () = tokio::time::sleep_until(deadline.into()) => Err(Unfinished::Stopped(Stopped::TimedOut)),
            }
        })
    }
}

/// Longer than any task may take.
const FOREVER: Duration = Duration::from_secs(30 * 86_400);
