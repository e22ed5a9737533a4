//! `retries`: whether a task that came out like this is tried again. Pure; waiting is the caller's.

use std::time::Duration;

use lockstep_apis::v1alpha::{CompiledTask, Outcome};
use lockstep_core::{
    context::Context,
    expression::{EvaluationError, Expression},
    parameters::TaskTexts,
};

use crate::results::{self, Ended};

/// The tries of one task.
#[derive(Debug)]
pub(crate) struct Tries<'t> {
    /// `None`: there is one.
    left: Option<u32>,
    interval: Duration,
    until: Option<&'t Expression>,
    check: bool,
    made: u32,
    changed: bool,
}

/// What follows a try.
#[derive(Debug)]
pub(crate) enum Next {
    /// Another one, after this time.
    Again(Duration),
    /// Nothing: so the task ended.
    Over(Ended),
}

impl<'t> Tries<'t> {
    pub(crate) fn of(task: &CompiledTask, texts: &'t TaskTexts, check: bool) -> Self {
        Self {
            left: task.retries.as_ref().map(|retries| retries.limit),
            interval: Duration::from_millis(task.retries.as_ref().map_or(0, |retries| retries.interval_ms)),
            until: texts.until.as_ref(),
            check,
            made: 0,
            changed: false,
        }
    }

    /// What follows a try that came out like this.
    pub(crate) fn after(&mut self, mut ended: Ended, context: &Context) -> Next {
        self.made += 1;
        self.changed |= ended.outcome == Outcome::Changed;
        ended.attempts = self.made;
        let Some(left) = self.left else { return Next::Over(ended) };
        if ended.is_unknown || ended.outcome == Outcome::Cancelled {
            return Next::Over(ended);
        }
        match self.suffices(&ended, context) {
            Err(error) => Next::Over(ended.failing(format!("until: {error}"))),
            Ok(true) => {
                // What an earlier try changed stays changed.
                if self.changed && ended.outcome == Outcome::Ok {
                    ended.outcome = Outcome::Changed;
                }
                Next::Over(ended)
            }
            Ok(false) if self.check => {
                let unknown =
                    Ended::new(Outcome::Unpredicted, "a run tries again, and nobody can tell what that brings");
                Next::Over(Ended { attempts: self.made, ..unknown })
            }
            Ok(false) if left > 0 => {
                self.left = Some(left - 1);
                Next::Again(self.interval)
            }
            Ok(false) => Next::Over(self.given_up(ended)),
        }
    }

    /// Cancelled between two tries.
    pub(crate) fn cancelled(&self) -> Ended {
        Ended { attempts: self.made, ..Ended::new(Outcome::Cancelled, "cancelled before it was tried again") }
    }

    fn suffices(&self, ended: &Ended, context: &Context) -> Result<bool, EvaluationError> {
        match self.until {
            Some(until) => until.evaluate_bool(&context.with_result(results::value(ended, false))),
            None => Ok(ended.outcome != Outcome::Failed),
        }
    }

    fn given_up(&self, ended: Ended) -> Ended {
        let tried = format!("tried {} times", self.made);
        let message = match self.until {
            Some(until) => {
                let because = if ended.message.is_empty() { String::new() } else { format!(" ({})", ended.message) };
                format!("{tried}, and never came true: {}{because}", until.source())
            }
            None => format!("{tried}: {}", ended.message),
        };
        ended.failing(message)
    }
}
