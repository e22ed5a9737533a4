//! `loop`: one task for each of its items, in order; one end of all of them.

use lockstep_apis::v1alpha::{CompiledTask, Outcome, Value, value::Kind};
use lockstep_core::parameters::TaskTexts;

use crate::{
    journal::JournalError,
    results::{self, Ended},
    sequence::{Ledger, Segment},
};

/// Longest name of an item in a message, in characters.
const NAME_CHARACTERS: usize = 60;

impl Segment<'_> {
    /// Does a task, or each item of a looped one.
    pub(crate) fn whole(
        &mut self,
        task: &CompiledTask,
        texts: &TaskTexts,
        at_ms: u64,
        ledger: &mut dyn Ledger,
    ) -> Result<Ended, JournalError> {
        self.context.set_scope(task.scope);
        if task.r#loop.is_none() {
            return self.task(task, texts, at_ms, ledger);
        }
        // Items need not be there for a task that is not wanted.
        match texts.is_wanted_at_all(&self.context) {
            Ok(true) => {}
            Ok(false) => return Ok(Ended::skipped()),
            Err(error) => return Ok(self.not_evaluated("when", &error)),
        }
        let items = match texts.items(&self.context).unwrap_or_else(|| Ok(Vec::new())) {
            Ok(items) => items,
            Err(error) => return Ok(self.not_evaluated("loop", &error)),
        };
        if items.len() > task.loop_limit as usize {
            let message = format!(
                "LoopLimit: {} items, and at most {} are allowed: raise `loopLimit`",
                items.len(),
                task.loop_limit
            );
            return Ok(Ended::failed(message));
        }
        let ended = self.each(task, texts, items, at_ms, ledger);
        self.context.clear_item();
        ended
    }

    fn each(
        &mut self,
        task: &CompiledTask,
        texts: &TaskTexts,
        items: Vec<Value>,
        at_ms: u64,
        ledger: &mut dyn Ledger,
    ) -> Result<Ended, JournalError> {
        let mut looped = Looped { count: items.len(), ..Looped::default() };
        for (index, item) in items.into_iter().enumerate() {
            let cancelled = index > 0 && self.ending.is_none() && (self.cancel.is_thrown() || ledger.is_cancelled());
            let ended = if cancelled {
                Ended::new(Outcome::Cancelled, "cancelled before it started")
            } else {
                self.context.set_item(item.clone(), index);
                self.task(task, texts, at_ms, ledger)?
            };
            // For a check each item is a task before the next one.
            self.unsettle(ended.outcome);
            if !looped.goes_on_after(index, item, ended, task.ignore_errors) {
                break;
            }
        }
        Ok(looped.ended())
    }
}

/// What the items came to so far.
#[derive(Default)]
struct Looped {
    count: usize,
    results: Vec<Value>,
    /// The worst, and what it says.
    worst: Option<(Outcome, String)>,
    is_unknown: bool,
    attempts: u32,
}

impl Looped {
    /// Takes in the end of an item, and says whether the next one follows.
    fn goes_on_after(&mut self, index: usize, item: Value, ended: Ended, ignores: bool) -> bool {
        let message = match ended.message.as_ref() {
            "" => String::new(),
            message => format!("item {} of {} ({}): {message}", index + 1, self.count, name(&item)),
        };
        if self.worst.as_ref().is_none_or(|(worst, _)| rank(ended.outcome) > rank(*worst)) {
            self.worst = Some((ended.outcome, message));
        }
        self.is_unknown |= ended.is_unknown;
        self.attempts = self.attempts.max(ended.attempts);
        let mut result = results::value(&ended, false);
        if let Some(Kind::Map(map)) = &mut result.kind {
            map.entries.insert("item".to_owned(), item);
        }
        self.results.push(result);
        match ended.outcome {
            Outcome::Failed => ignores && ended.attempts > 0,
            outcome => rank(outcome) < rank(Outcome::Failed),
        }
    }

    fn ended(self) -> Ended {
        let (outcome, message) =
            self.worst.unwrap_or_else(|| (Outcome::Skipped, "there is nothing to loop over".to_owned()));
        Ended {
            outcome,
            message: message.into(),
            found: Value::map([("items", Value::list(self.results))]),
            is_unknown: self.is_unknown,
            attempts: self.attempts,
        }
    }
}

fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Unspecified | Outcome::Skipped => 0,
        Outcome::Ok => 1,
        Outcome::Changed => 2,
        Outcome::Unpredicted => 3,
        Outcome::Failed => 4,
        Outcome::Cancelled | Outcome::Interrupted | Outcome::Lost => 5,
    }
}

/// What an item is called: its text, or what it has as `name` or `key`; else nothing but its number says which it is.
fn name(item: &Value) -> String {
    let named = ["name", "key"].into_iter().find_map(|field| item.get(field));
    let text = match &named.unwrap_or(item).kind {
        Some(Kind::Text(text)) => text.clone(),
        Some(Kind::Integer(integer)) => integer.to_string(),
        Some(Kind::Boolean(boolean)) => boolean.to_string(),
        _ => "…".to_owned(),
    };
    text.chars().take(NAME_CHARACTERS).collect()
}
