//! The free-form value: JSON's data model with exact integers. Constructors, readers, and conversion to JSON's.

use std::collections::BTreeMap;

use crate::v1alpha::{Value, ValueList, ValueMap, value::Kind};

impl Value {
    /// The value null. A `Value` without kind, as a foreign client may send one, is null too.
    pub fn null() -> Value {
        Kind::Null(true).into()
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Value {
        Kind::Text(text.into()).into()
    }

    /// A list.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Value {
        Kind::List(ValueList { items: items.into_iter().collect() }).into()
    }

    /// A map.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
        Kind::Map(ValueMap { entries: entries.into_iter().map(|(k, v)| (k.into(), v)).collect() }).into()
    }

    /// Is null, or has no kind.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, None | Some(Kind::Null(_)))
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.kind {
            Some(Kind::Boolean(boolean)) => Some(boolean),
            _ => None,
        }
    }

    /// The integer, if it is one; a number without fraction is none.
    pub fn as_integer(&self) -> Option<i64> {
        match self.kind {
            Some(Kind::Integer(integer)) => Some(integer),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Some(Kind::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match &self.kind {
            Some(Kind::List(list)) => Some(&list.items),
            _ => None,
        }
    }

    /// As JSON, in one line.
    pub fn to_json_line(&self) -> String {
        serde_json::Value::from(self).to_string()
    }

    /// Bytes that it takes in a message.
    pub fn size(&self) -> usize {
        prost::Message::encoded_len(self)
    }

    /// The entries, if it is a map.
    pub fn as_map(&self) -> Option<&BTreeMap<String, Value>> {
        match &self.kind {
            Some(Kind::Map(map)) => Some(&map.entries),
            _ => None,
        }
    }

    /// The entry of a map. `None`: no map, or no such entry.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_map()?.get(key)
    }

    /// The word for what it is, as messages to users say it: `text`, `list`, …
    pub fn type_word(&self) -> &'static str {
        match self.kind {
            None | Some(Kind::Null(_)) => "null",
            Some(Kind::Boolean(_)) => "boolean",
            Some(Kind::Integer(_)) => "integer",
            Some(Kind::Number(_)) => "number",
            Some(Kind::Text(_)) => "text",
            Some(Kind::List(_)) => "list",
            Some(Kind::Map(_)) => "map",
        }
    }
}

impl From<Kind> for Value {
    fn from(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Value {
        Kind::Boolean(boolean).into()
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Value {
        Kind::Integer(integer).into()
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Kind::Number(number).into()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::text(text)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Value {
        Value::list(items)
    }
}

impl From<BTreeMap<String, Value>> for Value {
    fn from(entries: BTreeMap<String, Value>) -> Value {
        Kind::Map(ValueMap { entries }).into()
    }
}

/// Integers over `i64` become numbers: JSON from outside may hold them, our own text forms refuse them.
impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::null(),
            serde_json::Value::Bool(boolean) => boolean.into(),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => integer.into(),
                None => number.as_f64().unwrap_or(f64::MAX).into(),
            },
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(items) => Value::list(items.into_iter().map(Value::from)),
            serde_json::Value::Object(entries) => Value::map(entries.into_iter().map(|(k, v)| (k, Value::from(v)))),
        }
    }
}

/// Numbers that JSON cannot say (not a number, infinite) become null.
impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> serde_json::Value {
        match &value.kind {
            None | Some(Kind::Null(_)) => serde_json::Value::Null,
            Some(Kind::Boolean(boolean)) => (*boolean).into(),
            Some(Kind::Integer(integer)) => (*integer).into(),
            Some(Kind::Number(number)) => serde_json::Number::from_f64(*number).into(),
            Some(Kind::Text(text)) => text.as_str().into(),
            Some(Kind::List(list)) => list.items.iter().map(serde_json::Value::from).collect(),
            Some(Kind::Map(map)) => {
                map.entries.iter().map(|(key, value)| (key.clone(), serde_json::Value::from(value))).collect()
            }
        }
    }
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> serde_json::Value {
        (&value).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_through_a_value_unchanged_and_integers_stay_exact() {
        let json = serde_json::json!({"a": [1, -2, 9007199254740993_i64, 1.5, "x", true, null], "b": {}});
        let value = Value::from(json.clone());
        assert_eq!(value.get("a").unwrap().as_list().unwrap()[2].as_integer(), Some(9007199254740993));
        assert_eq!(serde_json::Value::from(&value), json);
    }
}
