//! The budget of one evaluation or rendering: bounds its time and its memory at once.
//! Deterministic: counts steps, never time.

use lockstep_apis::v1alpha::{Value, value::Kind};

use super::{EvaluationError, EvaluationErrorKind};

/// Steps of one evaluation. A step is some tens of nanoseconds, so the whole is well under a second even unoptimised;
/// a filter over 10,000 nodes takes about 100,000.
pub(crate) const STEPS: u64 = 1_000_000;

/// Bytes that may be copied or searched for one step; the whole budget is 16 MB of copies.
const BYTES_PER_STEP: u64 = 16;

/// What is left of a budget.
#[derive(Debug)]
pub(crate) struct Meter {
    all: u64,
    left: u64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self::of(STEPS)
    }

    /// A budget of so many steps.
    pub(crate) fn of(steps: u64) -> Self {
        Self { all: steps, left: steps }
    }

    /// Takes steps, or says that they are spent.
    pub(crate) fn steps(&mut self, count: u64) -> Result<(), EvaluationError> {
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(too_costly(self.all))
            }
        }
    }

    /// Takes what it costs to copy or search so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<(), EvaluationError> {
        self.steps(1 + count as u64 / BYTES_PER_STEP)
    }

    /// Takes what it costs to copy or walk a whole value.
    pub(crate) fn value(&mut self, value: &Value) -> Result<(), EvaluationError> {
        match &value.kind {
            Some(Kind::Text(text)) => self.bytes(text.len()),
            Some(Kind::List(list)) => {
                self.steps(1)?;
                list.items.iter().try_for_each(|item| self.value(item))
            }
            Some(Kind::Map(map)) => {
                self.steps(1)?;
                map.entries.iter().try_for_each(|(key, item)| {
                    self.bytes(key.len())?;
                    self.value(item)
                })
            }
            _ => self.steps(1),
        }
    }
}

fn too_costly(steps: u64) -> EvaluationError {
    EvaluationError {
        message: format!(
            "takes more than {steps} steps: make the lists shorter, or nest fewer `all`, `exists`, `map` and `filter`"
        ),
        kind: EvaluationErrorKind::TooCostly,
    }
}
