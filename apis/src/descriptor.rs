//! What the protos say about messages, fields and enums, in tables that the walks over text forms read.
//!
//! Built once from [`crate::DESCRIPTORS`]. The descriptor messages are mirrored here with our options as plain
//! fields: `prost-types` drops extensions, and a reflection library costs every start of a program milliseconds.

use std::{collections::HashMap, sync::OnceLock};

use prost::Message as _;

use crate::v1alpha::{FieldRules, MessageRules};

/// All messages and enums of our package. Indices of one table refer to the other.
pub(crate) struct Table {
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<Enum>,
    by_name: HashMap<String, usize>,
}

/// One message.
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) rules: MessageRules,
    pub(crate) exactly_one_of: Vec<Vec<String>>,
    pub(crate) at_most_one_of: Vec<Vec<String>>,
}

/// One field.
pub(crate) struct Field {
    /// As in the text form, camelCase.
    pub(crate) json: String,
    /// As in the proto file.
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) shape: Shape,
    /// Of one value: of the items of a list, of the values of a map.
    pub(crate) ty: Type,
    pub(crate) rules: FieldRules,
}

/// How many values a field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    One,
    /// One, and absence differs from the default value.
    Optional,
    List,
    /// Keys are always text.
    Map,
}

/// What one value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Double,
    Text,
    Bytes,
    Enum(usize),
    Message(usize),
    Value,
    Duration,
    Timestamp,
    CountOrPercent,
}

/// One enum. The value 0 is "unspecified" and has no word.
pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) values: Vec<EnumWord>,
}

pub(crate) struct EnumWord {
    /// CamelCase without the enum's name; lower case for [`InputType`](crate::v1alpha::InputType).
    pub(crate) word: String,
    pub(crate) number: i32,
    /// The sentence with which the word is refused, or empty.
    pub(crate) later: String,
}

impl Table {
    /// The message of that short name. Only for names that the protos have.
    pub(crate) fn message(&self, name: &str) -> &Message {
        &self.messages[*self.by_name.get(name).expect("invariant: the name is a message of our protos")]
    }
}

impl Message {
    pub(crate) fn field(&self, json: &str) -> Option<&Field> {
        // A few dozen at most: cheaper to look through than to hash, and nothing to build at each start.
        self.fields.iter().find(|field| field.json == json)
    }

    /// Index in `fields` of the field with that number.
    pub(crate) fn position(&self, number: u32) -> Option<usize> {
        self.fields.iter().position(|field| field.number == number)
    }
}

/// The tables; built at the first call.
pub(crate) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        build(&FileSet::decode(crate::DESCRIPTORS).expect("invariant: the build script wrote a descriptor set"))
    })
}

fn build(set: &FileSet) -> Table {
    let ours = || set.file.iter().filter(|file| file.package == PACKAGE);
    let mut table = Table { messages: Vec::new(), enums: Vec::new(), by_name: HashMap::new() };
    let mut enums = HashMap::new();
    for descriptor in ours().flat_map(|file| &file.enum_type) {
        enums.insert(descriptor.name.clone(), table.enums.len());
        table.enums.push(enum_of(descriptor));
    }
    let descriptors: Vec<_> = ours().flat_map(|file| &file.message_type).collect();
    for (index, descriptor) in descriptors.iter().enumerate() {
        table.by_name.insert(descriptor.name.clone(), index);
    }
    table.messages = descriptors.iter().map(|descriptor| message_of(descriptor, &table.by_name, &enums)).collect();
    table
}

fn message_of(d: &Descriptor, messages: &HashMap<String, usize>, enums: &HashMap<String, usize>) -> Message {
    let fields: Vec<Field> = d.field.iter().map(|field| field_of(d, field, messages, enums)).collect();
    let rules = d.options.as_ref().and_then(|options| options.rules.clone()).unwrap_or_default();
    let groups = |text: &str| -> Vec<Vec<String>> {
        text.split(';').filter(|g| !g.is_empty()).map(|g| g.split(',').map(|w| camel(w.trim())).collect()).collect()
    };
    Message {
        name: d.name.clone(),
        exactly_one_of: groups(&rules.exactly_one_of),
        at_most_one_of: groups(&rules.at_most_one_of),
        fields,
        rules,
    }
}

fn field_of(
    parent: &Descriptor,
    f: &FieldDescriptor,
    messages: &HashMap<String, usize>,
    enums: &HashMap<String, usize>,
) -> Field {
    let short = f.type_name.rsplit('.').next().unwrap_or_default();
    let entry = parent
        .nested_type
        .iter()
        .find(|nested| nested.name == short && nested.options.as_ref().is_some_and(|options| options.map_entry));
    let (shape, valued) = match entry {
        Some(entry) => (Shape::Map, entry.field.iter().find(|field| field.number == 2).unwrap_or(f)),
        None if f.label == LABEL_REPEATED => (Shape::List, f),
        None if f.proto3_optional || f.oneof_index.is_some() => (Shape::Optional, f),
        None => (Shape::One, f),
    };
    Field {
        json: camel(&f.name),
        name: f.name.clone(),
        number: u32::try_from(f.number).expect("invariant: field numbers are positive"),
        shape,
        ty: type_of(valued, messages, enums),
        rules: f.options.as_ref().and_then(|options| options.rules.clone()).unwrap_or_default(),
    }
}

/// Type numbers are those of `FieldDescriptorProto.Type`.
fn type_of(f: &FieldDescriptor, messages: &HashMap<String, usize>, enums: &HashMap<String, usize>) -> Type {
    let short = || f.type_name.rsplit('.').next().unwrap_or_default();
    match f.r#type {
        1 => Type::Double,
        3 => Type::Int64,
        4 => Type::Uint64,
        5 => Type::Int32,
        8 => Type::Bool,
        9 => Type::Text,
        12 => Type::Bytes,
        13 => Type::Uint32,
        14 => Type::Enum(enums[short()]),
        11 => match f.type_name.as_str() {
            ".google.protobuf.Duration" => Type::Duration,
            ".google.protobuf.Timestamp" => Type::Timestamp,
            ".lockstep.v1alpha.Value" => Type::Value,
            ".lockstep.v1alpha.CountOrPercent" => Type::CountOrPercent,
            _ => Type::Message(messages[short()]),
        },
        other => unreachable!("our protos use no field of type {other}"),
    }
}

fn enum_of(d: &EnumDescriptor) -> Enum {
    let values = d
        .value
        .iter()
        .filter(|value| value.number != 0)
        .map(|value| EnumWord {
            word: word(&d.name, &value.name),
            number: value.number,
            later: value.options.as_ref().map(|options| options.later.clone()).unwrap_or_default(),
        })
        .collect();
    Enum { name: d.name.clone(), values }
}

/// How a value is written: without the enum's name, in CamelCase.
fn word(of: &str, value: &str) -> String {
    let rest = value.strip_prefix(&snake(of)).and_then(|rest| rest.strip_prefix('_')).unwrap_or(value);
    // Types are written as every schema language writes them.
    if of == "InputType" { rest.to_lowercase() } else { pascal(rest) }
}

/// `on_node_lost` → `onNodeLost`.
fn camel(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut up = false;
    for c in name.chars() {
        match (c, up) {
            ('_', _) => up = true,
            (c, true) => {
                text.push(c.to_ascii_uppercase());
                up = false;
            }
            (c, false) => text.push(c),
        }
    }
    text
}

/// `STOP_NOW` → `StopNow`.
fn pascal(name: &str) -> String {
    let mut parts = name.split('_').map(|part| {
        let (head, tail) = part.split_at(part.len().min(1));
        format!("{head}{}", tail.to_lowercase())
    });
    parts.by_ref().collect()
}

/// `OnFailure` → `ON_FAILURE`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for (at, c) in name.chars().enumerate() {
        if at > 0 && c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

const PACKAGE: &str = "lockstep.v1alpha";
const LABEL_REPEATED: i32 = 3;

/// Comments of messages, fields, enums and their words, for schema and docs: by `Message`, `Message.field_name`, `Enum`
/// and `Enum.Word`.
pub(crate) fn comments() -> &'static HashMap<String, Comment> {
    static COMMENTS: OnceLock<HashMap<String, Comment>> = OnceLock::new();
    COMMENTS.get_or_init(|| {
        let set = FileSet::decode(crate::DESCRIPTORS).expect("invariant: the build script wrote a descriptor set");
        let infos = SourceSet::decode(crate::DESCRIPTORS).expect("invariant: the build script wrote a descriptor set");
        let files = set.file.iter().zip(&infos.file).filter(|(file, _)| file.package == PACKAGE);
        files
            .flat_map(|(file, info)| info.info.iter().flat_map(|i| &i.location).filter_map(|l| comment(file, l)))
            .collect()
    })
}

/// A location's path is [4, message] for a message, [4, message, 2, field] for a field; with 5 likewise for enums.
fn comment(file: &File, location: &Location) -> Option<(String, Comment)> {
    let comment = Comment::read(&location.leading_comments);
    if comment.text.is_empty() {
        return None;
    }
    let at = |number: i32| usize::try_from(number).ok();
    let name = match location.path.as_slice() {
        [4, message] => file.message_type.get(at(*message)?)?.name.clone(),
        [4, message, 2, field] => {
            let message = file.message_type.get(at(*message)?)?;
            format!("{}.{}", message.name, message.field.get(at(*field)?)?.name)
        }
        [5, of] => file.enum_type.get(at(*of)?)?.name.clone(),
        [5, of, 2, value] => {
            let of = file.enum_type.get(at(*of)?)?;
            format!("{}.{}", of.name, word(&of.name, &of.value.get(at(*value)?)?.name))
        }
        _ => return None,
    };
    Some((name, comment))
}

/// What is written above a message, field or word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Sentences, on one line.
    pub(crate) text: String,
    /// The indented lines behind them: YAML.
    pub(crate) example: String,
}

impl Comment {
    fn read(written: &str) -> Comment {
        const INDENT: &str = "     ";
        let (mut text, mut example) = (Vec::new(), String::new());
        for line in written.lines() {
            match line.strip_prefix(INDENT) {
                Some(code) => example.extend([code.trim_end(), "\n"]),
                None => text.push(line.trim()),
            }
        }
        Comment { text: text.join(" ").trim().to_owned(), example }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<Descriptor>,
    #[prost(message, repeated, tag = "5")]
    enum_type: Vec<EnumDescriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Descriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    field: Vec<FieldDescriptor>,
    #[prost(message, repeated, tag = "3")]
    nested_type: Vec<Descriptor>,
    #[prost(message, optional, tag = "7")]
    options: Option<MessageOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageOptions {
    #[prost(bool, tag = "7")]
    map_entry: bool,
    #[prost(message, optional, tag = "50102")]
    rules: Option<MessageRules>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    r#type: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(message, optional, tag = "8")]
    options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    oneof_index: Option<i32>,
    #[prost(bool, tag = "17")]
    proto3_optional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldOptions {
    #[prost(message, optional, tag = "50101")]
    rules: Option<FieldRules>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    value: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    number: i32,
    #[prost(message, optional, tag = "3")]
    options: Option<EnumValueOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumValueOptions {
    #[prost(string, tag = "50104")]
    later: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SourceSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<SourceFile>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SourceFile {
    #[prost(message, optional, tag = "9")]
    info: Option<SourceInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SourceInfo {
    #[prost(message, repeated, tag = "1")]
    location: Vec<Location>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Location {
    #[prost(int32, repeated, tag = "1")]
    path: Vec<i32>,
    #[prost(string, tag = "3")]
    leading_comments: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_carry_their_rules_and_text_form_names() {
        let book = table().message("TaskBookSpec");
        assert!(book.field("tasks").unwrap().rules.required);
        assert!(!book.field("trustFacts").unwrap().rules.later.is_empty());
        let serialize = table().message("Serialize");
        assert_eq!(serialize.rules.shorthand, "count");
        assert_eq!(serialize.field("maxFailures").unwrap().ty, Type::CountOrPercent);
        assert_eq!(table().message("Metadata").field("labels").unwrap().shape, Shape::Map);
        assert_eq!(table().message("RunSpec").exactly_one_of, [["taskBooks", "tasks"]]);
    }

    #[test]
    fn enum_words_lose_their_prefix() {
        let words = |name: &str| -> Vec<&str> {
            let found = table().enums.iter().find(|e| e.name == name).unwrap();
            found.values.iter().map(|value| value.word.as_str()).collect()
        };
        assert_eq!(words("OnFailure"), ["StopNow", "FinishWindow"]);
        assert_eq!(words("InputType"), ["string", "integer", "number", "boolean", "list", "map"]);
    }

    #[test]
    fn comments_are_found_by_name() {
        assert!(comments()["TaskBook"].text.starts_with("Tasks for a set of nodes"));
        assert_eq!(comments()["Targets.all"].text, "Every node. Must be said: an empty match is never all.");
        assert_eq!(comments()["OnFailure.FinishWindow"].text, "Judged when the window is done.");
    }

    #[test]
    fn indented_lines_of_a_comment_are_an_example() {
        let comment = Comment::read(" One.\n Two.\n\n     a:\n       b: 1\n");
        assert_eq!((comment.text.as_str(), comment.example.as_str()), ("One. Two.", "a:\n  b: 1\n"));
    }
}
