//! A rollout group's health gate: its checks are done again and again until its condition holds, for as long as it must,
//! or its limit is reached. Reads only; what checks print is not kept, how each look came out is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lockstep_apis::v1alpha::{CompiledGate, CompiledTask, Outcome, OutputStream};
use lockstep_core::{
    context::Context,
    expression::Expression,
    parameters::{TaskTexts, WrongText},
    references::{References, Root},
    template::TemplateCache,
};
use lockstep_modules::{Action, Scope, Stream};

use crate::{
    output::TaskOutput,
    preparing::{Given, said},
    results::{self, Ended},
    sequence::{Ledger, Segment, named, now_ms},
};

/// A gate, parsed.
#[derive(Debug)]
pub(crate) struct Gate<'w> {
    of: &'w CompiledGate,
    checks: Vec<Check<'w>>,
    /// `None`: every check must end well.
    condition: Option<Expression>,
}

#[derive(Debug)]
struct Check<'w> {
    task: &'w CompiledTask,
    texts: Arc<TaskTexts>,
    /// The condition reads it, and so judges it.
    is_judged: bool,
}

impl<'w> Gate<'w> {
    /// Parses it; the error names the fields.
    pub(crate) fn of(of: &'w CompiledGate, cache: &mut TemplateCache) -> Result<Self, String> {
        let condition = (!of.condition.is_empty()).then(|| Expression::parse(&of.condition)).transpose();
        let condition = condition.map_err(|error| said(&[WrongText { field: "condition".to_owned(), error }]))?;
        let mut checks = Vec::with_capacity(of.checks.len());
        for task in &of.checks {
            let texts = TaskTexts::of_compiled(task, cache).map_err(|wrong| said(&wrong))?;
            let reads = |condition: &Expression| condition.references().ids(Root::Checks).any(|id| id == task.id);
            let is_judged = condition.as_ref().is_some_and(reads);
            checks.push(Check { task, texts: Arc::new(texts), is_judged });
        }
        Ok(Gate { of, checks, condition })
    }

    /// All that it reads.
    pub(crate) fn references(&self) -> References {
        let mut references = References::default();
        self.condition.iter().for_each(|condition| references.extend(condition.references()));
        self.checks.iter().for_each(|check| references.extend(&check.texts.references()));
        references
    }

    /// Why it is shut by these results; `None`: it is open. A condition that has no answer (a check that got none has no
    /// `status` to read) is not true yet.
    fn shut(&self, context: &Context, ends: &[Ended]) -> Option<String> {
        let failed = || self.checks.iter().zip(ends).filter(|(_, ended)| ended.outcome == Outcome::Failed);
        let unjudged = failed().filter(|(check, _)| !check.is_judged);
        let mut reasons: Vec<String> = unjudged.map(|(check, ended)| said_of(check.task, ended)).collect();
        if let Some(condition) = &self.condition {
            let judged =
                || failed().filter(|(check, _)| check.is_judged).map(|(check, ended)| said_of(check.task, ended));
            match condition.evaluate_bool(context) {
                Ok(true) => {}
                Ok(false) => {
                    reasons.extend(std::iter::once(format!("{} is false", condition.source())).chain(judged()))
                }
                Err(error) => {
                    let before = reasons.len();
                    reasons.extend(judged());
                    if reasons.len() == before {
                        reasons.push(format!("condition: {error}"));
                    }
                }
            }
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

fn said_of(task: &CompiledTask, ended: &Ended) -> String {
    let why = if ended.message.is_empty() { "failed" } else { &ended.message };
    format!("{}: {why}", task.id)
}

/// What is known after some looks.
#[derive(Debug, Default)]
struct Vigil {
    /// Looks that found it shut.
    shut: u32,
    /// Since when it was found open at every look.
    open_since: Option<Duration>,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Look again after this.
    Look(Duration),
    /// It was open for long enough.
    Open,
    /// It was shut too often.
    Shut,
}

impl Vigil {
    /// Takes in a look that ended at `now` (since the first began).
    fn saw(&mut self, open: bool, now: Duration, gate: &CompiledGate) -> Next {
        let interval = Duration::from_millis(gate.interval_ms);
        if !open {
            self.open_since = None;
            self.shut += 1;
            return if self.shut < gate.limit { Next::Look(interval) } else { Next::Shut };
        }
        let since = *self.open_since.get_or_insert(now);
        let left = (since + Duration::from_millis(gate.soak_ms)).saturating_sub(now);
        // The last look is at the soak's end, not after it.
        if left.is_zero() { Next::Open } else { Next::Look(interval.min(left)) }
    }
}

impl Segment<'_> {
    /// Waits at the gate of the segment's group.
    pub(crate) fn pass(&mut self, task: &CompiledTask, gate: &Gate<'_>, ledger: &mut dyn Ledger) -> Ended {
        if self.check {
            return Ended::new(Outcome::Skipped, "a check waits at no gate");
        }
        let began = Instant::now();
        let mut vigil = Vigil::default();
        let mut output = TaskOutput::new(task.index, self.output_limit);
        let ended = loop {
            let why = match self.look(gate) {
                Ok(why) => why,
                Err(cancelled) => break cancelled,
            };
            let next = vigil.saw(why.is_none(), began.elapsed(), gate.of);
            let count = format!("gate: {} of {}", vigil.shut, gate.of.limit);
            let line = match (&why, &next) {
                (Some(why), _) => format!("{count}: {why}\n"),
                (None, Next::Open) => "gate: open\n".to_owned(),
                (None, _) => {
                    format!("gate: open, and must stay so for {}\n", lockstep_apis::duration::format(gate.of.soak_ms))
                }
            };
            output.push(&self.masker, OutputStream::Stdout, line.as_bytes(), now_ms(), &mut |chunk| {
                ledger.output(task, chunk)
            });
            match next {
                Next::Open => break Ended::new(Outcome::Ok, ""),
                Next::Shut => break Ended::failed(format!("{count}: {}", why.unwrap_or_default())),
                Next::Look(after) => {
                    if lockstep_modules::rest(self.cancel, after) || ledger.is_cancelled() {
                        break Ended::new(Outcome::Cancelled, "cancelled at the gate");
                    }
                }
            }
        };
        output.finish(now_ms(), &mut |chunk| ledger.output(task, chunk));
        ended
    }

    /// Does all checks once. The answer: why the gate is shut; an error is the end of all looking.
    fn look(&mut self, gate: &Gate<'_>) -> Result<Option<String>, Ended> {
        let mut context = self.context.clone();
        let mut ends = Vec::with_capacity(gate.checks.len());
        for check in &gate.checks {
            let ended = match Given::render(check.task, &check.texts, &context) {
                Ok(given) => match lockstep_modules::action(&check.task.action) {
                    Some(action) => self.check_once(action, check, &given, &context),
                    None => Ended::failed(format!("this program does not know the action {}", check.task.action)),
                },
                Err(error) => Ended::failed(format!("parameters: {error}")),
            };
            if ended.outcome == Outcome::Cancelled {
                return Err(Ended::new(Outcome::Cancelled, "cancelled at the gate"));
            }
            context.add_check(&check.task.id, results::value(&ended, false));
            ends.push(ended);
        }
        Ok(gate.shut(&context, &ends))
    }

    fn check_once(&mut self, action: &dyn Action, check: &Check<'_>, given: &Given, context: &Context) -> Ended {
        let task = check.task;
        let done = action.perform(
            &given.parameters,
            &mut Scope {
                host: self.host,
                check: false,
                unsettled: false,
                diff: false,
                sensitive: false,
                environment: &given.environment,
                user: named(&given.user),
                working_directory: named(&given.working_directory),
                timeout: (task.timeout_ms > 0).then(|| Duration::from_millis(task.timeout_ms)),
                cancel: self.cancel,
                grace: self.grace,
                output: &mut |_: Stream, _: &[u8]| {},
                unsynced: &mut self.unsynced,
            },
        );
        results::judge(task, &check.texts, done, context, false)
    }
}

#[cfg(test)]
mod tests;
