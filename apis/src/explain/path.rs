//! From what was typed to what it names, or to what may have been meant.

use thiserror::Error;

use super::{Topic, actions, family_of, of_field, of_message, overview, pages};
use crate::{
    descriptor::{self, Field, Message, Type},
    kinds, nearest, params,
    violation::shown,
};

/// Nothing has that path; says what is there instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Unknown(String);

/// What a path names: a kind and fields (`book.spec.tasks.timeout`), a type (`Task`), an action and a parameter
/// (`action.file.managed.mode`, or without `action.`), a family of actions (`action.file`). Empty: the kinds.
///
/// Items of lists and values of maps are named by their field alone; indices in brackets are passed over.
pub fn topic(typed: &str) -> Result<Topic, Unknown> {
    let parts: Vec<&str> = typed.split('.').map(without_index).collect();
    match parts.as_slice() {
        [""] => Ok(overview()),
        ["action" | "actions"] => Ok(actions("")),
        ["action" | "actions", rest @ ..] => action(rest),
        // `event.raise` is an action, `event.spec` a field of a kind.
        [of, verb, ..] if params::action(&format!("{of}.{verb}")).is_some() => action(&parts),
        [first, rest @ ..] => match message(first) {
            Some(found) => walk(found, found.name.clone(), rest),
            None if family(first) => action(&parts),
            None => Err(no_kind(first)),
        },
        [] => Ok(overview()),
    }
}

/// `tasks` of `tasks[3]`.
fn without_index(part: &str) -> &str {
    part.strip_suffix(']').and_then(|open| open.rsplit_once('[')).map_or(part, |(name, _)| name)
}

/// A kind by any of its words, or a type that kinds or actions hold.
fn message(word: &str) -> Option<&'static Message> {
    let table = descriptor::table();
    let kind = kinds::find(word).map(|kind| table.message(kind.name));
    let of_type = || pages::types().into_iter().find(|message| message.name.eq_ignore_ascii_case(word));
    kind.or_else(of_type)
}

fn family(word: &str) -> bool {
    params::actions().iter().any(|action| family_of(action.name) == word)
}

fn no_kind(word: &str) -> Unknown {
    let words = kinds::all().iter().flat_map(|kind| [kind.name, kind.plural]).chain(["action"]);
    let near = nearest::nearest(word, words);
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let known: Vec<&str> = kinds::all().iter().map(|kind| kind.name).collect();
    Unknown(format!("no kind {}{hint}\nthere are {}, and action", shown(word), known.join(", ")))
}

/// The parts after `action.`: a family, an action, or a parameter of one.
fn action(parts: &[&str]) -> Result<Topic, Unknown> {
    match parts {
        [of] if family(of) => Ok(actions(of)),
        [of, verb, rest @ ..] => match params::action(&format!("{of}.{verb}")) {
            Some(found) => walk(found.message, found.name.to_owned(), rest),
            None => Err(no_action(&format!("{of}.{verb}"))),
        },
        _ => Err(no_action(&parts.join("."))),
    }
}

fn no_action(name: &str) -> Unknown {
    Unknown(format!("no action {}{}", shown(name), params::hint(name)))
}

/// Goes down the fields of a message.
fn walk(message: &'static Message, path: String, parts: &[&str]) -> Result<Topic, Unknown> {
    let [first, rest @ ..] = parts else { return Ok(of_message(message, &path)) };
    let Some(field) = field(message, first) else {
        return match message.name == "Task" && family(first) {
            true => action(parts),
            false => Err(no_field(message, &path, first)),
        };
    };
    let path = format!("{path}.{}", field.json);
    match (rest, field.ty) {
        ([], _) => Ok(of_field(message, field, &path)),
        (_, Type::Message(index)) => walk(&descriptor::table().messages[index], path, rest),
        ([below, ..], _) => Err(Unknown(format!("`{path}` has no fields, so there is no {} in it", shown(below)))),
    }
}

/// By the text form's name, in any case.
fn field(message: &'static Message, word: &str) -> Option<&'static Field> {
    message.field(word).or_else(|| message.fields.iter().find(|field| field.json.eq_ignore_ascii_case(word)))
}

fn no_field(message: &'static Message, path: &str, word: &str) -> Unknown {
    let below = message.fields.iter().find_map(|outer| match outer.ty {
        Type::Message(index) if outer.json != "metadata" => {
            field(&descriptor::table().messages[index], word).map(|inner| format!("{}.{}", outer.json, inner.json))
        }
        _ => None,
    });
    let names: Vec<&str> = message.fields.iter().map(|field| field.json.as_str()).collect();
    let near = below.or_else(|| nearest::nearest(word, names.iter().copied()).map(str::to_owned));
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Unknown(format!("no field {} in {path}{hint}\nthere are {}", shown(word), names.join(", ")))
}
