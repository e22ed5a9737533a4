//! `event.raise`: makes an Event of what the book says. Who keeps and sends it is the caller's matter.

use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_apis::selector::{label_key, label_value};
use lockstep_apis::timestamp;
use lockstep_apis::v1alpha::{EventRaise, EventSeverity, EventSpec, NodeEvent};

use crate::action::{Done, Function, Outcome};
use crate::parameters::decoded;

/// Longest data of one Event.
const MAX_DATA_BYTES: usize = 4096;

/// `event.raise`.
pub(crate) static RAISE: Function = Function {
    name: "event.raise",
    perform: |given, scope| {
        let raise: EventRaise = decoded("event.raise", given)?;
        check(&raise)?;
        if scope.check {
            return Ok(Done::new(Outcome::Ok, format!("would raise raised/{}", raise.r#type), []));
        }
        let shown = !scope.sensitive;
        let spec = EventSpec {
            severity: match raise.severity() {
                EventSeverity::Unspecified => EventSeverity::Info.into(),
                given => given.into(),
            },
            r#type: raise.r#type,
            message: if shown { raise.message } else { String::new() },
            data: raise.data.filter(|_| shown),
            at: Some(timestamp::from_ms(now_ms())),
            ..EventSpec::default()
        };
        let mut done = Done::new(Outcome::Ok, "", []);
        done.event = Some(Box::new(NodeEvent { spec: Some(spec), labels: raise.labels, attempt: None }));
        Ok(done)
    },
};

fn check(raise: &EventRaise) -> Result<(), Done> {
    let mut faults = Vec::new();
    for (key, value) in &raise.labels {
        faults.extend(label_key(key).err().map(|fault| format!("labels: {fault}")));
        faults.extend(label_value(value).err().map(|fault| format!("labels.{key}: {fault}")));
    }
    let size = raise.data.as_ref().map_or(0, |data| data.size());
    if size > MAX_DATA_BYTES {
        faults.push(format!("data has {size} bytes; at most {MAX_DATA_BYTES} are kept"));
    }
    if faults.is_empty() { Ok(()) } else { Err(Done::failed("InvalidParameters", faults.join("; "))) }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
