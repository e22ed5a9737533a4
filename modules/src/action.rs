//! What an action is given and what it hands back. Knows no single action.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::{NodeEvent, Value};
use rustix::event::EventfdFlags;

use crate::host::{Host, HostError, Unsynced};

/// Longest message of a task, in bytes.
pub const MESSAGE_BYTES: usize = 256;

/// Something a task can ask for, `file.managed` for one.
pub trait Action: Sync {
    /// Its name, as books write it.
    fn name(&self) -> &'static str;

    /// Does it once, as far as it needs doing, or says in check mode what it would do. `parameters` is the map of its
    /// parameters, rendered. Never panics on what is in them; all that can go wrong is in the answer.
    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done;
}

/// An action that is a name and a function. What the function refuses is as good an end as any.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) perform: fn(&Value, &mut Scope<'_>) -> Result<Done, Done>,
}

impl Action for Function {
    fn name(&self) -> &'static str {
        self.name
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        (self.perform)(parameters, scope).unwrap_or_else(|done| done)
    }
}

/// The surroundings of one task.
pub struct Scope<'a> {
    /// The machine.
    pub host: &'a Host,
    /// Only say what would change.
    pub check: bool,
    /// In a check: an earlier task would have changed the machine, so that what is read of it now may be otherwise then.
    pub unsettled: bool,
    /// Make a diff of what changes.
    pub diff: bool,
    /// Content and output are secret: neither diffs nor messages show any.
    pub sensitive: bool,
    /// Added to the small clean environment of commands.
    pub environment: &'a BTreeMap<String, String>,
    /// The user that commands run as; `None` is the one that this program runs as.
    pub user: Option<&'a str>,
    /// Where commands run; `None` is `/`.
    pub working_directory: Option<&'a str>,
    /// How long the task may take.
    pub timeout: Option<Duration>,
    /// Ends the task early.
    pub cancel: &'a Cancel,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Gets all that commands print, as it comes.
    pub output: &'a mut dyn FnMut(Stream, &[u8]),
    /// Gathers what must be synced before the task is reported.
    pub unsynced: &'a mut Unsynced,
}

/// One of a command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was as wanted, or nothing had to be done.
    Ok,
    /// It was changed; in check mode: it would be.
    Changed,
    /// It could not be done.
    Failed,
    /// It was ended by [`Cancel`].
    Cancelled,
    /// Check mode, and nobody can tell.
    Unpredicted,
}

/// What changed, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// What was changed.
    pub path: String,
    /// A unified diff and a line for each attribute; at most 64 KiB.
    pub text: String,
}

/// What a task came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for people; at most 256 bytes. May hold text of commands, so secrets that they print.
    pub message: String,
    /// A map: `changed` always; for commands `stdout`, `stderr`, `exitCode`, `signal`; `reason` if it failed.
    pub result: Value,
    /// What changed, if a diff was asked for.
    pub diff: Option<Diff>,
    /// What is to be told to the cluster. Whose it is, the caller knows.
    pub event: Option<Box<NodeEvent>>,
}

impl Done {
    /// An end with nothing in its result but `changed` and what `more` adds.
    pub fn new<'k>(
        outcome: Outcome,
        message: impl Into<String>,
        more: impl IntoIterator<Item = (&'k str, Value)>,
    ) -> Done {
        let changed = ("changed".to_owned(), Value::from(outcome == Outcome::Changed));
        let entries = std::iter::once(changed).chain(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        Done { outcome, message: clip(message.into()), result: Value::map(entries), diff: None, event: None }
    }

    /// The same with one more entry in its result.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Done {
        let entries = self.result.as_map().cloned().unwrap_or_default();
        self.result = Value::map(entries.into_iter().chain([(key.to_owned(), value.into())]));
        self
    }

    /// A failure, with its class in `result.reason`.
    pub fn failed(reason: &str, message: impl fmt::Display) -> Done {
        Done::new(Outcome::Failed, format!("{reason}: {message}"), [("reason", Value::text(reason))])
    }
}

impl HostError {
    /// What it means in a check, if an earlier task may make what is missing.
    pub(crate) fn unpredicted(&self) -> Done {
        Done::new(Outcome::Unpredicted, format!("unless an earlier task makes it: {self}"), [])
    }
}

impl From<HostError> for Done {
    fn from(error: HostError) -> Done {
        Done::failed(error.reason(), error)
    }
}

/// Cuts a message to what a report may carry, at a character's border.
fn clip(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = message.floor_char_boundary(MESSAGE_BYTES - '…'.len_utf8());
        message.truncate(end);
        message.push('…');
    }
    message
}

/// The switch that ends a running task. Can be thrown from any thread, once and for good.
#[derive(Debug)]
pub struct Cancel {
    thrown: OnceLock<Instant>,
    wake: OwnedFd,
}

impl Cancel {
    /// A switch that is not thrown.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> std::io::Result<Cancel> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Cancel { thrown: OnceLock::new(), wake })
    }

    /// Throws it.
    pub fn throw(&self) {
        self.thrown.get_or_init(Instant::now);
        // Fails only when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Whether it was thrown.
    pub fn is_thrown(&self) -> bool {
        self.thrown.get().is_some()
    }

    /// When it was thrown.
    pub fn thrown_at(&self) -> Option<Instant> {
        self.thrown.get().copied()
    }

    /// Becomes readable when it is thrown.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_at_a_character() {
        let done = Done::failed("Failed", "ä".repeat(300));
        assert!(done.message.len() <= MESSAGE_BYTES && done.message.ends_with('…'));
    }
}
