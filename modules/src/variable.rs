//! `variable.set`: hands values on. What becomes of them is the caller's: here nothing is kept.

use lockstep_apis::v1alpha::Value;

use crate::action::{Action, Done, Outcome, Scope};
use crate::parameters::Parameters;

/// Longest values of one task: they are a result, which a report carries to the node's later segments.
const MAX_BYTES: usize = 31 * 1024;

/// `variable.set`.
pub(crate) struct Set;

impl Action for Set {
    fn name(&self) -> &'static str {
        "variable.set"
    }

    fn perform(&self, parameters: &Value, _scope: &mut Scope<'_>) -> Done {
        let mut from = Parameters::new(parameters, None);
        let values = from.value("values").cloned().unwrap_or_else(Value::null);
        if values.as_map().is_none_or(|entries| entries.is_empty()) {
            from.fault("values is no map of names and values");
        }
        if let Err(faults) = from.finish() {
            return Done::failed("InvalidParameters", faults);
        }
        if values.size() > MAX_BYTES {
            return Done::failed(
                "TooLarge",
                format!("{} bytes of values; at most {MAX_BYTES} are kept", values.size()),
            );
        }
        Done::new(Outcome::Ok, "", [("values", values)])
    }
}
