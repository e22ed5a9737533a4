//! A book's concurrency key: whether it is one, and what it is for a Run. Knows no other Run; who meets whom is
//! `protocol`'s to say.

use std::collections::BTreeSet;

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{Concurrency, ConcurrencyPolicy, RunSpec, TaskBookSpec, Violation};
use lockstep_apis::violation::of_field;

use crate::check::inputs;
use crate::context::Context;
use crate::expression::{Text, operators};
use crate::references::Root;

/// Longest key, in bytes: it is part of a store's key, each byte of which may take three.
pub const MAX_KEY_BYTES: usize = 253;

/// Where a book says it.
const FIELD: &str = "spec.concurrency.key";

/// What is wrong with a book's key.
pub(crate) fn check(own: &Concurrency, declared: &BTreeSet<&str>, violations: &mut Vec<Violation>) {
    let text = match Text::parse(&own.key) {
        Ok(text) => text,
        Err(error) => return violations.push(of_field("Expression", FIELD, error.to_string())),
    };
    for reference in text.references().iter() {
        let named = reference.path.first().map(String::as_str);
        let message = match (reference.root, named) {
            (Root::Inputs, Some(name)) if declared.contains(name) => continue,
            (Root::Inputs, None) => continue,
            (Root::Inputs, Some(name)) => {
                let near = nearest(name, declared.iter().copied());
                let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
                format!("the book has no input `{name}`{hint}")
            }
            _ => format!("reads `{reference}`: only `inputs` are known before a run is created"),
        };
        violations.push(of_field("Reference", FIELD, message));
    }
    if text.references().iter().next().is_none()
        && let Err(message) = is_key(&own.key)
    {
        violations.push(of_field("Format", FIELD, message));
    }
}

/// The key and policy of a Run of this book. `None`: the book has none, or `Allow`. Errors: inputs that do not fit, or
/// a key that they do not make.
pub fn of_run(book: &TaskBookSpec, run: &RunSpec) -> Result<Option<Concurrency>, Vec<Violation>> {
    // A check is in nobody's way.
    let own = book.concurrency.as_ref().filter(|own| own.given_policy() != ConcurrencyPolicy::Allow && !run.check);
    let Some(own) = own else {
        return Ok(None);
    };
    let inputs = inputs::resolve(&book.inputs, &run.inputs)?;
    let wrong = |reason: &str, message: String| vec![of_field(reason, "spec.taskBooks", message)];
    let text = Text::parse(&own.key).map_err(|error| wrong("Expression", error.to_string()))?;
    let value = text.render(&Context::new().with_inputs(&inputs));
    let value = value.map_err(|error| wrong("Expression", format!("the book's concurrency key: {error}")))?;
    let key = operators::scalar(&value).filter(|_| !value.is_null());
    let key = key.ok_or_else(|| {
        wrong("Expression", format!("the book's concurrency key is {}, and not a text", operators::described(&value)))
    })?;
    is_key(&key).map_err(|message| wrong("Format", format!("the book's concurrency key {message}")))?;
    Ok(Some(Concurrency { key: key.into_owned(), policy: own.given_policy().into() }))
}

fn is_key(key: &str) -> Result<(), String> {
    match key.len() {
        0 => Err("is empty".to_owned()),
        bytes if bytes > MAX_KEY_BYTES => Err(format!("has {bytes} bytes, and at most {MAX_KEY_BYTES} are possible")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::{Input, InputType, Value};

    fn book(key: &str, policy: ConcurrencyPolicy) -> TaskBookSpec {
        let region = Input { r#type: InputType::String.into(), required: true, ..Input::default() };
        let number = Input { r#type: InputType::Integer.into(), default: Some(Value::from(7)), ..Input::default() };
        let list = Input { r#type: InputType::List.into(), ..Input::default() };
        let inputs = [("region", region), ("number", number), ("list", list)];
        TaskBookSpec {
            inputs: inputs.map(|(name, input)| (name.to_owned(), input)).into(),
            concurrency: Some(Concurrency { key: key.into(), policy: policy.into() }),
            ..TaskBookSpec::default()
        }
    }

    fn run(region: &str) -> RunSpec {
        RunSpec { inputs: [("region".to_owned(), Value::text(region))].into(), ..RunSpec::default() }
    }

    fn key_of(key: &str, region: &str) -> Result<String, String> {
        match of_run(&book(key, ConcurrencyPolicy::Refuse), &run(region)) {
            Ok(found) => Ok(found.map(|found| found.key).unwrap_or_default()),
            Err(violations) => Err(violations[0].message.clone()),
        }
    }

    #[test]
    fn inputs_and_their_defaults_are_filled_in() {
        assert_eq!(key_of("deploy", "eu").unwrap(), "deploy");
        assert_eq!(key_of("deploy-${{ inputs.region }}/${{ inputs.number }}", "eu").unwrap(), "deploy-eu/7");
        assert_eq!(key_of("${{ inputs.number }}", "eu").unwrap(), "7");
    }

    #[test]
    fn what_makes_no_key_is_refused() {
        for (key, region, said) in [
            ("${{ inputs.region }}", "", "is empty"),
            ("${{ inputs.region }}", "x".repeat(254).as_str(), "has 254 bytes"),
            ("${{ inputs.list }}", "eu", "null"),
            ("${{ inputs.region + 1 }}", "eu", "inputs.region"),
        ] {
            let message = key_of(key, region).unwrap_err();
            assert!(message.contains(said), "{key}: {message}");
        }
        let missing = of_run(&book("a", ConcurrencyPolicy::Queue), &RunSpec::default()).unwrap_err();
        assert_eq!(missing[0].field, "spec.inputs.region");
    }

    #[test]
    fn queue_is_the_default_and_allow_has_no_key() {
        let found = of_run(&book("a", ConcurrencyPolicy::Unspecified), &run("eu")).unwrap().unwrap();
        assert_eq!(found.policy(), ConcurrencyPolicy::Queue);
        assert_eq!(of_run(&book("a", ConcurrencyPolicy::Allow), &run("eu")), Ok(None));
        assert_eq!(of_run(&TaskBookSpec::default(), &RunSpec::default()), Ok(None));
    }
}
