//! Tasks that do not wait for all before them: several at once, each on a thread of its own that performs it. Intents,
//! output, ends and results go through the segment's own thread, one after another.

use std::{
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    thread,
    time::Instant,
};

use lockstep_apis::v1alpha::{CompiledTask, NodeEvent, Outcome, OutputChunk, TaskReport};
use lockstep_core::{course::Course, parameters::TaskTexts};
use lockstep_modules::Unsynced;

use crate::{
    journal::JournalError,
    preparing::Prepared,
    results::Ended,
    sequence::{FACTS_REFRESH, Ledger, Segment, now_ms},
};

/// Tasks at work at once, at most. Each may have children, descriptors and up to a few MiB of output.
const AT_ONCE: usize = 8;

/// What a task's thread says, with the task's position.
enum Said {
    /// It is about to be performed; the answer is whether it may.
    Intent {
        at: usize,
        at_ms: u64,
        answer: SyncSender<Result<(), JournalError>>,
    },
    Output {
        at: usize,
        chunk: OutputChunk,
    },
    Raised {
        event: NodeEvent,
        answer: SyncSender<Result<bool, String>>,
    },
    Ended {
        at: usize,
        ended: Result<Ended, JournalError>,
        unsynced: Unsynced,
    },
}

/// When a task that is at work began.
struct Begun {
    started: Instant,
    at_ms: u64,
}

impl Segment<'_> {
    /// Does what is due of tasks that are together, until nothing of them is. Their reports are added in the order in which
    /// they end. After an error of the ledger nothing begins, and what is at work is waited for.
    pub(crate) fn together(
        &mut self,
        tasks: &[Prepared<'_>],
        course: &mut Course<'_>,
        reports: &mut Vec<TaskReport>,
        ledger: &mut dyn Ledger,
    ) -> Result<(), JournalError> {
        let (say, hear) = mpsc::channel();
        let mut at_work: Vec<Option<Begun>> = (0..tasks.len()).map(|_| None).collect();
        // What a check foresees of one task counts for the next.
        let most = if self.check { 1 } else { AT_ONCE };
        thread::scope(|scope| {
            let (mut count, mut result) = (0, Ok(()));
            loop {
                while count < most && result.is_ok() {
                    let Some(at) = course.due().filter(|at| tasks[*at].task.together != 0) else { break };
                    let task = tasks[at].task;
                    if self.is_ended(ledger) {
                        let report = self.outgoing(task, Ended::new(Outcome::Cancelled, "cancelled before it started"));
                        result = ledger.done(task, &report);
                        reports.push(report);
                        course.refused(at);
                        continue;
                    }
                    course.begin(at);
                    let begun = Begun { started: Instant::now(), at_ms: now_ms() };
                    let (own, texts, say, at_ms) = (self.branch(), tasks[at].texts.clone(), say.clone(), begun.at_ms);
                    at_work[at] = Some(begun);
                    count += 1;
                    scope.spawn(move || perform(own, at, task, texts, at_ms, &say));
                }
                if count == 0 {
                    return result;
                }
                // Every thread at work has a sender, and says its end last.
                let Ok(said) = hear.recv() else { return result };
                match said {
                    Said::Intent { at, at_ms, answer } => {
                        let noted = match &result {
                            Ok(()) => ledger.intent(tasks[at].task, at_ms),
                            Err(_) => Err(JournalError::Failed),
                        };
                        let may = noted.as_ref().copied().map_err(|_| JournalError::Failed);
                        result = result.and(noted);
                        let _ = answer.send(may);
                    }
                    Said::Output { at, chunk } => ledger.output(tasks[at].task, chunk),
                    Said::Raised { event, answer } => {
                        let _ = answer.send(ledger.raise(event));
                    }
                    Said::Ended { at, ended, unsynced } => {
                        count -= 1;
                        self.unsynced.append(unsynced);
                        let (Ok(ended), Some(begun)) = (ended, at_work[at].take()) else { continue };
                        if tasks[at].task.action == FACTS_REFRESH && ended.outcome == Outcome::Ok {
                            self.context.refresh_facts();
                        }
                        let report = self.reported(tasks[at].task, ended, begun);
                        if result.is_ok() {
                            result = ledger.done(tasks[at].task, &report);
                        }
                        self.note_cancelled(&report);
                        course.ended(at, &report);
                        reports.push(report);
                    }
                }
            }
        })
    }

    fn reported(&mut self, task: &CompiledTask, ended: Ended, begun: Begun) -> TaskReport {
        let mut report = self.outgoing(task, ended);
        report.started_ms = begun.at_ms;
        report.duration_us = begun.started.elapsed().as_micros() as u64;
        report
    }

    /// What a task needs of the segment while it is at work beside others.
    fn branch(&self) -> Self {
        Segment {
            context: self.context.clone(),
            masker: self.masker.clone(),
            unsynced: Unsynced::new(),
            // Only what follows a failure in a block is done while all ends.
            ending: None,
            ..*self
        }
    }
}

/// Does one task, on its thread.
fn perform(
    mut own: Segment<'_>,
    at: usize,
    task: &CompiledTask,
    texts: Result<std::sync::Arc<TaskTexts>, String>,
    at_ms: u64,
    say: &Sender<Said>,
) {
    let ended = match texts {
        _ if !task.left_out.is_empty() => Ok(Ended::new(Outcome::Skipped, task.left_out.clone())),
        Ok(texts) => own.whole(task, &texts, at_ms, &mut Remote { at, say }),
        Err(message) => Ok(Ended::failed(message)),
    };
    let _ = say.send(Said::Ended { at, ended, unsynced: own.unsynced });
}

/// The segment's ledger, for a task on a thread.
struct Remote<'s> {
    at: usize,
    say: &'s Sender<Said>,
}

impl Ledger for Remote<'_> {
    fn intent(&mut self, _task: &CompiledTask, at_ms: u64) -> Result<(), JournalError> {
        let (answer, answered): (_, Receiver<Result<(), JournalError>>) = mpsc::sync_channel(1);
        let said = self.say.send(Said::Intent { at: self.at, at_ms, answer });
        said.map_err(|_| JournalError::Failed)?;
        answered.recv().unwrap_or(Err(JournalError::Failed))
    }

    fn output(&mut self, _task: &CompiledTask, chunk: OutputChunk) {
        // Whoever does not hear any more has no use for it.
        let _ = self.say.send(Said::Output { at: self.at, chunk });
    }

    fn going_down(&mut self, _task: &CompiledTask, _until_ms: u64) -> Result<(), JournalError> {
        unreachable!("invariant: a task that reboots is together with no other")
    }

    fn raise(&mut self, event: NodeEvent) -> Result<bool, String> {
        let over = || "the segment has ended".to_owned();
        let (answer, answered) = mpsc::sync_channel(1);
        self.say.send(Said::Raised { event, answer }).map_err(|_| over())?;
        answered.recv().unwrap_or_else(|_| Err(over()))
    }

    /// The segment notes it.
    fn done(&mut self, _task: &CompiledTask, _report: &TaskReport) -> Result<(), JournalError> {
        Ok(())
    }

    /// The switch says it.
    fn is_cancelled(&mut self) -> bool {
        false
    }
}
