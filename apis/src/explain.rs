//! What may be written where: the protos' comments and rules as topics, for `lockstep explain` and the reference pages.
//! Knows words; not how they are laid out.

use crate::{
    descriptor::{self, Enum, Field, Message, Shape, Type},
    duration, kinds, params,
    v1alpha::Format,
};

mod pages;
mod path;

pub use pages::{Page, pages};
pub use path::{Unknown, topic};

/// One thing that is explained: a kind, a field, a type, an action, a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// In its right spelling: `TaskBook.spec.tasks`, `file.managed.mode`.
    pub path: String,
    /// What it holds: `list of Task`. Empty for kinds, types and actions.
    pub holds: String,
    /// Sentences; may be empty.
    pub text: String,
    /// YAML of a task that does it; may be empty.
    pub example: String,
    /// Rules, each a phrase: `required`, `default 10m`.
    pub notes: Vec<String>,
    /// What the members are: `fields`, `parameters`, `words`, `actions`, `kinds`.
    pub heading: &'static str,
    /// What is in it, in the protos' order.
    pub members: Vec<Member>,
}

/// One line of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As it is written.
    pub name: String,
    /// What it holds. Empty for words, actions and kinds.
    pub holds: String,
    /// The type that is explained by itself, if it holds one.
    pub of: Option<&'static str>,
    /// Sentences; may be empty.
    pub text: String,
    /// Rules, each a phrase.
    pub notes: Vec<String>,
    /// The words that it may hold, each with its sentence.
    pub words: Vec<(String, String)>,
}

/// The kinds, and where the actions are: what `lockstep explain` says without a path.
pub fn overview() -> Topic {
    let mut members: Vec<Member> = kinds::all()
        .iter()
        .map(|kind| Member { notes: kind_notes(kind), ..plain(kind.name, comment(kind.name)) })
        .collect();
    members.push(plain("action", "What tasks do: `action.NAME`.".into()));
    Topic { heading: "kinds", members, ..titled("", "") }
}

/// Every action of a family, or of all if it is empty.
fn actions(family: &str) -> Topic {
    let ours = params::actions().iter().filter(|action| family.is_empty() || family_of(action.name) == family);
    let members = ours.map(|action| plain(action.name, comment(&action.message.name))).collect();
    let path = if family.is_empty() { "action".to_owned() } else { format!("action.{family}") };
    Topic { heading: "actions", members, ..titled(&path, "A task does one action; its key is the action's name.") }
}

fn family_of(action: &str) -> &str {
    action.split('.').next().unwrap_or_default()
}

/// A message under a path: as a kind, a type, or an action's parameters.
fn of_message(message: &'static Message, path: &str) -> Topic {
    let is_action = !message.rules.action.is_empty();
    let mut members: Vec<Member> = message.fields.iter().map(|field| member(message, field)).collect();
    if message.name == "Task" {
        let text = "What is done; its value are the parameters. `lockstep explain action` lists the actions.";
        members.insert(0, plain("ACTION", text.into()));
    }
    let example = descriptor::comments().get(&message.name).map(|comment| comment.example.clone());
    Topic {
        example: example.unwrap_or_default(),
        notes: message_notes(message),
        heading: if is_action { "parameters" } else { "fields" },
        members,
        ..titled(path, &comment(&message.name))
    }
}

/// A field under a path: with the fields of the type that it holds, or its words.
fn of_field(owner: &'static Message, field: &'static Field, path: &str) -> Topic {
    let own = member(owner, field);
    let mut topic = Topic { holds: own.holds, notes: own.notes, ..titled(path, &own.text) };
    match field.ty {
        Type::Message(index) => {
            let inner = of_message(&descriptor::table().messages[index], path);
            topic.text = joined(&topic.text, &inner.text);
            topic.notes.extend(inner.notes);
            (topic.heading, topic.members) = (inner.heading, inner.members);
        }
        Type::Enum(_) => {
            topic.heading = "words";
            topic.members = own.words.into_iter().map(|(word, text)| plain(&word, text)).collect();
        }
        _ => {}
    }
    topic
}

fn member(owner: &'static Message, field: &'static Field) -> Member {
    let words = match field.ty {
        Type::Enum(index) => words(&descriptor::table().enums[index]),
        _ => Vec::new(),
    };
    let of = match field.ty {
        Type::Message(index) => Some(descriptor::table().messages[index].name.as_str()),
        _ => None,
    };
    let text = comment(&format!("{}.{}", owner.name, field.name));
    Member { name: field.json.clone(), holds: holds(field), of, text, notes: field_notes(field), words }
}

fn words(of: &'static Enum) -> Vec<(String, String)> {
    let text = |word: &descriptor::EnumWord| {
        let own = comment(&format!("{}.{}", of.name, word.word));
        if word.later.is_empty() { own } else { joined(&own, &format!("Not there yet: {}.", word.later)) }
    };
    of.values.iter().map(|word| (word.word.clone(), text(word))).collect()
}

/// `list of Task`, `duration`, `map of text`.
fn holds(field: &Field) -> String {
    let one = match field.ty {
        Type::Bool => "true or false",
        Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 => "integer",
        Type::Double => "number",
        Type::Bytes => "base64",
        Type::Text => text_words(field.rules.format()),
        Type::Value => "any value",
        Type::Duration => "duration",
        Type::Timestamp => "timestamp",
        Type::CountOrPercent => "count or \"percentage\"",
        Type::Enum(index) => {
            let values = &descriptor::table().enums[index].values;
            &values.iter().map(|value| value.word.as_str()).collect::<Vec<_>>().join(" | ")
        }
        Type::Message(index) => &descriptor::table().messages[index].name,
    };
    match field.shape {
        Shape::One | Shape::Optional => one.to_owned(),
        Shape::Map => format!("map of {one}"),
        Shape::List if field.rules.one_or_many => format!("{one}, or a list"),
        Shape::List => format!("list of {one}"),
    }
}

fn text_words(format: Format) -> &'static str {
    match format {
        Format::Unspecified => "text",
        Format::Name => "name",
        Format::Expression => "CEL",
        Format::Interpolated => "text with ${{ }}",
        Format::Template => "Handlebars",
        Format::Selector => "label selector",
        Format::Mode => "\"octal mode\"",
        Format::Path => "absolute path",
        Format::Identifier => "id",
        Format::Checksum => "sha256:…",
        Format::Regex => "regular expression",
        Format::Unit => "systemd unit",
        Format::Package => "package",
        Format::Url => "URL",
        Format::Crontab => "schedule of crontab",
        Format::GitUrl => "URL of a repository",
        Format::GitRef => "branch, tag or commit",
    }
}

fn field_notes(field: &Field) -> Vec<String> {
    let rules = &field.rules;
    let mut notes = Vec::new();
    let mut say = |holds: bool, note: &str| {
        if holds {
            notes.push(note.to_owned());
        }
    };
    say(rules.required, "required");
    say(rules.output_only, "set by the system");
    say(rules.immutable, "never changes");
    say(!rules.default_text.is_empty(), &format!("default {}", rules.default_text));
    notes.extend(range(field));
    if !rules.pattern.is_empty() {
        notes.push(format!("matches `{}`", rules.pattern));
    }
    if !rules.later.is_empty() {
        notes.push(format!("not there yet: {}", rules.later));
    }
    notes
}

/// The bounds, with their unit.
fn range(field: &Field) -> Option<String> {
    let rules = &field.rules;
    let ms = |ms: Option<i64>| ms.and_then(|ms| u64::try_from(ms).ok()).map(duration::format);
    let (least, most, unit) = match (field.ty, field.shape) {
        (Type::Duration, _) => (ms(rules.min_ms), ms(rules.max_ms), ""),
        (_, Shape::List) => (number(rules.min), number(rules.max), " items"),
        (_, Shape::Map) => (number(rules.min), number(rules.max), " entries"),
        (Type::Text, _) => (number(rules.min), number(rules.max), " bytes"),
        _ => (number(rules.min), number(rules.max), ""),
    };
    match (least, most) {
        (None, None) => None,
        (Some(least), Some(most)) if least == most => Some(format!("exactly {least}{unit}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
    }
    // One item is not `1 items`.
    .map(|range| if range.ends_with(" 1 items") { range.trim_end_matches('s').to_owned() } else { range })
}

fn number(bound: Option<i64>) -> Option<String> {
    bound.map(|bound| bound.to_string())
}

fn message_notes(message: &Message) -> Vec<String> {
    let rules = &message.rules;
    let mut notes: Vec<String> = kinds::named(&message.name).map(kind_notes).unwrap_or_default();
    match () {
        () if rules.action.is_empty() => {}
        () if rules.reads_only => notes.push("changes nothing".into()),
        () if rules.converges => notes.push("converges: done again, it changes nothing".into()),
        () if rules.repeatable => notes.push("is Changed each time; one that was cut is begun again".into()),
        () => match rules.reads_only_with.split_once('=') {
            Some((field, words)) => notes.push(format!(
                "changes nothing if {field} is {}, else is Changed each time",
                words.replace(',', " or ")
            )),
            None => notes.push("is Changed each time that it is done".into()),
        },
    }
    if let Some(field) = message.field(&rules.shorthand) {
        notes.push(format!("`{}` alone may stand for the whole", field.json));
    }
    let groups = |all: &[Vec<String>], word: &str| -> Vec<String> {
        all.iter().map(|group| format!("{word} one of {}", group.join(", "))).collect()
    };
    notes.extend(groups(&message.exactly_one_of, "exactly"));
    notes.extend(groups(&message.at_most_one_of, "at most"));
    notes
}

fn kind_notes(kind: &kinds::Kind) -> Vec<String> {
    let mut notes = Vec::new();
    if !kind.short_names.is_empty() {
        notes.push(format!("also {}", kind.short_names.join(", ")));
    }
    notes.push(if kind.namespaced { "lives in a namespace" } else { "one for the cluster" }.into());
    notes
}

fn titled(path: &str, text: &str) -> Topic {
    Topic {
        path: path.to_owned(),
        holds: String::new(),
        text: text.to_owned(),
        example: String::new(),
        notes: Vec::new(),
        heading: "",
        members: Vec::new(),
    }
}

fn plain(name: &str, text: String) -> Member {
    Member { name: name.to_owned(), holds: String::new(), of: None, text, notes: Vec::new(), words: Vec::new() }
}

fn comment(name: &str) -> String {
    descriptor::comments().get(name).map(|comment| comment.text.clone()).unwrap_or_default()
}

fn joined(one: &str, other: &str) -> String {
    [one, other].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
