//! One attempt, from the granted claim to the acknowledged report: one task of the agent each. Knows its folder and its
//! inbox; speaks to whichever server the session is with, and waits while there is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{AgentMessage, AttemptRef, Report, ReportRequest, Work, agent_message::Message};
use lockstep_core::recovery;
use lockstep_executor::segment as folders;
use lockstep_modules::Cgroup;
use tokio::sync::{Notify, mpsc, watch};

use super::executor;
use super::outbox::Outbox;
use super::output::{self, RESEND, Tail};
use super::session::Link;
use super::{now_ms, shown};

/// How often the output of a working segment is looked at. Nothing is looked at when nothing works.
const OUTPUT_LOOK: Duration = Duration::from_millis(100);

/// Before a report is sent again that the server could not store.
const REPORT_PAUSE: Duration = Duration::from_millis(500);

/// What is the same for all segments.
pub(super) struct Surroundings {
    pub(super) segments: PathBuf,
    pub(super) executor: PathBuf,
    pub(super) root: PathBuf,
    /// In which segments get control groups of their own. `None`: they have none.
    pub(super) cgroups: Option<Cgroup>,
    pub(super) boot_id: String,
    pub(super) outbox: Arc<Outbox>,
    /// Told when a segment has ended: the machine may be another now.
    pub(super) worked: Arc<Notify>,
    pub(super) link: watch::Sender<Link>,
}

impl Surroundings {
    /// Where an attempt's folder is.
    pub(super) fn folder_of(&self, attempt: &Attempt) -> PathBuf {
        self.segments.join(folders::folder_name(&AttemptRef::from(attempt)))
    }
}

/// Where an attempt comes from.
pub(super) enum Origin {
    /// A server granted our claim just now.
    Given {
        work: Box<Work>,
        /// When the claim was sent, by the clock of this boot: its fence counts from then.
        sent_boot_ms: u64,
        /// A cancel came before the answer.
        cancelled: bool,
    },
    /// An earlier agent left its folder.
    Left,
    /// An earlier agent claimed it and left nothing: it may have been killed before the folder was made, or somebody
    /// has removed it.
    Forgotten {
        /// What it was, without secrets.
        work: Box<Work>,
    },
}

/// What the server says about an attempt.
#[derive(Debug)]
pub(super) enum Word {
    /// Whether the report is stored.
    Report { stored: bool },
    /// Output is kept up to this number.
    Output { number: u64 },
    /// Stop.
    Cancel,
}

/// The attempt that a work is for.
pub(super) fn attempt_of(work: &Work) -> Attempt {
    Attempt {
        run: work.run_uid.clone(),
        segment: work.segment,
        for_node: work.for_uid.clone(),
        node: work.node_uid.clone(),
        attempt: work.attempt,
    }
}

/// Sees an attempt through. Returns when the server has its report and output, and the folder is gone.
pub(super) async fn attend(
    surroundings: &Surroundings,
    attempt: &Attempt,
    origin: Origin,
    inbox: mpsc::Receiver<Word>,
) {
    let folder = surroundings.folder_of(attempt);
    let mut attendance = Attendance {
        reference: attempt.into(),
        link: surroundings.link.subscribe(),
        inbox,
        folder,
        report: None,
        is_stored: false,
        tail: Tail::default(),
    };
    let fresh = match origin {
        Origin::Left => false,
        // A folder that could not be read at the start would be judged by what it says.
        Origin::Forgotten { .. } if attendance.folder.exists() => false,
        Origin::Forgotten { work } => {
            tracing::warn!(attempt = shown(attempt), "a segment was claimed by an earlier agent that left no folder");
            return attendance.deliver(recovery::interrupted_all(&work, now_ms())).await;
        }
        Origin::Given { work, sent_boot_ms, cancelled } => {
            match make(surroundings, &attendance.folder, work, sent_boot_ms, cancelled).await {
                Ok(fresh) => fresh,
                Err(error) => {
                    tracing::error!(attempt = shown(attempt), error, "a segment could not be begun");
                    let at = now_ms();
                    let report = Report { error, started_ms: at, finished_ms: at, ..Report::default() };
                    return attendance.deliver(report).await;
                }
            }
        }
    };
    attendance.see_through(surroundings, fresh).await;
}

/// Makes the folder, with the claim on the disk. Returns whether it is new.
async fn make(
    surroundings: &Surroundings,
    folder: &Path,
    work: Box<Work>,
    sent_boot_ms: u64,
    cancelled: bool,
) -> Result<bool, String> {
    let (folder, boot_id) = (folder.to_owned(), surroundings.boot_id.clone());
    let made = tokio::task::spawn_blocking(move || {
        folders::create(&folder, &work, &boot_id)?;
        if work.fence_ms > 0 {
            folders::renew(&folder, sent_boot_ms)?;
        }
        if cancelled { folders::cancel(&folder) } else { Ok(()) }
    });
    match made.await.map_err(|e| e.to_string())? {
        Ok(()) => Ok(true),
        // Only if the same attempt was given to an earlier agent. It is judged by what its folder says.
        Err(folders::SegmentError::Exists { .. }) => Ok(false),
        Err(problem) => Err(format!("the segment's folder could not be made: {}", with_source(&problem))),
    }
}

fn with_source(problem: &dyn std::error::Error) -> String {
    match problem.source() {
        Some(source) => format!("{problem}: {}", with_source(source)),
        None => problem.to_string(),
    }
}

struct Attendance {
    reference: AttemptRef,
    link: watch::Receiver<Link>,
    inbox: mpsc::Receiver<Word>,
    folder: PathBuf,
    report: Option<Report>,
    is_stored: bool,
    tail: Tail,
}

impl Attendance {
    async fn see_through(&mut self, surroundings: &Surroundings, fresh: bool) {
        let folder = self.folder.clone();
        let mut execution = Box::pin(executor::finish(surroundings, &folder, fresh));
        let mut look = tokio::time::interval(OUTPUT_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.report.is_none() {
            tokio::select! {
                report = &mut execution => {
                    self.report = Some(report);
                    // Before the report: whoever reads how the Run ended finds what it told.
                    self.take_events(&surroundings.outbox).await;
                    surroundings.worked.notify_one();
                    self.send_report().await;
                }
                Some(word) = self.inbox.recv() => self.hear(word).await,
                Ok(()) = self.link.changed() => self.tail.begin_anew(),
                _ = look.tick() => self.take_events(&surroundings.outbox).await,
            }
            self.send_output().await;
        }
        drop(execution);
        while !(self.is_stored && self.tail.is_done()) {
            tokio::select! {
                Some(word) = self.inbox.recv() => self.hear(word).await,
                Ok(()) = self.link.changed() => {
                    self.tail.begin_anew();
                    self.send_report().await;
                }
                // Nothing heard for so long: an answer was not given, or lost.
                () = tokio::time::sleep(RESEND) => self.send_report().await,
            }
            self.send_output().await;
        }
        self.remove().await;
    }

    /// Sends a report of what has no folder, until it is stored. Nothing was started, so nothing is left to find later:
    /// memory is enough.
    async fn deliver(&mut self, report: Report) {
        self.report = Some(report);
        self.send_report().await;
        while !self.is_stored {
            tokio::select! {
                Some(word) = self.inbox.recv() => self.hear(word).await,
                Ok(()) = self.link.changed() => self.send_report().await,
                () = tokio::time::sleep(RESEND) => self.send_report().await,
            }
        }
    }

    async fn hear(&mut self, word: Word) {
        match word {
            Word::Report { stored: true } => self.is_stored = true,
            Word::Report { stored: false } => {
                tokio::time::sleep(REPORT_PAUSE).await;
                self.send_report().await;
            }
            Word::Output { number } => {
                let ahead = self.tail.acknowledged(number);
                self.tail.pass_over(&self.folder, ahead);
            }
            Word::Cancel if self.report.is_none() => {
                // The executor watches for the mark, and looks for it before each task.
                if let Err(problem) = folders::cancel(&self.folder) {
                    tracing::error!(folder = %self.folder.display(), %problem, "a cancel could not be passed on");
                }
            }
            Word::Cancel => {}
        }
    }

    async fn send_report(&mut self) {
        if self.is_stored {
            return;
        }
        if let Some(report) = self.report.clone() {
            let attempt = Some(self.reference.clone());
            self.send(Message::Report(ReportRequest { attempt, report: Some(report) })).await;
        }
    }

    /// Takes what tasks have raised.
    async fn take_events(&self, outbox: &Arc<Outbox>) {
        let (outbox, folder) = (outbox.clone(), self.folder.clone());
        let taken = tokio::task::spawn_blocking(move || {
            folders::raised(&folder).map(|files| files.iter().for_each(|file| outbox.take(file)))
        });
        if let Ok(Err(problem)) = taken.await {
            tracing::warn!(folder = %self.folder.display(), %problem, "what was raised cannot be read");
        }
    }

    /// Sends the next piece of output, if there is one and the one before is acknowledged.
    async fn send_output(&mut self) {
        if self.tail.is_done() || self.tail.is_waiting(Instant::now()) || self.link.borrow().is_none() {
            return;
        }
        let (folder, offset) = (self.folder.clone(), self.tail.offset());
        let read = tokio::task::spawn_blocking(move || output::read(&folder, offset)).await;
        match read {
            Ok(Ok(read)) => {
                if let Some(request) = self.tail.next(read, self.report.is_some(), Instant::now()) {
                    let attempt = Some(self.reference.clone());
                    self.send(Message::Output(lockstep_apis::v1alpha::OutputRequest { attempt, ..request })).await;
                }
            }
            Ok(Err(problem)) => tracing::warn!(folder = %self.folder.display(), %problem, "output cannot be read"),
            Err(problem) => tracing::warn!(%problem, "output was not read"),
        }
    }

    /// Sends over the present link; without one, or if it breaks, the next link's begin sends again.
    async fn send(&mut self, message: Message) {
        // Not marked as seen: a new link must still wake the loop, which then sends all again.
        let link = self.link.borrow().clone();
        if let Some(link) = link {
            // An error means that the session is over; the next one begins with what is not acknowledged.
            let _ = link.send(AgentMessage { message: Some(message) }).await;
        }
    }

    async fn remove(&self) {
        let folder = self.folder.clone();
        let removed = tokio::task::spawn_blocking(move || folders::remove(&folder)).await;
        if let Ok(Err(problem)) = removed {
            // The next agent finds it, reports again, and hears that it is stored.
            tracing::warn!(folder = %self.folder.display(), %problem, "a segment's folder could not be removed");
        }
    }
}
