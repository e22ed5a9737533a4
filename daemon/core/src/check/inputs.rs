//! Inputs: what a book declares, and whether what a Run gives fits.

use std::collections::BTreeMap;

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{Input, InputType, Value, Violation, value::Kind};
use lockstep_apis::violation::of_field;
use regex::Regex;

use crate::expression::operators::described;

/// Longest pattern once compiled, in bytes.
const PATTERN_BYTES: usize = 256 * 1024;

/// What is wrong with declarations themselves.
pub(crate) fn declarations(inputs: &BTreeMap<String, Input>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, input) in inputs {
        let field = format!("spec.inputs.{name}");
        let mut wrong = |below: &str, message: String| {
            violations.push(of_field("Input", format!("{field}{below}"), message));
        };
        let identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !identifier {
            wrong("", format!("`{name}` cannot be read as `inputs.{name}`: use letters, digits and `_`"));
        }
        if !input.pattern.is_empty() {
            if input.r#type() != InputType::String {
                wrong(".pattern", "only inputs of type string have a pattern".to_owned());
            }
            if let Err(message) = whole(&input.pattern) {
                wrong(".pattern", message);
            }
        }
        for (index, value) in input.r#enum.iter().enumerate() {
            if let Err(message) = is_of_type(value, input.r#type()) {
                wrong(&format!(".enum[{index}]"), message);
            }
        }
        if let Some(default) = &input.default
            && let Err(message) = fits(default, input)
        {
            wrong(".default", message);
        }
    }
    violations
}

/// The Run's inputs with defaults filled in, or all that is wrong with them.
pub fn resolve(
    declared: &BTreeMap<String, Input>,
    given: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, Vec<Violation>> {
    let mut violations = Vec::new();
    let mut inputs = BTreeMap::new();
    for (name, value) in given {
        let field = format!("spec.inputs.{name}");
        match declared.get(name) {
            None => {
                let hint = match nearest(name, declared.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if declared.is_empty() => "the book declares none".to_owned(),
                    None => format!("it declares {}", declared.keys().cloned().collect::<Vec<_>>().join(", ")),
                };
                let message = format!("the book has no input `{name}`: {hint}");
                violations.push(of_field("UnknownInput", field, message));
            }
            Some(input) => match fits(value, input) {
                Ok(()) => {
                    inputs.insert(name.clone(), value.clone());
                }
                Err(message) => violations.push(of_field("Input", field, message)),
            },
        }
    }
    for (name, input) in declared.iter().filter(|(name, _)| !given.contains_key(*name)) {
        match &input.default {
            Some(default) => {
                inputs.insert(name.clone(), default.clone());
            }
            None if input.required => {
                let hint =
                    if input.description.is_empty() { String::new() } else { format!(" ({})", input.description) };
                let message = format!("the input `{name}`{hint} is required: give it with `--input {name}=…`");
                violations.push(of_field("Required", format!("spec.inputs.{name}"), message));
            }
            // Declared, so that a condition may ask for it.
            None => {
                inputs.insert(name.clone(), Value::null());
            }
        }
    }
    if violations.is_empty() { Ok(inputs) } else { Err(violations) }
}

fn fits(value: &Value, input: &Input) -> Result<(), String> {
    is_of_type(value, input.r#type())?;
    if !input.pattern.is_empty()
        && let Some(text) = value.as_text()
        && !whole(&input.pattern)?.is_match(text)
    {
        return Err(format!("{} does not match the pattern `{}`", described(value), input.pattern));
    }
    if !input.r#enum.is_empty() && !input.r#enum.contains(value) {
        let all: Vec<String> = input.r#enum.iter().map(crate::expression::operators::quoted).collect();
        return Err(format!("{} is none of {}", described(value), all.join(", ")));
    }
    Ok(())
}

fn is_of_type(value: &Value, wanted: InputType) -> Result<(), String> {
    let (fits, word) = match wanted {
        InputType::Unspecified => (true, ""),
        InputType::String => (matches!(value.kind, Some(Kind::Text(_))), "a string"),
        InputType::Integer => (matches!(value.kind, Some(Kind::Integer(_))), "an integer"),
        InputType::Number => (matches!(value.kind, Some(Kind::Integer(_) | Kind::Number(_))), "a number"),
        InputType::Boolean => (matches!(value.kind, Some(Kind::Boolean(_))), "true or false"),
        InputType::List => (matches!(value.kind, Some(Kind::List(_))), "a list"),
        InputType::Map => (matches!(value.kind, Some(Kind::Map(_))), "a map"),
    };
    if fits { Ok(()) } else { Err(format!("must be {word}, and is {}", described(value))) }
}

/// A pattern that must match the whole text.
fn whole(pattern: &str) -> Result<Regex, String> {
    // Compiled alone first, so that no bracket of it closes ours.
    crate::expression::compiled_pattern(pattern, PATTERN_BYTES)?;
    crate::expression::compiled_pattern(&format!("^(?:{pattern})$"), PATTERN_BYTES)
}
