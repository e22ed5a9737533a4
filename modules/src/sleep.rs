//! `time.sleep`: waits.

use std::time::Duration;

use lockstep_apis::v1alpha::Value;

use crate::action::{Action, Done, Outcome, Scope};
use crate::host::rest;
use crate::parameters::Parameters;

/// `time.sleep`.
pub(crate) struct Sleep;

impl Action for Sleep {
    fn name(&self) -> &'static str {
        "time.sleep"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let mut from = Parameters::new(parameters, Some("duration"));
        let text = from.required("duration");
        let duration = lockstep_apis::duration::parse(&text).map_err(|error| from.fault(format!("duration: {error}")));
        if let Err(faults) = from.finish() {
            return Done::failed("InvalidParameters", faults);
        }
        let duration = Duration::from_millis(duration.unwrap_or(0));
        if scope.check {
            return Done::new(Outcome::Ok, format!("would wait {text}"), []);
        }
        let permitted = scope.timeout.unwrap_or(duration).min(duration);
        if rest(scope.cancel, permitted) {
            return Done::new(Outcome::Cancelled, "cancelled while it waited", []);
        }
        if permitted < duration {
            return Done::failed("TimedOut", format!("its timeout is shorter than {text}"));
        }
        Done::new(Outcome::Ok, "", [])
    }
}
