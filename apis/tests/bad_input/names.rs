//! Names, labels, selectors.

use crate::table::{Row, TASKS, book, check, node, row};

#[test]
fn names_labels_and_selectors_are_held_to_their_syntax() {
    let long = "a".repeat(254);
    let mut rows: Vec<Row> = Vec::new();
    for name in [
        "",
        long.as_str(),
        "A",
        "a_b",
        "-a",
        "a-",
        "a..b",
        ".",
        "..",
        "a/b",
        "a%2fb",
        " a",
        "a\\n",
        "CON",
        "😀",
        "аdmin",
        "a\\u202eb",
    ] {
        rows.push(row("B16", node(&format!("name: \"{name}\"")), "InvalidName", (1, 51), "metadata.name"));
    }
    for (labels, field) in [
        ("{\"-a\": x}", "metadata.labels.-a"),
        ("{\"\": x}", "metadata.labels[\"\"]"),
        ("{\"lockstep/managed-by\": x}", "metadata.labels.lockstep/managed-by"),
        ("{\"A_B/c\": x}", "metadata.labels.A_B/c"),
    ] {
        rows.push(row("B18 key", node(&format!("name: a, labels: {labels}")), "InvalidLabel", (1, 63), field));
    }
    let value = "v".repeat(64);
    rows.push(row(
        "B18 value",
        node(&format!("name: a, labels: {{a: {value}}}")),
        "InvalidLabel",
        (1, 66),
        "metadata.labels.a",
    ));
    rows.push(row("B18 number", node("name: a, labels: {a: 1}"), "TypeMismatch", (1, 66), "metadata.labels.a"));
    let annotation = "x".repeat(300 * 1024);
    rows.push(row(
        "annotations",
        node(&format!("name: a, annotations: {{a: {annotation}}}")),
        "TooLarge",
        (1, 67),
        "metadata.annotations",
    ));
    let terms = "a,".repeat(10_000) + "a";
    for selector in ["a in ()", "a in (b", "!", "==", "a=~b.*", "a,", &terms] {
        let text = book(&format!("targets: {{selector: \"{selector}\"}}\n{TASKS}"));
        rows.push(row("B19", text, "SelectorSyntax", (3, 23), "spec.targets.selector"));
    }
    rows.push(row(
        "B19 empty",
        book(&format!("targets: {{selector: \"\"}}\n{TASKS}")),
        "EmptySelector",
        (3, 23),
        "spec.targets.selector",
    ));
    for targets in ["{}", "{limit: 1}", "{exclude: {nodes: [a]}}", "{nodes: []}", "{all: false}"] {
        rows.push(row("B20", book(&format!("targets: {targets}\n{TASKS}")), "EmptySelector", (3, 12), "spec.targets"));
    }
    check(rows);
}
