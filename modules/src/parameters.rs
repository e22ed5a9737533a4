//! Rendered parameters as typed values. Names were checked at admission; what `${{ }}` made of the values was not, so
//! every fault of every parameter is found here, all at once. Knows no action's meaning.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_apis::params;
use lockstep_apis::v1alpha::{Value, value};
use prost::Message;

use crate::action::Done;

/// The parameters as their message, with every rule of the proto looked at again: only now the values are known.
pub(crate) fn decoded<M: Message + Default>(action: &str, parameters: &Value) -> Result<M, Done> {
    params::decode(action, parameters).map_err(|violations| {
        let faults: Vec<String> =
            violations.iter().map(|found| format!("{}: {}", found.field, found.message)).collect();
        Done::failed("InvalidParameters", faults.join("; "))
    })
}

/// A duration of a decoded message; its bounds were checked when it was decoded.
pub(crate) fn duration(duration: &prost_types::Duration) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(duration.seconds).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(duration.nanos).unwrap_or(0))
}

/// Reads the parameters of one task and gathers what is wrong with them.
pub(crate) struct Parameters<'a> {
    entries: BTreeMap<&'a str, &'a Value>,
    faults: Vec<String>,
}

impl<'a> Parameters<'a> {
    /// Begins to read. `shorthand` is the parameter that a value which is no map stands for.
    pub(crate) fn new(parameters: &'a Value, shorthand: Option<&'static str>) -> Parameters<'a> {
        match (&parameters.kind, shorthand) {
            (Some(value::Kind::Map(map)), _) => {
                let entries = map.entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
                Parameters { entries, faults: Vec::new() }
            }
            (Some(_), Some(name)) => Parameters { entries: BTreeMap::from([(name, parameters)]), faults: Vec::new() },
            (None | Some(value::Kind::Null(_)), None) => Parameters { entries: BTreeMap::new(), faults: Vec::new() },
            _ => {
                let faults = vec![format!("the parameters are a {}, not a map", parameters.type_word())];
                Parameters { entries: BTreeMap::new(), faults }
            }
        }
    }

    /// Parameters of which one is given.
    pub(crate) fn of(name: &'static str, value: &'a Value) -> Parameters<'a> {
        Parameters { entries: BTreeMap::from([(name, value)]), faults: Vec::new() }
    }

    /// Whether there is a value.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|value| !value.is_null())
    }

    /// The value, unless it is absent or null.
    pub(crate) fn value(&mut self, name: &str) -> Option<&'a Value> {
        self.entries.remove(name).filter(|value| !value.is_null())
    }

    /// A text; numbers and booleans that `${{ }}` yields are taken as written.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.value(name)?;
        let text = scalar(value);
        if text.is_none() {
            self.fault(format!("{name} is a {}, not a text", value.type_word()));
        }
        text
    }

    /// A text that must be there.
    pub(crate) fn required(&mut self, name: &str) -> String {
        if !self.is_given(name) {
            self.fault(format!("{name} is missing"));
        }
        self.text(name).unwrap_or_default()
    }

    /// A switch; absent is off.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let Some(value) = self.value(name) else { return false };
        value.as_bool().unwrap_or_else(|| {
            self.fault(format!("{name} is a {}, not true or false", value.type_word()));
            false
        })
    }

    /// A list of texts; absent is empty.
    pub(crate) fn texts(&mut self, name: &str) -> Vec<String> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let Some(items) = value.as_list() else {
            self.fault(format!("{name} is a {}, not a list of texts", value.type_word()));
            return Vec::new();
        };
        let texts: Option<Vec<String>> = items.iter().map(scalar).collect();
        if texts.is_none() {
            self.fault(format!("{name} holds something that is no text"));
        }
        texts.unwrap_or_default()
    }

    /// Numbers, one or a list; absent is empty.
    pub(crate) fn integers(&mut self, name: &str) -> Vec<i64> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let one = std::slice::from_ref(value);
        let numbers: Option<Vec<i64>> = value.as_list().unwrap_or(one).iter().map(Value::as_integer).collect();
        if numbers.is_none() {
            self.fault(format!("{name} is no whole number, nor a list of them"));
        }
        numbers.unwrap_or_default()
    }

    /// A file mode of three or four octal digits.
    pub(crate) fn mode(&mut self, name: &str) -> Option<u32> {
        let text = self.text(name)?;
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        if !octal {
            self.fault(format!("{name} {text:?} is not three or four octal digits in quotes, like \"0644\""));
        }
        u32::from_str_radix(&text, 8).ok().filter(|_| octal)
    }

    /// Adds a fault that only the action can see.
    pub(crate) fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All faults in one text.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        let unknown = self.entries.keys().map(|name| format!("there is no parameter {name}"));
        self.faults.extend(unknown);
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults.join("; ")) }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match &value.kind {
        Some(value::Kind::Text(text)) => Some(text.clone()),
        Some(value::Kind::Integer(integer)) => Some(integer.to_string()),
        Some(value::Kind::Number(number)) => Some(number.to_string()),
        Some(value::Kind::Boolean(boolean)) => Some(boolean.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_at_once() {
        let value = Value::map([
            ("mode", Value::text("999")),
            ("parents", Value::text("yes")),
            ("argv", Value::text("ls")),
            ("pth", Value::text("/x")),
        ]);
        let mut parameters = Parameters::new(&value, None);
        parameters.mode("mode");
        parameters.flag("parents");
        parameters.texts("argv");
        let faults = parameters.finish().unwrap_err();
        for part in ["999", "parents", "argv", "pth"] {
            assert!(faults.contains(part), "{faults} does not mention {part}");
        }
    }

    #[test]
    fn only_octal_digits_are_a_mode() {
        for bad in ["999", "07777", "u+s", "", "64", "-644", "+644"] {
            let value = Value::map([("mode", Value::text(bad))]);
            let mut parameters = Parameters::new(&value, None);
            assert_eq!(parameters.mode("mode"), None, "{bad}");
            assert!(parameters.finish().is_err(), "{bad}");
        }
    }
}
