//! What expressions and templates of the fuzz targets see.

use lockstep_apis::v1alpha::Value;
use lockstep_core::context::Context;
use std::collections::BTreeMap;

/// A node with a few facts, variables and results of each type.
pub fn context() -> Context {
    let labels = BTreeMap::from([("role".to_owned(), "web".to_owned())]);
    let list = Value::list((0..5).map(Value::from));
    let map = Value::map([("name".to_owned(), Value::text("u")), ("port".to_owned(), Value::from(80))]);
    let variables = BTreeMap::from([
        ("port".to_owned(), Value::from(8080)),
        ("text".to_owned(), Value::text("a, b{{c}}${{d}}")),
        ("list".to_owned(), list),
        ("map".to_owned(), map.clone()),
        ("yes".to_owned(), Value::from(true)),
        ("null".to_owned(), Value::null()),
    ]);
    let facts = Value::map([("os".to_owned(), map.clone()), ("hostname".to_owned(), Value::text("n1"))]);
    Context::new()
        .with_node("n1", &labels, &["192.0.2.1".to_owned()])
        .with_facts(facts)
        .with_own_variables(variables)
        .with_results(&BTreeMap::from([("x".to_owned(), map)]))
        .with_run("r", "default", "0")
}
