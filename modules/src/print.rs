//! `debug.print`: says something, and changes nothing.

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Function, Outcome, Stream};
use crate::parameters::Parameters;

/// `debug.print`.
pub(crate) static PRINT: Function = Function {
    name: "debug.print",
    perform: |given, scope| {
        // A map that an expression yields is the message itself; what a book writes was checked when it was applied.
        let whole = given.as_map().is_some() && given.get("message").is_none();
        let mut from = if whole { Parameters::of("message", given) } else { Parameters::new(given, Some("message")) };
        let message = from.value("message");
        if message.is_none() {
            from.fault("message is missing");
        }
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        let text = message.map(text).unwrap_or_default();
        (scope.output)(Stream::Stdout, format!("{text}\n").as_bytes());
        let message = if scope.sensitive { String::new() } else { text };
        Ok(Done::new(Outcome::Ok, message, []))
    },
};

/// A text as it is, anything else as JSON.
fn text(value: &Value) -> String {
    match value.as_text() {
        Some(text) => text.to_owned(),
        None => serde_json::Value::from(value).to_string(),
    }
}
