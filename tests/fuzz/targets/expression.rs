//! Expressions: whatever they say, evaluation ends soon, with a value or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_core::expression::Expression;

#[path = "../context.rs"]
mod context;

fuzz_target!(|text: &str| {
    let Ok(expression) = Expression::parse(text) else { return };
    let context = context::context();
    // Pure: twice the same.
    let first = expression.evaluate(&context).map_err(|error| error.to_string());
    let second = expression.evaluate(&context).map_err(|error| error.to_string());
    if let (Ok(first), Ok(second)) = (&first, &second) {
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
    assert_eq!(first.is_ok(), second.is_ok());
});
