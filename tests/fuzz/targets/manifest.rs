//! Manifests: what is read prints so that it reads back the same, and books are checked without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_apis::{manifest, v1alpha::object};
use lockstep_core::check;

fuzz_target!(|bytes: &[u8]| {
    let name = if bytes.first() == Some(&b'{') { "x.json" } else { "x.yaml" };
    let Ok(objects) = manifest::decode(name, bytes, Some("default")) else { return };
    let printed = manifest::print_yaml(&objects);
    match manifest::decode("printed.yaml", printed.as_bytes(), Some("default")) {
        Ok(again) => assert_eq!(objects, again, "it reads back as something else:\n{printed}"),
        Err(violations) => panic!("what was accepted and printed is refused: {violations:?}\n{printed}"),
    }
    for object in &objects {
        match &object.kind {
            Some(object::Kind::TaskBook(book)) => drop(check::book(book)),
            Some(object::Kind::Run(run)) => drop(check::run(run)),
            _ => {}
        }
    }
});
