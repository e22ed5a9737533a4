//! The walk of a tree against a message's descriptor: finds everything that is wrong and encodes the message as it goes.
//!
//! One walk serves manifests, typed objects (turned into trees first), and actions' parameters: what is refused in
//! one place is refused in all.

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

use crate::{
    descriptor::{self, Field, Message, Shape, Type},
    duration, nearest, params, timestamp,
    tree::{At, Entry, Node, Scalar},
    v1alpha::Format,
    violation::{Path, Violations, shown},
};

mod bundle;
mod checks;
pub(crate) mod formats;

pub use bundle::ReadFile;

/// What is permitted beside what the descriptors say.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mode<'m> {
    /// Fields and labels of the system may be there.
    pub(crate) system_fields: bool,
    /// `${{ }}` stands for any scalar: parameters before they are rendered.
    pub(crate) expressions: bool,
    /// Scalars are taken as text where text is wanted: parameters after they were rendered.
    pub(crate) rendered: bool,
    /// Reads files beside the manifest; `None`: it has no folder.
    pub(crate) files: Option<ReadFile<'m>>,
}

pub(crate) struct Walk<'v, 'f> {
    pub(crate) violations: &'v mut Violations<'f>,
    pub(crate) mode: Mode<'v>,
}

impl Walk<'_, '_> {
    /// A message from a map, or from what its shorthand allows.
    pub(crate) fn message(&mut self, message: &'static Message, node: &Node<'_>, path: &Path<'_>, out: &mut Vec<u8>) {
        if message.name == "Task" {
            return self.task(message, node, path, out);
        }
        let Some(entries) = node.entries() else {
            return match message.field(&message.rules.shorthand) {
                Some(field) => self.field(field, node.at, node, path, out),
                None => self.mismatch(node, path, "a map"),
            };
        };
        for entry in entries {
            match message.field(&entry.key) {
                Some(field) => self.field(field, entry.at, &entry.value, &Path::Field(path, &entry.key), out),
                None => self.unknown(message, entry, path),
            }
        }
        self.presence(message, node, path);
        checks::message(self, message, node, path);
    }

    /// One field of a message, with its key's position.
    pub(crate) fn field(&mut self, field: &'static Field, at: At, node: &Node<'_>, path: &Path<'_>, out: &mut Vec<u8>) {
        if !field.rules.later.is_empty() {
            return self.violations.push(at, path, "NotYet", format!("not there yet: {}", field.rules.later));
        }
        if field.rules.output_only && !self.mode.system_fields {
            let message = "only the system sets this field; leave it out";
            return self.violations.push(at, path, "Immutable", message);
        }
        match field.shape {
            Shape::One | Shape::Optional => self.value(field, node, path, out),
            Shape::List => self.list(field, node, path, out),
            Shape::Map => self.map(field, node, path, out),
        }
    }

    fn list(&mut self, field: &'static Field, node: &Node<'_>, path: &Path<'_>, out: &mut Vec<u8>) {
        match &node.content {
            crate::tree::Content::List(items) => {
                self.count(field, items.len(), node.at, path);
                // A list that is far too long is one mistake, not many.
                let most = field.rules.max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
                for (index, item) in items.iter().take(most).enumerate() {
                    self.value(field, item, &Path::Index(path, index), out);
                }
            }
            _ if self.is_expression(node) => {}
            _ if field.rules.one_or_many => self.value(field, node, path, out),
            _ => self.mismatch(node, path, "a list"),
        }
    }

    fn count(&mut self, field: &Field, count: usize, at: At, path: &Path<'_>) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        if let Some(max) = field.rules.max.filter(|max| count > *max) {
            self.violations.push(at, path, "TooLarge", format!("{count} items; at most {max} are allowed"));
        }
        if let Some(min) = field.rules.min.filter(|min| count < *min) {
            let reason = if field.name == "tasks" { "EmptyTaskBook" } else { "OutOfRange" };
            self.violations.push(
                at,
                path,
                reason,
                format!("needs at least {min} item{}", if min == 1 { "" } else { "s" }),
            );
        }
    }

    fn map(&mut self, field: &'static Field, node: &Node<'_>, path: &Path<'_>, out: &mut Vec<u8>) {
        let Some(entries) = node.entries() else {
            if !self.is_expression(node) {
                self.mismatch(node, path, "a map");
            }
            return;
        };
        for Entry { key, value, .. } in entries {
            let start = out.len();
            put_bytes(1, key.as_bytes(), out);
            self.value_numbered(field, 2, value, &Path::Field(path, key), out);
            enclose(field.number, start, out);
        }
    }

    fn value(&mut self, field: &'static Field, node: &Node<'_>, path: &Path<'_>, out: &mut Vec<u8>) {
        self.value_numbered(field, field.number, node, path, out);
    }

    fn value_numbered(
        &mut self,
        field: &'static Field,
        number: u32,
        node: &Node<'_>,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) {
        match field.ty {
            Type::Value => {
                let start = out.len();
                self.free(node, path, out);
                enclose(number, start, out);
            }
            Type::Message(index) => {
                if !(node.raw().is_some() && self.is_expression(node)) {
                    let start = out.len();
                    self.message(&descriptor::table().messages[index], node, path, out);
                    enclose(number, start, out);
                }
            }
            Type::Text => {
                if let Some(text) = self.text(field, node, path) {
                    put_bytes(number, text.as_bytes(), out);
                }
            }
            _ if self.is_expression(node) => {}
            Type::Bool => match node.scalar() {
                Some(Scalar::Bool(boolean)) => put_varint(number, u64::from(boolean), out),
                _ => self.mismatch(node, path, "`true` or `false`"),
            },
            Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 => {
                if let Some(integer) = self.integer(field, node, path) {
                    put_varint(number, integer.cast_unsigned(), out);
                }
            }
            Type::Double => match node.scalar() {
                Some(Scalar::Integer(integer)) => put_double(number, integer as f64, out),
                Some(Scalar::Number(double)) if double.is_finite() => put_double(number, double, out),
                Some(Scalar::Number(_) | Scalar::HugeInteger) => self.out_of_range(node, path, "a finite number"),
                _ => self.mismatch(node, path, "a number"),
            },
            Type::Enum(index) => {
                if let Some(value) = self.enum_word(index, node, path) {
                    put_varint(number, i64::from(value).cast_unsigned(), out);
                }
            }
            Type::Duration => {
                if let Some(ms) = self.duration(field, node, path) {
                    put_bytes(number, &duration::to_proto(ms).encode_to_vec(), out);
                }
            }
            Type::Timestamp => match node.raw().map(timestamp::parse) {
                Some(Ok(time)) => put_bytes(number, &time.encode_to_vec(), out),
                Some(Err(message)) => self.violations.push(node.at, path, "Timestamp", message),
                None => self.mismatch(node, path, "a time, as in `2026-01-02T03:04:05Z`"),
            },
            Type::CountOrPercent => {
                if let Some((tag, count)) = formats::count_or_percent(self, field, node, path) {
                    let mut inner = Vec::new();
                    put_varint(tag, u64::from(count), &mut inner);
                    put_bytes(number, &inner, out);
                }
            }
            // No field that users write is bytes.
            Type::Bytes => self.mismatch(node, path, "nothing"),
        }
    }

    fn text<'n>(&mut self, field: &'static Field, node: &'n Node<'_>, path: &Path<'_>) -> Option<&'n str> {
        let format = field.rules.format();
        let scalar = node.scalar();
        let text = match scalar {
            Some(Scalar::Text(text)) => text,
            _ if format == Format::Mode && node.raw().is_some() => {
                let raw = node.raw().unwrap_or_default();
                let message = format!("a mode without quotes is a decimal number; write it as text: \"{raw}\"");
                self.violations.push(node.at, path, "AmbiguousMode", message);
                return None;
            }
            // A condition may be a bare `true`; a rendered value may have kept another type.
            Some(Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Number(_) | Scalar::HugeInteger)
                if format == Format::Expression || self.mode.rendered =>
            {
                node.raw()?
            }
            _ => {
                self.mismatch_text(node, path);
                return None;
            }
        };
        if format == Format::Expression && text.contains("${{") {
            let message = "this is an expression already: write it bare, without `${{ }}`";
            self.violations.push(node.at, path, "Expression", message);
            return None;
        }
        if self.mode.expressions && text.contains("${{") {
            return Some(text);
        }
        if let Some(max) = field.rules.max.filter(|max| field.shape != Shape::List && text.len() as i64 > *max) {
            self.violations.push(node.at, path, "TooLarge", format!("{} bytes; at most {max} are allowed", text.len()));
        }
        formats::check(self, field, format, text, node.at, path);
        Some(text)
    }

    fn integer(&mut self, field: &Field, node: &Node<'_>, path: &Path<'_>) -> Option<i64> {
        let (least, most) = match field.ty {
            Type::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Type::Uint32 => (0, i64::from(u32::MAX)),
            Type::Uint64 => (0, i64::MAX),
            _ => (i64::MIN, i64::MAX),
        };
        // The bounds of a list are of its length.
        let own = if field.shape == Shape::List { (None, None) } else { (field.rules.min, field.rules.max) };
        let (least, most) = (own.0.unwrap_or(least), own.1.unwrap_or(most));
        match node.scalar() {
            Some(Scalar::Integer(integer)) if (least..=most).contains(&integer) => Some(integer),
            Some(Scalar::Integer(_) | Scalar::HugeInteger) => {
                self.out_of_range(node, path, &format!("an integer from {least} to {most}"));
                None
            }
            _ => {
                self.mismatch(node, path, "an integer");
                None
            }
        }
    }

    fn enum_word(&mut self, index: usize, node: &Node<'_>, path: &Path<'_>) -> Option<i32> {
        let of = &descriptor::table().enums[index];
        let words = || of.values.iter().map(|value| value.word.as_str());
        let Some(text) = node.raw() else {
            self.mismatch(node, path, &format!("one of {}", words().collect::<Vec<_>>().join(", ")));
            return None;
        };
        // The types of inputs are lower-case words that many write with a capital.
        let same = |word: &str| word == text || (of.name == "InputType" && word.eq_ignore_ascii_case(text));
        match of.values.iter().find(|value| same(&value.word)) {
            Some(value) if value.later.is_empty() => Some(value.number),
            Some(value) => {
                let message = format!("`{}` is not there yet: {}", value.word, value.later);
                self.violations.push(node.at, path, "NotYet", message);
                None
            }
            None => {
                let hint = nearest::hint(text, words());
                let words: Vec<_> = words().collect();
                let message = format!("{} is none of {}{hint}", shown(text), words.join(", "));
                self.violations.push(node.at, path, "TypeMismatch", message);
                None
            }
        }
    }

    fn duration(&mut self, field: &Field, node: &Node<'_>, path: &Path<'_>) -> Option<u64> {
        let Some(text) = node.raw() else {
            self.mismatch(node, path, "a duration, as in `1h30m`");
            return None;
        };
        let message = match duration::parse(text) {
            Err(error) => format!("{} is {error}", shown(text)),
            Ok(ms) => {
                let least = field.rules.min_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
                let most = field.rules.max_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(duration::MAX_MS);
                if (least..=most).contains(&ms) {
                    return Some(ms);
                }
                format!("must be from {} to {}", duration::format(least), duration::format(most))
            }
        };
        self.violations.push(node.at, path, "Duration", message);
        None
    }

    /// A free-form value: the body of a [`Value`](crate::v1alpha::Value). Encoded from the tree as it stands, since
    /// parameters and variables are most of a book.
    pub(crate) fn free(&mut self, node: &Node<'_>, path: &Path<'_>, out: &mut Vec<u8>) {
        match &node.content {
            crate::tree::Content::List(items) => {
                let list = out.len();
                for (at, item) in items.iter().enumerate() {
                    let start = out.len();
                    self.free(item, &Path::Index(path, at), out);
                    enclose(ITEMS, start, out);
                }
                enclose(kind::LIST, list, out);
            }
            crate::tree::Content::Map(entries) => {
                let map = out.len();
                for Entry { key, value, .. } in entries {
                    let entry = out.len();
                    put_bytes(1, key.as_bytes(), out);
                    let start = out.len();
                    self.free(value, &Path::Field(path, key), out);
                    enclose(2, start, out);
                    enclose(ITEMS, entry, out);
                }
                enclose(kind::MAP, map, out);
            }
            _ => match node.scalar() {
                None | Some(Scalar::Null) => put_varint(kind::NULL, 1, out),
                Some(Scalar::Bool(boolean)) => put_varint(kind::BOOLEAN, u64::from(boolean), out),
                Some(Scalar::Integer(integer)) => put_varint(kind::INTEGER, integer.cast_unsigned(), out),
                Some(Scalar::Number(number)) if number.is_finite() => put_double(kind::NUMBER, number, out),
                Some(Scalar::Text(text)) => put_bytes(kind::TEXT, text.as_bytes(), out),
                Some(Scalar::Number(_) | Scalar::HugeInteger) => {
                    self.out_of_range(node, path, "a finite number, integers of at most 64 bits");
                }
            },
        }
    }

    /// A task: known fields, and one key with a dot that is the action.
    fn task(&mut self, message: &'static Message, node: &Node<'_>, path: &Path<'_>, out: &mut Vec<u8>) {
        let Some(entries) = node.entries() else { return self.mismatch(node, path, "a task: a map with an action") };
        let mut actions = Vec::new();
        let mut given = None;
        for entry in entries {
            let at = Path::Field(path, &entry.key);
            match (&*entry.key, message.field(&entry.key)) {
                ("action", _) => actions.push((entry.value.raw().unwrap_or_default(), entry.value.at, given)),
                ("parameters", _) => given = Some(&entry.value),
                (_, Some(field)) => self.field(field, entry.at, &entry.value, &at, out),
                (key, None) if key.contains('.') => actions.push((key, entry.at, Some(&entry.value))),
                (_, None) => self.unknown(message, entry, path),
            }
        }
        let spelled = node.get("action").is_some();
        match actions.as_slice() {
            [] if node.get("block").is_some() || node.get("include").is_some() => {}
            [] => {
                let message = "a task needs an action: a key with a dot, as in `command.run: {argv: [id]}`";
                self.violations.push(node.at, path, "NoAction", message);
            }
            [(name, at, _)] if node.get("include").is_some() => {
                let message = format!("an include has no action of its own; make {} a task beside it", shown(name));
                self.violations.push(*at, path, "TwoActions", message);
            }
            [(name, at, _)] if node.get("block").is_some() => {
                let message = format!("a block has no action of its own; put {} into it as a task", shown(name));
                self.violations.push(*at, path, "TwoActions", message);
            }
            [(name, at, parameters)] => {
                let parameters = if spelled { given } else { *parameters };
                if !spelled && let Some(stray) = given {
                    let message = "`parameters` belongs to `action`; this task names its action by key";
                    self.violations.push(stray.at, &Path::Field(path, "parameters"), "TwoActions", message);
                }
                self.action(message, name, *at, parameters, path, out);
            }
            [_, (_, at, _), ..] => {
                let names: Vec<_> = actions.iter().map(|(name, ..)| shown(name)).collect();
                let message = format!("a task has one action; this has {}. Make a task of each", names.join(" and "));
                self.violations.push(*at, path, "TwoActions", message);
            }
        }
        checks::message(self, message, node, path);
    }

    fn action(
        &mut self,
        task: &'static Message,
        name: &str,
        at: At,
        given: Option<&Node<'_>>,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) {
        let path = Path::Field(path, name);
        let Some(action) = params::action(name) else {
            let message = format!("no action is called {}{}", shown(name), params::hint(name));
            return self.violations.push(at, &path, "UnknownAction", message);
        };
        let nothing = Node { at, ..Node::map(Vec::new()) };
        // `command.run:` alone is a map whose lines are missing.
        let given = given.filter(|node| node.scalar() != Some(Scalar::Null)).unwrap_or(&nothing);
        let bundled = self.bundled(action.message, given, &path);
        let given = bundled.as_ref().unwrap_or(given);
        let before = self.mode;
        self.mode.expressions = true;
        // Only checked: until it is rendered it is kept as it was written.
        let start = out.len();
        self.message(action.message, given, &path, out);
        out.truncate(start);
        self.mode = before;
        if let (Some(action), Some(slot)) = (task.field("action"), task.field("parameters")) {
            put_bytes(action.number, name.as_bytes(), out);
            let start = out.len();
            self.free(given, &path, out);
            enclose(slot.number, start, out);
        }
    }

    /// Required fields and groups of fields.
    fn presence(&mut self, message: &'static Message, node: &Node<'_>, path: &Path<'_>) {
        for field in message.fields.iter().filter(|field| field.rules.required && node.get(&field.json).is_none()) {
            self.missing(field, node.at, path);
        }
        let given = |group: &[String]| -> Vec<String> {
            group.iter().filter(|name| node.get(name).is_some()).map(|name| format!("`{name}`")).collect()
        };
        let names = |group: &[String]| group.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
        let groups = message.exactly_one_of.iter().map(|g| (g, true));
        for (group, needed) in groups.chain(message.at_most_one_of.iter().map(|g| (g, false))) {
            let given = given(group);
            if given.len() > 1 {
                let message = format!("{} exclude each other; give one of them", given.join(" and "));
                self.violations.push(node.at, path, "OneOf", message);
            } else if needed && given.is_empty() {
                self.violations.push(node.at, path, "OneOf", format!("needs {}", names(group)));
            }
        }
    }

    pub(crate) fn missing(&mut self, field: &Field, at: At, path: &Path<'_>) {
        let reason = match field.name.as_str() {
            "tasks" => "EmptyTaskBook",
            _ => "Required",
        };
        self.violations.push(at, &Path::Field(path, &field.json), reason, format!("`{}` must be given", field.json));
    }

    fn unknown(&mut self, message: &'static Message, entry: &Entry<'_>, path: &Path<'_>) {
        let fields = || message.fields.iter().map(|field| field.json.as_str());
        let hint = match nearest::hint(&entry.key, fields()) {
            hint if hint.is_empty() && fields().count() <= 12 => {
                format!("; there is {}", fields().collect::<Vec<_>>().join(", "))
            }
            hint => hint,
        };
        let text = format!("no field is called {}{hint}", shown(&entry.key));
        self.violations.push(entry.at, &Path::Field(path, &entry.key), "UnknownField", text);
    }

    pub(crate) fn mismatch(&mut self, node: &Node<'_>, path: &Path<'_>, wanted: &str) {
        let what = node.raw().map(|raw| format!(" {}", shown(raw))).unwrap_or_default();
        let message = format!("expected {wanted}, found {}{what}", node.type_word());
        self.violations.push(node.at, path, "TypeMismatch", message);
    }

    fn mismatch_text(&mut self, node: &Node<'_>, path: &Path<'_>) {
        let advice = match node.raw() {
            Some(raw) if node.scalar() != Some(Scalar::Null) => format!("; for the text write \"{raw}\""),
            Some(_) => "; leave the field out, or write \"\"".into(),
            None => String::new(),
        };
        self.violations.push(
            node.at,
            path,
            "TypeMismatch",
            format!("expected text, found {}{advice}", node.type_word()),
        );
    }

    pub(crate) fn out_of_range(&mut self, node: &Node<'_>, path: &Path<'_>, wanted: &str) {
        let raw = node.raw().unwrap_or_default();
        self.violations.push(node.at, path, "OutOfRange", format!("{} is not {wanted}", shown(raw)));
    }

    fn is_expression(&self, node: &Node<'_>) -> bool {
        self.mode.expressions && node.raw().is_some_and(|text| text.contains("${{"))
    }
}

/// The field numbers of a `Value`'s kinds.
mod kind {
    pub(super) const NULL: u32 = 1;
    pub(super) const BOOLEAN: u32 = 2;
    pub(super) const INTEGER: u32 = 3;
    pub(super) const NUMBER: u32 = 4;
    pub(super) const TEXT: u32 = 5;
    pub(super) const LIST: u32 = 6;
    pub(super) const MAP: u32 = 7;
}

/// The only field of a `ValueList`, and of a `ValueMap`.
const ITEMS: u32 = 1;

/// Makes what was written from `start` on one field: its key and length go in front. In place, since a book's tasks
/// are most of its memory and would be copied once for each level that they are in.
fn enclose(number: u32, start: usize, out: &mut Vec<u8>) {
    let end = out.len();
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint((end - start) as u64, out);
    let header = out.len() - end;
    out[start..].rotate_right(header);
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

fn put_double(number: u32, value: f64, out: &mut Vec<u8>) {
    encode_key(number, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}
