//! Selectors: parsing ends with a selector or an error, and matching never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_apis::selector::Selector;
use std::collections::BTreeMap;

fuzz_target!(|text: &str| {
    let Ok(selector) = Selector::parse(text) else { return };
    let mut labels = BTreeMap::new();
    selector.matches(&labels);
    for (at, key) in selector.keys().enumerate() {
        labels.insert(key.to_owned(), if at % 2 == 0 { String::new() } else { "web".to_owned() });
    }
    selector.matches(&labels);
});
