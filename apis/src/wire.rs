//! Typed messages as trees in their text form: encoded bytes, read with the descriptor tables.
//!
//! The inverse of the walk. Both the printer and the validation of typed objects stand on it.

use prost::encoding::{WireType, decode_key, decode_varint};

use crate::{
    descriptor::{self, Field, Message, Shape, Type},
    duration, timestamp,
    tree::{Entry, Node, number_text},
};

/// The text form of a message that prost encoded.
pub(crate) fn tree<'b>(message: &'static Message, bytes: &'b [u8]) -> Node<'b> {
    let mut values: Vec<Vec<Raw<'b>>> = message.fields.iter().map(|_| Vec::new()).collect();
    for (number, raw) in Reader(bytes) {
        if let Some(at) = message.position(number) {
            values[at].push(raw);
        }
    }
    let mut entries: Vec<Entry<'b>> = message
        .fields
        .iter()
        .zip(values)
        .filter(|(_, raws)| !raws.is_empty())
        .map(|(field, raws)| Entry::new(field.json.as_str(), field_node(field, raws)))
        .collect();
    if message.name == "Task" {
        name_by_action(&mut entries);
    }
    Node::map(entries)
}

/// `action: file.managed, parameters: {…}` → `file.managed: {…}`.
fn name_by_action(entries: &mut Vec<Entry<'_>>) {
    let Some(at) = entries.iter().position(|entry| entry.key == "action") else { return };
    let Some(name) = entries[at].value.raw().filter(|name| name.contains('.')).map(str::to_owned) else { return };
    let parameters = entries.iter().position(|entry| entry.key == "parameters");
    let value = match parameters {
        Some(parameters) => entries.remove(parameters).value,
        None => Node::map(Vec::new()),
    };
    entries[at] = Entry::new(name, value);
}

fn field_node<'b>(field: &'static Field, raws: Vec<Raw<'b>>) -> Node<'b> {
    match field.shape {
        Shape::List => {
            let mut items = Vec::new();
            for raw in raws {
                match (raw, packable(field.ty)) {
                    (Raw::Bytes(mut packed), true) => {
                        while let Ok(varint) = decode_varint(&mut packed) {
                            items.push(node(field.ty, Raw::Varint(varint)));
                        }
                    }
                    (raw, _) => items.push(node(field.ty, raw)),
                }
            }
            Node::list(items)
        }
        Shape::Map => Node::map(raws.into_iter().map(|raw| map_entry(field, raw)).collect()),
        // The last one wins, as in every protobuf reader.
        Shape::One | Shape::Optional => {
            raws.into_iter().next_back().map_or(Node::plain("null"), |raw| node(field.ty, raw))
        }
    }
}

fn packable(ty: Type) -> bool {
    matches!(ty, Type::Bool | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 | Type::Enum(_))
}

fn map_entry<'b>(field: &'static Field, raw: Raw<'b>) -> Entry<'b> {
    let (mut key, mut value) = ("", None);
    for (number, raw) in Reader(raw.bytes()) {
        match number {
            1 => key = text(raw.bytes()),
            2 => value = Some(node(field.ty, raw)),
            _ => {}
        }
    }
    let absent = || match field.ty {
        Type::Text | Type::Bytes => Node::text(""),
        Type::Message(_) => Node::map(Vec::new()),
        Type::Value => Node::plain("null"),
        Type::Double => Node::plain("0.0"),
        _ => Node::plain("0"),
    };
    Entry::new(key, value.unwrap_or_else(absent))
}

fn node<'b>(ty: Type, raw: Raw<'b>) -> Node<'b> {
    match ty {
        Type::Bool => Node::plain(if raw.number() != 0 { "true" } else { "false" }),
        Type::Int32 | Type::Int64 => Node::plain(raw.number().cast_signed().to_string()),
        Type::Uint32 | Type::Uint64 => Node::plain(raw.number().to_string()),
        Type::Double => Node::plain(number_text(f64::from_bits(raw.number()))),
        Type::Text | Type::Bytes => Node::text(text(raw.bytes())),
        Type::Enum(index) => {
            let number = raw.number().cast_signed();
            let found = descriptor::table().enums[index].values.iter().find(|value| i64::from(value.number) == number);
            found.map_or_else(|| Node::plain(number.to_string()), |value| Node::text(value.word.as_str()))
        }
        Type::Message(index) => tree(&descriptor::table().messages[index], raw.bytes()),
        Type::Value => free(raw.bytes()),
        Type::Duration => {
            let (seconds, nanos) = seconds_and_nanos(raw.bytes());
            let text = match (u64::try_from(seconds), u64::try_from(nanos)) {
                (Ok(seconds), Ok(nanos)) if nanos % 1_000_000 == 0 => {
                    duration::format(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
                }
                // Nothing that the text form can say: the walk refuses it.
                _ => format!("{seconds}s{nanos}ns"),
            };
            Node::text(text)
        }
        Type::Timestamp => {
            let (seconds, nanos) = seconds_and_nanos(raw.bytes());
            let nanos = i32::try_from(nanos).unwrap_or(i32::MIN);
            Node::text(timestamp::format(&prost_types::Timestamp { seconds, nanos }))
        }
        Type::CountOrPercent => match Reader(raw.bytes()).last() {
            Some((2, percent)) => Node::text(format!("{}%", percent.number())),
            Some((_, count)) => Node::plain(count.number().to_string()),
            None => Node::plain("0"),
        },
    }
}

fn seconds_and_nanos(bytes: &[u8]) -> (i64, i64) {
    let (mut seconds, mut nanos) = (0, 0);
    for (number, raw) in Reader(bytes) {
        match number {
            1 => seconds = raw.number().cast_signed(),
            2 => nanos = raw.number().cast_signed(),
            _ => {}
        }
    }
    (seconds, nanos)
}

/// A `Value`; field numbers as in `meta.proto`.
fn free(bytes: &[u8]) -> Node<'_> {
    match Reader(bytes).last() {
        Some((2, raw)) => Node::plain(if raw.number() != 0 { "true" } else { "false" }),
        Some((3, raw)) => Node::plain(raw.number().cast_signed().to_string()),
        Some((4, raw)) => Node::plain(number_text(f64::from_bits(raw.number()))),
        Some((5, raw)) => Node::text(text(raw.bytes())),
        Some((6, raw)) => Node::list(Reader(raw.bytes()).map(|(_, item)| free(item.bytes())).collect()),
        Some((7, raw)) => Node::map(Reader(raw.bytes()).map(|(_, entry)| free_entry(entry.bytes())).collect()),
        _ => Node::plain("null"),
    }
}

fn free_entry(bytes: &[u8]) -> Entry<'_> {
    let (mut key, mut value) = ("", Node::plain("null"));
    for (number, raw) in Reader(bytes) {
        match number {
            1 => key = text(raw.bytes()),
            2 => value = free(raw.bytes()),
            _ => {}
        }
    }
    Entry::new(key, value)
}

fn text(bytes: &[u8]) -> &str {
    // prost refuses strings that are not UTF-8 before they get here.
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[derive(Clone, Copy)]
enum Raw<'b> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'b [u8]),
}

impl<'b> Raw<'b> {
    fn number(self) -> u64 {
        match self {
            Raw::Varint(number) | Raw::Fixed(number) => number,
            Raw::Bytes(_) => 0,
        }
    }

    fn bytes(self) -> &'b [u8] {
        match self {
            Raw::Bytes(bytes) => bytes,
            Raw::Varint(_) | Raw::Fixed(_) => &[],
        }
    }
}

/// The fields of an encoded message; ends at the first byte that is none.
struct Reader<'b>(&'b [u8]);

impl<'b> Iterator for Reader<'b> {
    type Item = (u32, Raw<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let (number, wire) = decode_key(&mut self.0).ok()?;
        let raw = match wire {
            WireType::Varint => Raw::Varint(decode_varint(&mut self.0).ok()?),
            WireType::SixtyFourBit => {
                let (own, rest) = self.0.split_first_chunk::<8>()?;
                self.0 = rest;
                Raw::Fixed(u64::from_le_bytes(*own))
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
                let (own, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Raw::Bytes(own)
            }
            // None of our fields.
            WireType::ThirtyTwoBit | WireType::StartGroup | WireType::EndGroup => return None,
        };
        Some((number, raw))
    }
}
