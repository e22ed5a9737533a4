//! What every back end is asked, and the words in which it answers.

use super::Goal;
use super::database::Database;
use crate::action::{Done, Outcome};
use crate::host::{BusFault, Stopped};

/// What a back end would do, in order. Nothing: all is as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Prepared {
    /// `install demo 1.0`, for people.
    pub(super) lines: Vec<String>,
    /// What would be removed although nobody asked.
    pub(super) removed: Vec<String>,
    /// What PackageKit calls the packages.
    pub(super) ids: Vec<String>,
}

/// What a back end works on.
pub(super) struct Job<'a> {
    pub(super) goal: &'a Goal,
    pub(super) database: &'a Database<'a>,
}

/// Why a back end did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{}", unknown(.names))]
    Unknown { names: Vec<String> },
    #[error("another program holds the package lock")]
    Locked,
    #[error("packagekitd ended in the middle of it")]
    Died,
    #[error("{0}")]
    Bus(BusFault),
    /// The class in one word, and the back end's own words.
    #[error("{text}")]
    Failed { reason: &'static str, text: String },
    #[error("stopped")]
    Stopped(Stopped),
    #[error("ended")]
    Ended(Done),
}

fn unknown(names: &[String]) -> String {
    let (noun, verb) = if names.len() == 1 { ("package", "is") } else { ("packages", "are") };
    format!("no repository of this node has the {noun} that {verb} asked for: {}", names.join(", "))
}

impl Fault {
    /// The task's end.
    pub(super) fn told(self, limit: Option<std::time::Duration>) -> Done {
        match self {
            Fault::Unknown { .. } => Done::failed("UnknownPackage", self),
            Fault::Locked => Done::failed("PackageLockHeld", self),
            Fault::Died => Done::failed("BackendDied", "packagekitd ended in the middle of it, twice"),
            Fault::Bus(BusFault::Stopped(stopped)) | Fault::Stopped(stopped) => match stopped {
                Stopped::Cancelled => Done::new(Outcome::Cancelled, "cancelled", [("reason", "Cancelled".into())]),
                Stopped::TimedOut => {
                    let limit = lockstep_apis::duration::format(limit.unwrap_or_default().as_millis() as u64);
                    Done::failed("TimedOut", format!("not done after {limit}"))
                }
            },
            Fault::Bus(fault) => Done::failed(fault.reason(), fault),
            Fault::Failed { reason, text } => Done::failed(reason, text),
            Fault::Ended(done) => done,
        }
    }
}
