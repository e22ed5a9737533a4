//! The tasks of a segment, one after another: condition, intent, rendering, action, judgement, result, report.
//! Shared by the executor's process and `run --local`; where notes and output go is behind [`Ledger`].
//!
//! Invariant: an action is performed only after its intent is in the ledger, and at most once.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lockstep_apis::v1alpha::{CompiledTask, Outcome, OutputChunk, OutputStream, TaskReport, Value};
use lockstep_core::{context::Context, expression::EvaluationError, parameters::TaskTexts};
use lockstep_modules::{Action, Cancel, Done, Host, Scope, Stream, Unsynced};

use crate::{
    gate::Gate,
    journal::JournalError,
    masking::Masker,
    output::TaskOutput,
    preparing::{Given, Prepared},
    results::{self, Ended},
    tries::{Next, Tries},
};

/// Where what happens is noted, in this order for each task: intent (if its action is performed), output, done.
pub(crate) trait Ledger {
    /// The task is about to be performed. On an error it is not.
    fn intent(&mut self, task: &CompiledTask, at_ms: u64) -> Result<(), JournalError>;
    /// A piece of its output. What cannot be kept is lost: a full log never fails a task.
    fn output(&mut self, task: &CompiledTask, chunk: OutputChunk);
    /// It has ended.
    fn done(&mut self, task: &CompiledTask, report: &TaskReport) -> Result<(), JournalError>;
    /// Somebody wants an end; asked before each task, beside the switch that ends a running one.
    fn is_cancelled(&mut self) -> bool;
}

/// What the tasks of a segment share.
pub(crate) struct Segment<'a> {
    pub host: &'a Host,
    pub cancel: &'a Cancel,
    pub grace: Duration,
    pub output_limit: u64,
    pub check: bool,
    pub diff: bool,
    pub context: Context,
    pub masker: Masker,
    pub unsynced: Unsynced,
    /// Bytes of results that the report may still take.
    pub results_left: usize,
}

/// How a task came out: its report, and whether the segment goes on.
struct Outgoing {
    report: TaskReport,
    stop: bool,
}

/// Milliseconds since the epoch, by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Segment<'_> {
    /// Runs the tasks until one fails or is cancelled; returns their reports, in order. Tasks that are not reached have
    /// none. An error of the ledger ends everything at once.
    pub(crate) fn run(
        &mut self,
        tasks: &[Prepared<'_>],
        ledger: &mut dyn Ledger,
    ) -> Result<Vec<TaskReport>, JournalError> {
        let mut reports = Vec::with_capacity(tasks.len());
        for Prepared { task, texts, gate } in tasks {
            let started = Instant::now();
            let at_ms = now_ms();
            let ended = match (texts, gate) {
                (_, Some(Ok(gate))) => self.gate(task, gate, at_ms, ledger)?,
                (Ok(texts), None) => self.task(task, texts, at_ms, ledger)?,
                (Err(message), None) | (_, Some(Err(message))) => Ended::failed(message.as_str()),
            };
            let Outgoing { mut report, stop } = self.outgoing(task, ended);
            report.started_ms = at_ms;
            report.duration_us = started.elapsed().as_micros() as u64;
            ledger.done(task, &report)?;
            reports.push(report);
            if stop {
                break;
            }
        }
        Ok(reports)
    }

    fn gate(
        &mut self,
        task: &CompiledTask,
        gate: &Gate<'_>,
        at_ms: u64,
        ledger: &mut dyn Ledger,
    ) -> Result<Ended, JournalError> {
        if self.cancel.is_thrown() || ledger.is_cancelled() {
            return Ok(Ended::new(Outcome::Cancelled, "cancelled before it started"));
        }
        ledger.intent(task, at_ms)?;
        Ok(self.pass(task, gate, ledger))
    }

    fn task(
        &mut self,
        task: &CompiledTask,
        texts: &TaskTexts,
        at_ms: u64,
        ledger: &mut dyn Ledger,
    ) -> Result<Ended, JournalError> {
        if self.cancel.is_thrown() || ledger.is_cancelled() {
            return Ok(Ended::new(Outcome::Cancelled, "cancelled before it started"));
        }
        match texts.when.as_ref().map(|when| when.evaluate_bool(&self.context)) {
            Some(Ok(false)) => return Ok(Ended::skipped()),
            Some(Err(error)) => return Ok(self.not_evaluated("when", &error)),
            Some(Ok(true)) | None => {}
        }
        // Rendered before the intent: what cannot be rendered was never begun.
        let given = match Given::render(task, texts, &self.context) {
            Ok(given) => given,
            Err(error) => return Ok(self.not_evaluated("parameters", &error)),
        };
        ledger.intent(task, at_ms)?;
        match lockstep_modules::action(&task.action) {
            Some(action) => Ok(self.try_out(action, task, texts, &given, ledger)),
            None => Ok(Ended::failed(format!("this program does not know the action {}", task.action))),
        }
    }

    /// Performs the action, and again as the task's `retries` say; its output is one.
    fn try_out(
        &mut self,
        action: &dyn Action,
        task: &CompiledTask,
        texts: &TaskTexts,
        given: &Given,
        ledger: &mut dyn Ledger,
    ) -> Ended {
        let mut output = None;
        let mut tries = Tries::of(task, texts, self.check);
        let ended = loop {
            let done = self.perform(action, task, given, &mut output, ledger);
            let ended = results::judge(task, texts, done, &self.context, self.check);
            match tries.after(ended, &self.context) {
                Next::Again(interval) if lockstep_modules::rest(self.cancel, interval) => {
                    break tries.cancelled();
                }
                Next::Again(_) => {}
                Next::Over(ended) => break ended,
            }
        };
        if let Some(output) = output {
            output.finish(now_ms(), &mut |chunk| ledger.output(task, chunk));
        }
        ended
    }

    fn not_evaluated(&self, field: &str, error: &EvaluationError) -> Ended {
        let outcome = if self.check && error.is_unknown() { Outcome::Unpredicted } else { Outcome::Failed };
        Ended::new(outcome, format!("{field}: {error}"))
    }

    fn perform(
        &mut self,
        action: &dyn Action,
        task: &CompiledTask,
        given: &Given,
        output: &mut Option<TaskOutput>,
        ledger: &mut dyn Ledger,
    ) -> Done {
        // What a secret task prints is the secret, known only when it is over: none of it is shown.
        let silent = task.sensitive || task.secret;
        let (masker, limit) = (&self.masker, self.output_limit);
        let mut print = |stream: Stream, bytes: &[u8]| {
            if silent || bytes.is_empty() {
                return;
            }
            let output = output.get_or_insert_with(|| TaskOutput::new(task.index, limit));
            let stream = if stream == Stream::Stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            output.push(masker, stream, bytes, now_ms(), &mut |chunk| ledger.output(task, chunk));
        };
        let done = action.perform(
            &given.parameters,
            &mut Scope {
                host: self.host,
                check: self.check,
                diff: self.diff && !silent,
                sensitive: silent,
                environment: &given.environment,
                user: named(&given.user),
                working_directory: named(&given.working_directory),
                timeout: (task.timeout_ms > 0).then(|| Duration::from_millis(task.timeout_ms)),
                cancel: self.cancel,
                grace: self.grace,
                output: &mut print,
                unsynced: &mut self.unsynced,
            },
        );
        if let Some(diff) = done.diff.as_ref().filter(|_| !silent) {
            let output = output.get_or_insert_with(|| TaskOutput::new(task.index, limit));
            output.push(masker, OutputStream::Diff, diff.text.as_bytes(), now_ms(), &mut |chunk| {
                ledger.output(task, chunk)
            });
        }
        done
    }

    /// Makes the report, masked, and gives the result to the tasks that follow.
    fn outgoing(&mut self, task: &CompiledTask, ended: Ended) -> Outgoing {
        let mut report = TaskReport {
            task: task.index,
            outcome: ended.outcome as i32,
            attempts: ended.attempts,
            // What was never tried is the book's fault, not the machine's.
            ignored: task.ignore_errors && ended.outcome == Outcome::Failed && ended.attempts > 0,
            ..Default::default()
        };
        let stop = results::is_end(&report);
        let (result, is_bare) = self.kept_result(task, &ended);
        report.message = self.message(task, ended.message);
        if is_bare {
            results::append(&mut report.message, "its secret is too short to be masked in what later tasks print");
        }
        if ended.is_unknown {
            self.context.mark_unknown(&task.id);
        }
        if let Some(result) = result {
            match results::size(&result) {
                size if size > results::MAX_RESULT_BYTES => {
                    results::append(&mut report.message, &format!("its result of {size} bytes is too long to keep"));
                }
                size if size > self.results_left => {
                    results::append(&mut report.message, "the segment's results are too long to keep this one");
                }
                size => {
                    self.results_left -= size;
                    report.result = Some(result.clone());
                }
            }
            self.learn(task, result);
        }
        Outgoing { report, stop }
    }

    /// The result if others may read it, and whether it is a secret that cannot be masked.
    fn kept_result(&mut self, task: &CompiledTask, ended: &Ended) -> (Option<Value>, bool) {
        if !(task.keep_result || task.shared || task.secret) {
            return (None, false);
        }
        let mut result = results::value(ended, task.sensitive && !task.secret);
        if task.secret {
            let is_bare = self.masker.add_value(&result);
            return (Some(result), is_bare);
        }
        self.masker.mask_value(&mut result);
        (Some(result), false)
    }

    fn message(&self, task: &CompiledTask, message: Cow<'static, str>) -> String {
        if message.is_empty() {
            return String::new();
        }
        if task.sensitive {
            return "not kept: the task is sensitive".to_owned();
        }
        let whole = message.strip_suffix('…');
        let masked = match whole {
            Some(cut) => format!("{}…", self.masker.mask_cut_text(cut)),
            None => self.masker.mask_text(&message).into_owned(),
        };
        results::clipped(masked)
    }

    /// Later tasks may read the result.
    pub(crate) fn learn(&mut self, task: &CompiledTask, result: Value) {
        if task.shared {
            self.context.add_shared(&task.id, result.clone());
        }
        self.context.add_result(&task.id, result);
    }
}

pub(crate) fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
