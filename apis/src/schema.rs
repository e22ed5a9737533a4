//! JSON Schema (draft 2020-12) of each kind, from the descriptors and their comments: for editors, and for reading.
//!
//! What the schema accepts, the decoder may still refuse (formats, groups of fields); never the other way round.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::{
    descriptor::{self, Field, Message, Shape, Type},
    kinds::{self, Kind},
    object::API_VERSION,
    params,
    v1alpha::Format,
};

/// The schema of one kind, complete in itself: messages that it refers to are under `$defs`.
pub fn json_schema(kind: &'static Kind) -> Json {
    let mut defs = Defs::default();
    let message = descriptor::table().message(kind.name);
    let mut schema = defs.object(message);
    let header = [("apiVersion", json!({"type": "string"})), ("kind", json!({"const": kind.name}))];
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        properties.extend(header.map(|(name, value)| (name.to_owned(), value)));
    }
    let mut root = Map::new();
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("$id".into(), format!("lockstep/{API_VERSION}/{}.json", kind.name).into());
    root.insert("title".into(), kind.name.into());
    root.extend(schema);
    root.insert("$defs".into(), defs.all().into());
    Json::Object(root)
}

/// One schema that accepts an object of any kind.
pub fn json_schema_of_all() -> Json {
    json!({"oneOf": kinds::all().iter().map(json_schema).collect::<Vec<_>>()})
}

/// Messages that are referred to, each defined once; recursion (a task's block) ends there.
#[derive(Default)]
struct Defs {
    wanted: BTreeSet<(bool, usize)>,
}

impl Defs {
    fn all(&mut self) -> Map<String, Json> {
        let mut defined = Map::new();
        loop {
            let next =
                self.wanted.iter().find(|(parameters, index)| !defined.contains_key(&def_name(*parameters, *index)));
            let Some((parameters, index)) = next.copied() else { return defined };
            let schema = self.message(&descriptor::table().messages[index], parameters);
            defined.insert(def_name(parameters, index), schema);
        }
    }

    fn reference(&mut self, parameters: bool, index: usize) -> Json {
        self.wanted.insert((parameters, index));
        json!({"$ref": format!("#/$defs/{}", def_name(parameters, index))})
    }

    /// A message with its shorthand. In parameters `${{ }}` stands for any scalar.
    fn message(&mut self, message: &'static Message, parameters: bool) -> Json {
        let map = Json::Object(self.properties(message, parameters));
        match message.field(&message.rules.shorthand) {
            Some(field) => json!({"anyOf": [self.field(field, parameters), map]}),
            None => map,
        }
    }

    fn object(&mut self, message: &'static Message) -> Map<String, Json> {
        self.properties(message, false)
    }

    fn properties(&mut self, message: &'static Message, parameters: bool) -> Map<String, Json> {
        let mut properties = Map::new();
        for field in message.fields.iter().filter(|field| !field.rules.output_only || parameters) {
            properties.insert(field.json.clone(), self.field(field, parameters));
        }
        if message.name == "Task" {
            for action in params::actions() {
                let mut schema = self.reference(true, index_of(action.message));
                describe(&mut schema, comment(&action.message.name), None);
                properties.insert(action.name.into(), schema);
            }
        }
        if message.name == "Metadata" {
            properties.insert("apiVersion".into(), json!({"enum": [API_VERSION]}));
        }
        let required: Vec<&str> =
            message.fields.iter().filter(|field| field.rules.required).map(|field| field.json.as_str()).collect();
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        if let Some(text) = comment(&message.name) {
            schema.insert("description".into(), text.into());
        }
        schema.insert("properties".into(), properties.into());
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        schema.insert("additionalProperties".into(), false.into());
        schema
    }

    fn field(&mut self, field: &'static Field, parameters: bool) -> Json {
        let owner =
            descriptor::table().messages.iter().find(|message| message.fields.iter().any(|f| std::ptr::eq(f, field)));
        let text = owner.and_then(|owner| comment(&format!("{}.{}", owner.name, field.name)));
        let mut schema = match field.rules.later.is_empty() {
            true => self.shaped(field, parameters),
            // Refused whatever it holds.
            false => json!({"not": {}}),
        };
        let text = match (text, field.rules.later.as_str()) {
            (text, "") => text,
            (text, later) => Some(format!("{} Not there yet: {later}.", text.unwrap_or_default()).trim().to_owned()),
        };
        let default = Some(&field.rules.default_text).filter(|text| !text.is_empty());
        describe(
            &mut schema,
            text,
            default.map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())),
        );
        schema
    }

    fn shaped(&mut self, field: &'static Field, parameters: bool) -> Json {
        let one = self.one(field, parameters);
        match field.shape {
            Shape::One | Shape::Optional => one,
            Shape::Map => json!({"type": "object", "additionalProperties": one}),
            Shape::List => {
                let mut list = json!({"type": "array", "items": one});
                if let Some(min) = field.rules.min {
                    list["minItems"] = min.into();
                }
                if let Some(max) = field.rules.max {
                    list["maxItems"] = max.into();
                }
                match (field.rules.one_or_many, parameters) {
                    (true, _) => json!({"anyOf": [one, list]}),
                    (false, true) => json!({"anyOf": [list, expression()]}),
                    (false, false) => list,
                }
            }
        }
    }

    fn one(&mut self, field: &'static Field, parameters: bool) -> Json {
        let typed = match field.ty {
            Type::Text if field.rules.from_file => return from_file(text(field, parameters)),
            Type::Text => return text(field, parameters),
            Type::Value => return json!(true),
            Type::Bool => json!({"type": "boolean"}),
            Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 => integer(field),
            Type::Double => json!({"type": "number"}),
            Type::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Type::Enum(index) => {
                let values = &descriptor::table().enums[index].values;
                json!({"enum": values.iter().filter(|v| v.later.is_empty()).map(|v| v.word.as_str()).collect::<Vec<_>>()})
            }
            Type::Duration => {
                json!({"type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"})
            }
            Type::Timestamp => json!({"type": "string", "format": "date-time"}),
            Type::CountOrPercent => json!({"anyOf": [
                {"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"}
            ]}),
            Type::Message(index) => self.reference(parameters, index),
        };
        if parameters { json!({"anyOf": [typed, expression()]}) } else { typed }
    }
}

fn text(field: &Field, parameters: bool) -> Json {
    let pattern = match field.rules.format() {
        Format::Expression => return json!({"type": ["string", "boolean", "number"]}),
        Format::Name => "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        Format::Mode => "^[0-7]{3,4}$",
        Format::Path => "^/[^/]",
        Format::Identifier => "^[A-Za-z][A-Za-z0-9_]*$",
        Format::Unit => "^[A-Za-z0-9:_\\\\@][-A-Za-z0-9:_.\\\\@]*$",
        Format::Package => "^[A-Za-z0-9][-A-Za-z0-9+._:]*(=[A-Za-z0-9][-A-Za-z0-9+._:~^]*)?$",
        Format::Url => "^[hH][tT][tT][pP][sS]?://[^/?#@]+",
        Format::Checksum => "^sha256:[0-9a-fA-F]{64}$",
        _ => field.rules.pattern.as_str(),
    };
    match (pattern, parameters) {
        ("", _) => json!({"type": "string"}),
        (pattern, false) => json!({"type": "string", "pattern": pattern}),
        (pattern, true) => json!({"anyOf": [{"type": "string", "pattern": pattern}, expression()]}),
    }
}

/// The text, or the name of a file that holds it.
fn from_file(text: Json) -> Json {
    let file = json!({
        "type": "object",
        "properties": {"file": {"type": "string"}},
        "required": ["file"],
        "additionalProperties": false
    });
    json!({"anyOf": [text, file]})
}

fn integer(field: &Field) -> Json {
    let mut schema = json!({"type": "integer"});
    let unsigned = matches!(field.ty, Type::Uint32 | Type::Uint64).then_some(0);
    if field.shape != Shape::List {
        if let Some(min) = field.rules.min.or(unsigned) {
            schema["minimum"] = min.into();
        }
        if let Some(max) = field.rules.max {
            schema["maximum"] = max.into();
        }
    }
    schema
}

fn expression() -> Json {
    json!({"type": "string", "pattern": "\\$\\{\\{"})
}

fn describe(schema: &mut Json, text: Option<String>, default: Option<Json>) {
    // A schema that is `true` has no place for words.
    if schema.is_boolean() {
        *schema = json!({});
    }
    if let Some(text) = text {
        schema["description"] = text.into();
    }
    if let Some(default) = default {
        schema["default"] = default;
    }
}

fn comment(name: &str) -> Option<String> {
    descriptor::comments().get(name).map(|comment| comment.text.clone())
}

fn def_name(parameters: bool, index: usize) -> String {
    let message = &descriptor::table().messages[index];
    match (parameters, message.rules.action.as_str()) {
        (false, _) => message.name.clone(),
        (true, "") => format!("{}.rendered", message.name),
        (true, action) => action.to_owned(),
    }
}

fn index_of(message: &'static Message) -> usize {
    let messages = &descriptor::table().messages;
    messages.iter().position(|own| std::ptr::eq(own, message)).expect("invariant: the message is of the table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_books_schema_knows_its_tasks_actions_and_comments() {
        let schema = json_schema(kinds::named("TaskBook").unwrap());
        let task = &schema["$defs"]["Task"]["properties"];
        assert_eq!(task["file.managed"]["$ref"], "#/$defs/file.managed");
        assert_eq!(task["timeout"]["default"], "10m");
        assert_eq!(schema["$defs"]["TaskBookSpec"]["properties"]["trustFacts"]["not"], json!({}));
        assert_eq!(task["loopLimit"]["maximum"], 10_000);
        assert_eq!(task["runOnce"]["description"], "One node does it, for all: the first in order of name.");
        assert_eq!(schema["$defs"]["file.managed"]["required"], json!(["path"]));
        assert_eq!(schema["$defs"]["TaskBookSpec"]["required"], json!(["tasks"]));
    }

    #[test]
    fn every_reference_of_every_schema_is_defined() {
        fn references(json: &Json, found: &mut Vec<String>) {
            match json {
                Json::Object(map) => {
                    found.extend(map.get("$ref").and_then(Json::as_str).map(str::to_owned));
                    map.values().for_each(|value| references(value, found));
                }
                Json::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        for kind in kinds::all() {
            let schema = json_schema(kind);
            let mut found = Vec::new();
            references(&schema, &mut found);
            assert!(!found.is_empty());
            for reference in found {
                let name = reference.strip_prefix("#/$defs/").unwrap();
                assert!(schema["$defs"].get(name).is_some(), "{}: {name}", kind.name);
            }
        }
    }
}
