//! `assert.that`: fails unless every condition is true. Whoever renders the parameters evaluates the conditions: they
//! arrive as booleans, their source as `texts`.

use lockstep_apis::v1alpha::Value;

use crate::action::{Action, Done, Outcome, Scope};
use crate::parameters::Parameters;

/// `assert.that`.
pub(crate) struct That;

impl Action for That {
    fn name(&self) -> &'static str {
        "assert.that"
    }

    fn perform(&self, parameters: &Value, _scope: &mut Scope<'_>) -> Done {
        let mut from = Parameters::new(parameters, Some("conditions"));
        let conditions = from.value("conditions");
        let conditions = conditions.map_or(&[][..], |value| value.as_list().unwrap_or(std::slice::from_ref(value)));
        if conditions.is_empty() {
            from.fault("conditions is missing");
        }
        let texts = from.texts("texts");
        let message = from.text("message").filter(|message| !message.is_empty());
        for (nth, condition) in conditions.iter().enumerate().filter(|(_, value)| value.as_bool().is_none()) {
            from.fault(format!("condition {} is a {}, not true or false", name(&texts, nth), condition.type_word()));
        }
        if let Err(faults) = from.finish() {
            return Done::failed("InvalidParameters", faults);
        }
        match conditions.iter().position(|condition| condition.as_bool() != Some(true)) {
            None => Done::new(Outcome::Ok, "", []),
            Some(nth) => {
                let message = message.map(|message| format!("{message} ")).unwrap_or_default();
                Done::failed("AssertionFailed", format!("{message}({} is not true)", name(&texts, nth)))
            }
        }
    }
}

/// A condition as the book wrote it, or its number.
fn name(texts: &[String], nth: usize) -> String {
    texts.get(nth).cloned().unwrap_or_else(|| format!("number {}", nth + 1))
}
