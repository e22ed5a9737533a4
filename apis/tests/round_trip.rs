//! What is stored, printed and applied again is the same object; and no input makes the reader panic.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

use lockstep_apis::{
    kinds, manifest,
    object::API_VERSION,
    v1alpha::{Metadata, Object, Task, TaskBook, TaskBookSpec, Value},
    validate,
};
use proptest::{collection, prelude::*};

/// Text with everything that YAML might take for something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        "[a-z0-9:#\\-?&*!|>'\"%@`{}\\[\\], \n\t]{0,16}",
        "\\PC{0,8}",
        "[a-z \n]{0,6}\n{0,3}",
        prop_oneof![
            Just("no"),
            Just("~"),
            Just("null"),
            Just("0644"),
            Just("1e3"),
            Just("1:30"),
            Just("- a"),
            Just("a: b"),
            Just("#"),
            Just("2026-01-02"),
            Just("="),
            Just("<<"),
            Just("---"),
            Just("..."),
            Just(" x"),
            Just("x "),
            Just("\r\n"),
            Just("\u{85}"),
            Just("\u{feff}"),
            Just("a\n b\n"),
            Just("\n"),
            Just("a\n\n"),
            Just("a\n \n"),
            Just("25%"),
            Just(".5"),
            Just("y"),
            Just("0x1f")
        ]
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::null()),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has finite numbers only", |number| number.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::list),
            collection::btree_map(text(), inner, 0..4).prop_map(Value::map),
        ]
    })
}

fn task() -> impl Strategy<Value = Task> {
    (text(), collection::vec(text(), 1..4), text(), any::<bool>(), collection::btree_map("[A-Z_]{1,4}", text(), 0..3))
        .prop_map(|(name, argv, stdin, sync, environment)| {
            let argv = std::iter::once("x".to_owned()).chain(argv).map(Value::from);
            let parameters = Value::map([("argv", Value::list(argv)), ("stdin", stdin.into())]);
            Task {
                name,
                action: "command.run".into(),
                parameters: Some(parameters),
                sync,
                environment,
                ..Task::default()
            }
        })
}

fn book() -> impl Strategy<Value = Object> {
    let variables = collection::btree_map("v[a-zA-Z0-9_]{0,8}", value(), 0..4);
    (collection::vec(task(), 1..3), variables, "[a-z]{1,5}").prop_map(|(tasks, variables, name)| {
        let metadata = Metadata {
            api_version: API_VERSION.into(),
            kind: "TaskBook".into(),
            name,
            namespace: "n".into(),
            ..Metadata::default()
        };
        TaskBook { metadata: Some(metadata), spec: Some(TaskBookSpec { tasks, variables, ..Default::default() }) }
            .into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stored_printed_and_applied_again_is_the_same_object(book in book()) {
        prop_assert_eq!(validate::object(&book), vec![]);
        let stored = Object::from_stored(kinds::named("TaskBook").unwrap(), &book.to_stored(), 7).unwrap();
        for (file, printed) in [("x.yaml", manifest::print_yaml(std::slice::from_ref(&stored))), ("x.json", manifest::print_json(std::slice::from_ref(&stored)))] {
            let read = manifest::decode(file, printed.as_bytes(), None);
            prop_assert_eq!(read.as_deref(), Ok(&[stored.clone()][..]), "{}", printed);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in collection::vec(any::<u8>(), 0..200), text in "[a-z:\\-\\[\\]{}&*!|>'\"#%,? \n~<0-9]{0,200}") {
        let _ = manifest::decode("x.yaml", &bytes, None);
        let _ = manifest::decode("x.yaml", text.as_bytes(), None);
        let _ = manifest::decode("x.json", text.as_bytes(), None);
    }
}
