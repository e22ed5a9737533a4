//! Variables and expressions.

use lockstep_apis::{manifest, params};

use crate::table::{Row, TASKS, book, check, row, run, task};

/// Variables whose `spec` is the given text, on line 2 from column 7 on.
fn variables(spec: &str) -> String {
    format!("metadata: {{apiVersion: v1alpha, kind: Variables, name: v, namespace: shop}}\nspec: {spec}\n")
}

#[test]
fn variables_are_checked_at_apply() {
    let mut rows: Vec<Row> = Vec::new();
    for name in ["a.b", "a-b", "1a", "\"\"", "loop", "__proto__", "ä"] {
        let text = variables(&format!("{{static: {{{name}: 1}}}}"));
        let field: &'static str = match name {
            "a.b" => "spec.static.a.b",
            "a-b" => "spec.static.a-b",
            "1a" => "spec.static.1a",
            "loop" => "spec.static.loop",
            "__proto__" => "spec.static.__proto__",
            "ä" => "spec.static.ä",
            _ => "spec.static[\"\"]",
        };
        rows.push(row("B41", text, "InvalidName", (2, 17), field));
    }
    rows.extend([
        row(
            "B41 in a book",
            book(&format!("variables: {{a-b: 1}}\n{TASKS}")),
            "InvalidName",
            (3, 15),
            "spec.variables.a-b",
        ),
        row("B41 in a run", run("set: {a-b: 1}"), "InvalidName", (4, 9), "spec.set.a-b"),
        row("B22 dynamic", variables("{dynamic: [{name: a}]}"), "NotYet", (2, 8), "spec.dynamic"),
        row("limit", variables("{targets: {all: true, limit: 1}}"), "OneOf", (2, 36), "spec.targets.limit"),
        row("nobody", variables("{targets: {}}"), "EmptySelector", (2, 17), "spec.targets"),
        row("priority", variables("{priority: 1001}"), "OutOfRange", (2, 18), "spec.priority"),
        row(
            "a binding of nothing",
            "metadata: {apiVersion: v1alpha, kind: ClusterVariablesBinding, name: b}\nspec: {clusterVariables: [a]}\n",
            "OneOf",
            (2, 7),
            "spec",
        ),
    ]);
    check(rows);
}

#[test]
fn expressions_may_stand_for_any_parameter_until_they_are_rendered() {
    let text = task(
        "file.managed: {path: \"${{ vars.path }}\", mode: \"${{ vars.mode }}\", parents: \"${{ vars.deep }}\", validate: \"${{ vars.check }}\"}",
    );
    assert_eq!(manifest::decode("in.yaml", text.as_bytes(), None).unwrap().len(), 1);
    let rendered = serde_json::json!({"path": "relative", "mode": "0644", "parents": true}).into();
    let found = params::decode::<lockstep_apis::v1alpha::FileManaged>("file.managed", &rendered).unwrap_err();
    assert_eq!((found[0].reason.as_str(), found[0].field.as_str()), ("InvalidPath", "path"));
}
