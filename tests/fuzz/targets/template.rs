//! Templates: whatever they say, rendering ends soon and its output is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_core::template::Template;

#[path = "../context.rs"]
mod context;

/// The documented limit of rendered text.
const MAX_BYTES: usize = 16 << 20;

fuzz_target!(|text: &str| {
    let Ok(template) = Template::parse(text) else { return };
    if let Ok(rendered) = template.render(&context::context()) {
        assert!(rendered.len() <= MAX_BYTES);
    }
});
