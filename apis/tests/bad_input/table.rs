//! What a row of the tables is, how it is judged, and short ways to write the documents that hold the bad input.

use lockstep_apis::{manifest, v1alpha::Violation};

/// A book whose `spec` is the given text, indented by two, from line 3 on.
pub(crate) fn book(spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("metadata: {{apiVersion: v1alpha, kind: TaskBook, name: web, namespace: shop}}\nspec:\n{indented}")
}

/// A book whose only task is the given text, on line 4 from column 5 on.
pub(crate) fn task(text: &str) -> String {
    book(&format!("tasks:\n- {text}"))
}

/// A Run of a book with one more line in its spec, on line 4.
pub(crate) fn run(line: &str) -> String {
    format!(
        "metadata: {{apiVersion: v1alpha, kind: Run, name: r, namespace: shop}}\nspec:\n  taskBooks: [web]\n  {line}\n"
    )
}

/// A Node with that metadata, on line 1 from column 45 on.
pub(crate) fn node(metadata: &str) -> String {
    format!("metadata: {{apiVersion: v1alpha, kind: Node, {metadata}}}\n")
}

pub(crate) const TASKS: &str = "tasks: [{command.run: {argv: [id]}}]";

pub(crate) struct Row {
    number: &'static str,
    input: Vec<u8>,
    file: &'static str,
    reason: &'static str,
    at: (u32, u32),
    field: &'static str,
}

pub(crate) fn row(
    number: &'static str,
    input: impl Into<Vec<u8>>,
    reason: &'static str,
    at: (u32, u32),
    field: &'static str,
) -> Row {
    Row { number, input: input.into(), file: "in.yaml", reason, at, field }
}

pub(crate) fn json(
    number: &'static str,
    input: &str,
    reason: &'static str,
    at: (u32, u32),
    field: &'static str,
) -> Row {
    Row { file: "in.json", ..row(number, input, reason, at, field) }
}

pub(crate) fn violations(row: &Row) -> Vec<Violation> {
    match manifest::decode(row.file, &row.input, None) {
        Ok(_) => panic!("{} was accepted: {}", row.number, String::from_utf8_lossy(&row.input)),
        Err(violations) => violations,
    }
}

/// One of the violations is the row's. Others may follow from the same mistake.
pub(crate) fn check(rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in &rows {
        let found = violations(row);
        let hit = found
            .iter()
            .any(|v| (v.reason.as_str(), (v.line, v.column), v.field.as_str()) == (row.reason, row.at, row.field));
        if !hit {
            let lines: Vec<_> = found
                .iter()
                .map(|v| format!("    {} {}:{} {} «{}»", v.reason, v.line, v.column, v.field, v.message))
                .collect();
            wrong.push(format!(
                "{}: wanted {} {:?} {}\n{}",
                row.number,
                row.reason,
                row.at,
                row.field,
                lines.join("\n")
            ));
        }
        for violation in &found {
            assert!(violation.message.len() <= 1024, "{}: a message of {} bytes", row.number, violation.message.len());
            assert!(!violation.message.contains(|c: char| c.is_control()), "{}: {:?}", row.number, violation.message);
            assert_eq!(violation.file, row.file);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A row whose violation is where `part` begins in the action.
pub(crate) fn at_part(name: &'static str, action: &str, part: &str, reason: &'static str, field: &'static str) -> Row {
    let column = 5 + action.find(part).unwrap() as u32;
    row(name, task(action), reason, (4, column), field)
}
