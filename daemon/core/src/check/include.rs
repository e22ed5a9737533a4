//! Includes: what they hand over, against what the included book declares.

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::{InputScope, Value, Violation, value::Kind};
use lockstep_apis::violation::of_field;

use super::inputs;
use crate::context::Context;
use crate::expression::Interpolated;
use crate::outline::{Included, Outline};
use crate::references::{References, Root};

/// What is wrong with includes, as far as it can be told before inputs have values.
pub(super) fn check(outline: &Outline<'_>, violations: &mut Vec<Violation>) {
    violations.extend(outline.wrong.iter().cloned());
    for included in &outline.included {
        for (name, value) in included.inputs {
            let mut object = |reason, message| {
                violations.push(of_field(reason, format!("{}.inputs.{name}", included.field), message));
            };
            match Interpolated::parse(value) {
                Err(errors) => errors.into_iter().for_each(|(_, error)| object("Expression", error.to_string())),
                Ok(parsed) => {
                    let mut read = References::default();
                    parsed.collect(&mut read);
                    if let Some(other) = read.iter().find(|reference| reference.root != Root::Inputs) {
                        let message = format!(
                            "reads `{other}`: only `inputs` are known before a run begins; the included tasks may read it \
                             themselves"
                        );
                        object("Reference", message);
                    }
                }
            }
        }
        let (known, later): (BTreeMap<_, _>, BTreeMap<_, _>) = included
            .inputs
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .partition(|(_, value)| is_plain(value));
        let mut declared = included.book.inputs.clone();
        // Of what kind these are is known when they have values.
        for name in later.keys().filter(|name| included.book.inputs.contains_key(*name)) {
            declared.remove(name);
        }
        let unknown = later.into_iter().filter(|(name, _)| !included.book.inputs.contains_key(name));
        let given = known.into_iter().chain(unknown).collect();
        violations.extend(
            inputs::resolve(&declared, &given).err().into_iter().flatten().map(|wrong| placed(included, wrong)),
        );
    }
}

/// The inputs of each include, filled in, for a Run with these inputs.
pub(crate) fn scopes(
    outline: &Outline<'_>,
    of_run: &BTreeMap<String, Value>,
) -> Result<Vec<InputScope>, Vec<Violation>> {
    let mut scopes: Vec<InputScope> = Vec::new();
    for included in &outline.included {
        let outer = match included.outer {
            0 => of_run,
            scope => &scopes[scope as usize - 1].inputs,
        };
        let context = Context::new().with_inputs(outer);
        let mut given = BTreeMap::new();
        for (name, value) in included.inputs {
            let wrong = |message: String| vec![of_field("Input", format!("{}.inputs.{name}", included.field), message)];
            let parsed = Interpolated::parse(value)
                .map_err(|errors| wrong(errors.first().map(|(_, error)| error.to_string()).unwrap_or_default()))?;
            given.insert(name.clone(), parsed.render(&context).map_err(|error| wrong(error.to_string()))?);
        }
        let inputs = inputs::resolve(&included.book.inputs, &given)
            .map_err(|wrong| wrong.into_iter().map(|wrong| placed(included, wrong)).collect::<Vec<_>>())?;
        scopes.push(InputScope { inputs });
    }
    Ok(scopes)
}

/// Where it is written: an input that is wrong, at the include.
fn placed(included: &Included<'_>, wrong: Violation) -> Violation {
    let below = wrong.field.strip_prefix("spec").unwrap_or_default();
    let message = match wrong.reason.as_str() {
        "Required" => format!("the book `{}` requires it: give it a value here", included.name),
        _ => wrong.message.replacen("the book has", &format!("the book `{}` has", included.name), 1),
    };
    Violation { field: format!("{}{below}", included.field), message, ..wrong }
}

/// Whether a value has no `${{ }}` in it.
fn is_plain(value: &Value) -> bool {
    match &value.kind {
        Some(Kind::Text(text)) => !text.contains("${{"),
        Some(Kind::List(list)) => list.items.iter().all(is_plain),
        Some(Kind::Map(map)) => map.entries.values().all(is_plain),
        _ => true,
    }
}
