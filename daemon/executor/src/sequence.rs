//! The tasks of a segment, one after another: condition, intent, rendering, action, judgement, result, report.
//! Shared by the executor's process and `run --local`; where notes and output go is behind [`Ledger`].
//!
//! Invariant: an action is performed only after its intent is in the ledger, and at most once.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lockstep_apis::v1alpha::{CompiledTask, NodeEvent, Outcome, OutputChunk, OutputStream, TaskReport, Value};
use lockstep_core::{
    compile::{VARIABLE_SET, reboots},
    context::Context,
    course::Course,
    expression::EvaluationError,
    parameters::TaskTexts,
    variables::variables_of,
};
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

/// A number that rises with every assignment of the cluster: for systems that refuse what an earlier holder still sends.
const FENCE_TOKEN: &str = "LOCKSTEP_FENCE_TOKEN";

/// The action after which facts are gathered anew.
pub(crate) const FACTS_REFRESH: &str = "facts.refresh";

/// Where what happens is noted, in this order for each task: intent (if its action is performed), output, done.
pub(crate) trait Ledger {
    /// The task is about to be performed. On an error it is not.
    fn intent(&mut self, task: &CompiledTask, at_ms: u64) -> Result<(), JournalError>;
    /// A piece of its output. What cannot be kept is lost: a full log never fails a task.
    fn output(&mut self, task: &CompiledTask, chunk: OutputChunk);
    /// It has ended.
    fn done(&mut self, task: &CompiledTask, report: &TaskReport) -> Result<(), JournalError>;
    /// The task is about to reboot the machine, which is to be back by then. On an error it does not.
    fn going_down(&mut self, task: &CompiledTask, until_ms: u64) -> Result<(), JournalError>;
    /// It tells something to the cluster. `false`: there is none. The error is a sentence; nothing is told then.
    fn raise(&mut self, event: NodeEvent) -> Result<bool, String>;
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
    /// In a check: an earlier task would have changed the machine.
    pub unsettled: bool,
    pub context: Context,
    pub masker: Masker,
    /// What commands see as [`FENCE_TOKEN`]; 0: nothing.
    pub fence_token: u64,
    pub unsynced: Unsynced,
    /// Bytes of results that the report may still take.
    pub results_left: usize,
    /// Somebody wants an end: what is still done then.
    pub ending: Option<Ending>,
}

/// What is done after a cancel, `always` alone, has what is left of the grace, and no other cancel ends it.
pub(crate) struct Ending {
    until: Instant,
    /// Never thrown. Without a descriptor for it nothing can be started.
    never: Option<Cancel>,
}

impl Ending {
    fn new(cancel: &Cancel, grace: Duration) -> Self {
        let from = cancel.thrown_at().unwrap_or_else(Instant::now);
        Self { until: from.checked_add(grace).unwrap_or(from), never: Cancel::new().ok() }
    }

    fn left(&self) -> Duration {
        match self.never {
            Some(_) => self.until.saturating_duration_since(Instant::now()),
            None => Duration::ZERO,
        }
    }
}

/// Milliseconds since the epoch, by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Segment<'_> {
    /// Runs the tasks that are due, in order, until none is; returns their reports. Tasks that are not reached have none.
    /// `known` are reports of tasks that ended before, by whoever did them. An error of the ledger ends everything at
    /// once.
    pub(crate) fn run(
        &mut self,
        tasks: &[Prepared<'_>],
        course: &mut Course<'_>,
        known: &[TaskReport],
        ledger: &mut dyn Ledger,
    ) -> Result<Vec<TaskReport>, JournalError> {
        let mut reports: Vec<TaskReport> = Vec::with_capacity(tasks.len());
        known.iter().for_each(|report| self.note_cancelled(report));
        while let Some(at) = course.resume(|task| known.iter().find(|report| report.task == task.index)) {
            let prepared = &tasks[at];
            let task = prepared.task;
            if task.together != 0 {
                self.together(tasks, course, &mut reports, ledger)?;
                continue;
            }
            if self.is_ended(ledger) {
                let report = self.outgoing(task, Ended::new(Outcome::Cancelled, "cancelled before it started"));
                ledger.done(task, &report)?;
                reports.push(report);
                course.refused(at);
                continue;
            }
            if !task.within.is_empty() {
                self.tell_failure(tasks, course, || reports.iter().chain(known));
            }
            let report = self.one(prepared, course.is_in_doubt(), ledger)?;
            course.ended(at, &report);
            reports.push(report);
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
        ledger.intent(task, at_ms)?;
        self.context.set_scope(task.scope);
        Ok(self.pass(task, gate, ledger))
    }

    /// Whether an end is wanted, and was not noticed so far. What is done after it was, is there for that: it is stopped
    /// by its time alone.
    pub(crate) fn is_ended(&mut self, ledger: &mut dyn Ledger) -> bool {
        if self.ending.is_some() || !(self.cancel.is_thrown() || ledger.is_cancelled()) {
            return false;
        }
        self.ending = Some(Ending::new(self.cancel, self.grace));
        true
    }

    /// Puts `failure` into the context, if the task is there for one.
    fn tell_failure<'r, R: Iterator<Item = &'r TaskReport>>(
        &mut self,
        tasks: &[Prepared<'_>],
        course: &Course<'_>,
        reports: impl FnOnce() -> R,
    ) {
        let fall = course.follows().map(|fall| tasks[fall.at].task);
        let Some(task) = fall else { return self.context.set_failure("", "", "") };
        let report = reports().find(|report| report.task == task.index);
        self.context.set_failure(&task.id, &task.name, report.map_or("", |report| &report.message));
    }

    /// Does one task; it is noted.
    fn one(
        &mut self,
        Prepared { task, texts, gate }: &Prepared<'_>,
        is_in_doubt: bool,
        ledger: &mut dyn Ledger,
    ) -> Result<TaskReport, JournalError> {
        let (started, at_ms) = (Instant::now(), now_ms());
        let ended = match (texts, gate) {
            _ if !task.left_out.is_empty() => Ended::new(Outcome::Skipped, task.left_out.clone()),
            _ if is_in_doubt => Ended::new(Outcome::Unpredicted, "nobody can tell whether it would be notified"),
            (_, Some(Ok(gate))) => self.gate(task, gate, at_ms, ledger)?,
            (Ok(texts), None) => self.whole(task, texts, at_ms, ledger)?,
            (Err(message), None) | (_, Some(Err(message))) => Ended::failed(message.as_str()),
        };
        let mut report = self.outgoing(task, ended);
        report.started_ms = at_ms;
        report.duration_us = started.elapsed().as_micros() as u64;
        ledger.done(task, &report)?;
        self.note_cancelled(&report);
        Ok(report)
    }

    /// What ends a running task.
    fn switch(&self) -> &Cancel {
        self.ending.as_ref().and_then(|ending| ending.never.as_ref()).unwrap_or(self.cancel)
    }

    pub(crate) fn note_cancelled(&mut self, report: &TaskReport) {
        if report.outcome() == Outcome::Cancelled && self.ending.is_none() {
            self.ending = Some(Ending::new(self.cancel, self.grace));
        }
    }

    /// Does a task once, for the item that is in the context if it has any.
    pub(crate) fn task(
        &mut self,
        task: &CompiledTask,
        texts: &TaskTexts,
        at_ms: u64,
        ledger: &mut dyn Ledger,
    ) -> Result<Ended, JournalError> {
        match texts.is_wanted(&self.context) {
            Ok(false) => return Ok(Ended::skipped()),
            Err(error) => return Ok(self.not_evaluated("when", &error)),
            Ok(true) => {}
        }
        // Rendered before the intent: what cannot be rendered was never begun.
        let mut given = match Given::render(task, texts, &self.context) {
            Ok(given) => given,
            Err(error) => return Ok(self.not_evaluated("parameters", &error)),
        };
        if self.ending.as_ref().is_some_and(|ending| ending.left().is_zero()) {
            return Ok(Ended::new(Outcome::Cancelled, "cancelled, and no time of its grace was left"));
        }
        if self.fence_token > 0 {
            given.environment.entry(FENCE_TOKEN.to_owned()).or_insert_with(|| self.fence_token.to_string());
        }
        ledger.intent(task, at_ms)?;
        match lockstep_modules::action(&task.action) {
            Some(action) if reboots(&task.action) => self.reboot(action, task, texts, &given, ledger),
            Some(action) => {
                let ended = self.try_out(action, task, texts, &given, ledger);
                if task.action == FACTS_REFRESH && ended.outcome == Outcome::Ok {
                    self.context.refresh_facts();
                }
                Ok(ended)
            }
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
            let ended = if self.check && self.unsettled { results::softened(task, ended) } else { ended };
            match tries.after(ended, &self.context) {
                Next::Again(interval) if lockstep_modules::rest(self.switch(), interval) => {
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

    pub(crate) fn not_evaluated(&self, field: &str, error: &EvaluationError) -> Ended {
        let outcome = if self.check && error.is_unknown() { Outcome::Unpredicted } else { Outcome::Failed };
        Ended::new(outcome, format!("{field}: {error}"))
    }

    pub(crate) fn perform(
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
        let timeout = (task.timeout_ms > 0).then(|| Duration::from_millis(task.timeout_ms));
        let (grace, timeout) = match &self.ending {
            Some(ending) => (Duration::ZERO, Some(ending.left().min(timeout.unwrap_or(Duration::MAX)))),
            None => (self.grace, timeout),
        };
        let cancel = self.ending.as_ref().and_then(|ending| ending.never.as_ref()).unwrap_or(self.cancel);
        let mut print = |stream: Stream, bytes: &[u8]| {
            if silent || bytes.is_empty() {
                return;
            }
            let output = output.get_or_insert_with(|| TaskOutput::new(task.index, limit));
            let stream = if stream == Stream::Stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            output.push(masker, stream, bytes, now_ms(), &mut |chunk| ledger.output(task, chunk));
        };
        let mut done = action.perform(
            &given.parameters,
            &mut Scope {
                host: self.host,
                check: self.check,
                diff: self.diff && !silent,
                unsettled: self.unsettled,
                sensitive: silent,
                environment: &given.environment,
                user: named(&given.user),
                working_directory: named(&given.working_directory),
                timeout,
                cancel,
                grace,
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
        match done.event.take() {
            Some(event) => self.raise(*event, done, ledger),
            None => done,
        }
    }

    /// Hands an Event on, masked.
    fn raise(&self, mut event: NodeEvent, done: Done, ledger: &mut dyn Ledger) -> Done {
        if let Some(spec) = &mut event.spec {
            spec.message = self.masker.mask_text(&spec.message).into_owned();
            spec.data.iter_mut().for_each(|data| self.masker.mask_value(data));
        }
        for value in event.labels.values_mut() {
            *value = self.masker.mask_text(value).into_owned();
        }
        match ledger.raise(event) {
            Ok(true) => done,
            Ok(false) => Done::new(lockstep_modules::Outcome::Ok, "raised nothing: there is no cluster to tell", []),
            Err(problem) => Done::failed("NotRaised", problem),
        }
    }

    /// Makes the report, masked, and gives the result to the tasks that follow.
    pub(crate) fn outgoing(&mut self, task: &CompiledTask, ended: Ended) -> TaskReport {
        let mut report = TaskReport {
            task: task.index,
            outcome: ended.outcome as i32,
            attempts: ended.attempts,
            unknown: ended.is_unknown,
            // What was never tried is the book's fault, not the machine's.
            ignored: task.ignore_errors && ended.outcome == Outcome::Failed && ended.attempts > 0,
            ..Default::default()
        };
        let (result, is_bare) = self.kept_result(task, &ended);
        report.message = self.message(task, ended.message);
        if is_bare {
            results::append(&mut report.message, "its secret is too short to be masked in what later tasks print");
        }
        self.settle(task, &report);
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
        report
    }

    /// The result if others may read it, and whether it is a secret that cannot be masked.
    fn kept_result(&mut self, task: &CompiledTask, ended: &Ended) -> (Option<Value>, bool) {
        if ended.is_unknown || !(task.keep_result || task.shared || task.secret) {
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

    /// Notes what a check cannot know after this task.
    pub(crate) fn settle(&mut self, task: &CompiledTask, report: &TaskReport) {
        if report.unknown {
            self.context.mark_unknown(&task.id);
            variables_of(task).for_each(|name| self.context.mark_variable_unknown(name));
        }
        self.unsettle(report.outcome());
    }

    /// Notes that a check does not know the machine any more, if what ended so would have changed it.
    pub(crate) fn unsettle(&mut self, outcome: Outcome) {
        self.unsettled |= self.check && matches!(outcome, Outcome::Changed | Outcome::Unpredicted);
    }

    /// Later tasks may read the result.
    pub(crate) fn learn(&mut self, task: &CompiledTask, result: Value) {
        if task.action == VARIABLE_SET
            && let Some(values) = result.get("values").and_then(Value::as_map)
        {
            self.context.add_variables(values);
        }
        if task.shared {
            self.context.add_shared(&task.id, result.clone());
        }
        self.context.add_result(&task.id, result);
    }
}

pub(crate) fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
