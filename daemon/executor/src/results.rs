//! How a task's end is judged and shaped: `success` and `changed`, the result other tasks read, sizes and messages.
//! Pure.

use std::borrow::Cow;

use lockstep_apis::v1alpha::{CompiledTask, Outcome, Value, value::Kind};
use lockstep_core::{context::Context, parameters::TaskTexts};
use lockstep_modules::Done;
use prost::Message;

/// Longest message of a report, in bytes.
pub(crate) const MESSAGE_BYTES: usize = 256;
/// Longest result of one task in a report.
pub(crate) const MAX_RESULT_BYTES: usize = 32 * 1024;
/// All results of a report together.
pub(crate) const MAX_RESULTS_BYTES: usize = 256 * 1024;

/// How a task ended, before it is reported.
#[derive(Debug)]
pub(crate) struct Ended {
    pub outcome: Outcome,
    pub message: Cow<'static, str>,
    /// What the action found, a map; null if it was not performed.
    pub found: Value,
    /// In a check: it did not run, so nobody can tell what later tasks would read of it.
    pub is_unknown: bool,
    /// How often its action was tried.
    pub attempts: u32,
}

impl Ended {
    pub(crate) fn new(outcome: Outcome, message: impl Into<Cow<'static, str>>) -> Self {
        let is_unknown = outcome == Outcome::Unpredicted;
        Self { outcome, message: message.into(), found: Value::null(), is_unknown, attempts: 0 }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, message.into())
    }

    /// The same, failed after all.
    pub(crate) fn failing(self, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, message: Cow::Owned(message.into()), is_unknown: false, ..self }
    }

    pub(crate) fn skipped() -> Self {
        Self::new(Outcome::Skipped, "")
    }
}

/// Puts the action's own judgement beneath those of `success` and `changed`.
pub(crate) fn judge(task: &CompiledTask, texts: &TaskTexts, done: Done, context: &Context, check: bool) -> Ended {
    let outcome = match done.outcome {
        lockstep_modules::Outcome::Ok => Outcome::Ok,
        lockstep_modules::Outcome::Changed => Outcome::Changed,
        lockstep_modules::Outcome::Failed => Outcome::Failed,
        lockstep_modules::Outcome::Cancelled => Outcome::Cancelled,
        lockstep_modules::Outcome::Unpredicted => Outcome::Unpredicted,
    };
    let is_command = task.action.starts_with("command.");
    // A command that would run changes something, but what it would print nobody knows.
    let is_unknown = outcome == Outcome::Unpredicted || (check && is_command && outcome == Outcome::Changed);
    let ended = Ended { outcome, message: done.message.into(), found: done.result, is_unknown, attempts: 1 };
    let judged = match ended.is_unknown || (texts.success.is_none() && texts.changed.is_none()) {
        true => ended,
        false => overridden(task, texts, ended, context),
    };
    if check && fails_for_now(task, &judged) {
        let message = format!("fails now, maybe not after the tasks before it: {}", judged.message);
        return Ended { found: judged.found, ..Ended::new(Outcome::Unpredicted, message) };
    }
    judged
}

/// Whether a query did not find what earlier tasks, which a check does not do, may make.
fn fails_for_now(task: &CompiledTask, ended: &Ended) -> bool {
    let ran = ended.found.get("exitCode").is_some_and(|code| !code.is_null());
    let reason = ended.found.get("reason").and_then(Value::as_text).unwrap_or_default();
    let missing = matches!(reason, "CommandNotFound" | "NoWorkingDirectory" | "NoSuchUser");
    task.action == "command.query" && ended.outcome == Outcome::Failed && (ran || missing)
}

/// In a check after a task that would have changed the machine: what fails now may not fail then.
pub(crate) fn softened(task: &CompiledTask, ended: Ended) -> Ended {
    let is_wrong = ended.found.get("reason").and_then(Value::as_text) == Some("InvalidParameters");
    if ended.outcome != Outcome::Failed || is_wrong || task.action == "assert.that" {
        return ended;
    }
    let message = format!("unless an earlier task changes that: {}", ended.message);
    Ended { attempts: ended.attempts, ..Ended::new(Outcome::Unpredicted, message) }
}

/// `success` judges any end but a cut one: of failures only those of a command that ran to its end, or of a request
/// that was answered.
fn overridden(task: &CompiledTask, texts: &TaskTexts, mut ended: Ended, context: &Context) -> Ended {
    let has = |key: &str| ended.found.get(key).is_some_and(|value| !value.is_null());
    let answered = ended.found.get("status").and_then(Value::as_integer).is_some_and(|status| status != 0);
    let ran = has("exitCode") || answered;
    match ended.outcome {
        Outcome::Ok | Outcome::Changed => {}
        Outcome::Failed if ran && texts.success.is_some() => {}
        _ => return ended,
    }
    let context = context.with_result(value(&ended, false));
    if let Some(success) = &texts.success {
        match success.evaluate_bool(&context) {
            Ok(true) if ended.outcome == Outcome::Failed => {
                let action = lockstep_apis::params::action(&task.action);
                let reads_only = action.is_some_and(|action| action.only_reads(task.parameters.as_ref()));
                ended.outcome = if reads_only { Outcome::Ok } else { Outcome::Changed };
                ended.message = Cow::Borrowed("");
            }
            Ok(true) => {}
            Ok(false) => {
                let message = unsuccessful(success.source(), &ended.message);
                return ended.failing(message);
            }
            Err(error) => return ended.failing(format!("success: {error}")),
        }
    }
    if let Some(changed) = &texts.changed {
        match changed.evaluate_bool(&context) {
            Ok(true) => ended.outcome = Outcome::Changed,
            Ok(false) => ended.outcome = Outcome::Ok,
            Err(error) => return ended.failing(format!("changed: {error}")),
        }
    }
    ended
}

fn unsuccessful(source: &str, message: &str) -> String {
    let because = if message.is_empty() { String::new() } else { format!(" ({message})") };
    format!("success is false: {source}{because}")
}

/// The result as other tasks read it: what the action found, with `changed`, `failed`, `skipped` and, if it was tried,
/// `attempts`; of a sensitive task only these. `stdout` and `stderr` lose the line end that every tool prints last.
pub(crate) fn value(ended: &Ended, flags_only: bool) -> Value {
    let mut entries = match &ended.found.kind {
        Some(Kind::Map(map)) if !flags_only => map.entries.clone(),
        _ => Default::default(),
    };
    for name in ["stdout", "stderr"] {
        if let Some(Kind::Text(text)) = entries.get_mut(name).and_then(|value| value.kind.as_mut())
            && text.ends_with('\n')
        {
            text.pop();
        }
    }
    entries.insert("changed".to_owned(), Value::from(ended.outcome == Outcome::Changed));
    entries.insert("failed".to_owned(), Value::from(ended.outcome == Outcome::Failed));
    entries.insert("skipped".to_owned(), Value::from(ended.outcome == Outcome::Skipped));
    if ended.attempts > 0 {
        entries.insert("attempts".to_owned(), Value::from(i64::from(ended.attempts)));
    }
    Value::from(entries)
}

/// Bytes that a result takes in a report.
pub(crate) fn size(result: &Value) -> usize {
    result.encoded_len()
}

/// Adds a sentence to a message; it is kept whole, and the message before it gives way.
pub(crate) fn append(message: &mut String, sentence: &str) {
    let room = MESSAGE_BYTES.saturating_sub(sentence.len() + 2);
    message.truncate(message.floor_char_boundary(room));
    if !message.is_empty() {
        message.push_str("; ");
    }
    message.push_str(sentence);
}

/// The message, at most [`MESSAGE_BYTES`] long.
pub(crate) fn clipped(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES - '…'.len_utf8()));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_says_how_the_task_ended() {
        let found = Value::map([("stdout", Value::text("x\n\n")), ("changed", Value::from(true))]);
        let ended = Ended { found, ..Ended::new(Outcome::Ok, "") };
        let result = value(&ended, false);
        assert_eq!(result.get("stdout").and_then(Value::as_text), Some("x\n"));
        assert_eq!(result.get("changed").and_then(Value::as_bool), Some(false));
        assert_eq!(result.get("failed").and_then(Value::as_bool), Some(false));
        assert_eq!(value(&ended, true).get("stdout"), None);
    }

    #[test]
    fn messages_stay_within_their_length() {
        assert_eq!(clipped("ä".repeat(200)).len(), 255);
        let mut message = "m".repeat(256);
        append(&mut message, "and this");
        assert_eq!(message.len(), 256);
        assert!(message.ends_with("; and this"));
    }
}
