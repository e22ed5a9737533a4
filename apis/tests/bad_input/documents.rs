//! Documents: text, YAML, JSON, and all faults at once.

use lockstep_apis::manifest;

use crate::table::{TASKS, book, check, json, node, row, task, violations};

#[test]
fn documents_that_are_no_text_or_no_yaml_are_refused() {
    let mut utf16 = b"\xff\xfe".to_vec();
    utf16.extend("a: 1".encode_utf16().flat_map(u16::to_le_bytes));
    check(vec![
        row("B1 empty", "", "EmptyBody", (1, 1), ""),
        row("B1 comments", "# nothing\n# here\n", "EmptyBody", (1, 1), ""),
        row("B1 marker", "---\n", "EmptyBody", (1, 1), ""),
        row("B1 list", "[]", "EmptyBody", (1, 1), ""),
        json("B1 json", "", "EmptyBody", (1, 1), ""),
        row("B2 utf-16", utf16, "Encoding", (1, 1), ""),
        row("B2 latin-1", b"a: 1\nb: \xe9\n".to_vec(), "Encoding", (2, 4), ""),
        row("B2 surrogate", b"a: \xed\xa0\x80".to_vec(), "Encoding", (1, 4), ""),
        row("B2 nul", "a: b\0c", "Encoding", (1, 5), ""),
        row("B2 nul escaped", task("command.run: {argv: [id, \"a\\0b\"]}"), "Encoding", (4, 30), ""),
        row("B2 c1", "a: \u{9b}31m", "Encoding", (1, 4), ""),
        row("B3 tab", "a:\n\tb: 1\n", "Syntax", (2, 2), ""),
        row("B3 quote", "a: 'b\n", "Syntax", (2, 1), ""),
        row("B3 escape", "a: \"\\q\"\n", "Syntax", (1, 4), ""),
        row(
            "B8 one bad document",
            format!("{}---\n{}", node("name: a"), node("name: B")),
            "InvalidName",
            (3, 51),
            "metadata.name",
        ),
        json("B14 garbage", "{} x", "Syntax", (1, 4), ""),
        json("B14 comment", "{// no\n}", "Syntax", (1, 2), ""),
        json("B14 quotes", "{'a': 1}", "Syntax", (1, 2), ""),
        json("B14 number", "{\"a\": 00012}", "Syntax", (1, 8), ""),
        json("B4 json", "{\"spec\": {},\n \"spec\": {}}", "DuplicateKey", (2, 2), "spec"),
        row("B4", format!("{}spec: {{}}\n", book(TASKS)), "DuplicateKey", (4, 1), "spec"),
        row(
            "B4 deep",
            task("command.run: {argv: [a], argv: [b]}"),
            "DuplicateKey",
            (4, 30),
            "spec.tasks[0].command.run.argv",
        ),
        row("B7 python", "a: !!python/object:os.system ls", "TagNotAllowed", (1, 30), ""),
        row("B7 ruby", "a: !ruby/object {b: 1}", "TagNotAllowed", (1, 17), ""),
        row("B7 include", "a: !include /etc/shadow", "TagNotAllowed", (1, 13), ""),
        row("B7 binary", "a: !!binary aGk=", "TagNotAllowed", (1, 13), ""),
    ]);
}

#[test]
fn a_byte_order_mark_is_dropped_and_the_violation_names_both_lines_of_a_key() {
    let mut with_mark = b"\xef\xbb\xbf".to_vec();
    with_mark.extend(node("name: a").bytes());
    assert_eq!(manifest::decode("in.yaml", &with_mark, None).unwrap().len(), 1);
    let twice = violations(&row("B4", "a: 1\nb: 2\na: 3\n", "", (0, 0), ""));
    let twice = twice.iter().find(|violation| violation.reason == "DuplicateKey").unwrap();
    assert_eq!((twice.line, twice.message.contains("line 1")), (3, true), "{twice}");
}

#[test]
fn bombs_are_refused_before_they_cost_anything() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let before = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(","));
    }
    let merge = "a: &a\n  <<: *a\n";
    let open = "[".repeat(10_000);
    let maps = "{a: ".repeat(10_000);
    let blocks: String = (0..100).map(|at| format!("{}a:\n", " ".repeat(at))).collect();
    let large = format!("{}    - {}\n", book("tasks:"), "x".repeat(1024 * 1024));
    let items = format!("a: [{}]", "1,".repeat(1_000_001));
    let huge = vec![b'a'; 100 * 1024 * 1024];
    let start = std::time::Instant::now();
    check(vec![
        row("B5 bomb", bomb, "AliasLimit", (5, 10), ""),
        row("B5 self", "a: &a [*a]", "AliasLimit", (1, 8), ""),
        row("B5 merge cycle", merge, "AliasLimit", (2, 7), ""),
        row("B6 lists", open.as_str(), "TooDeep", (1, 65), ""),
        row("B6 maps", maps, "TooDeep", (1, 257), ""),
        row("B6 blocks", blocks, "TooDeep", (65, 65), ""),
        json("B6 json", &open, "TooDeep", (1, 65), ""),
        row("B13 object", large, "TooLarge", (1, 1), ""),
        row("B13 items", items, "TooLarge", (1, 1), ""),
        row("B13 body", huge, "TooLarge", (0, 0), ""),
    ]);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn all_faults_of_a_file_come_at_once_in_order_with_the_nearest_spelling() {
    let text = "metadata: {apiVersion: v1alpha, kind: TaskBook, name: Web, namespace: shop}\nspec:\n  tagets: {all: true}\n  tasks:\n  - file.manged: {path: /a}\n  - command.run: {argv: ls}\n---\nmetadata: {apiVersion: v1alpha, kind: Nod, name: a}\n";
    let found = manifest::decode("in.yaml", text.as_bytes(), None).unwrap_err();
    let lines: Vec<_> =
        found.iter().map(|violation| (violation.line, violation.reason.as_str(), violation.object)).collect();
    assert_eq!(
        lines,
        [
            (1, "InvalidName", 0),
            (3, "UnknownField", 0),
            (5, "UnknownAction", 0),
            (6, "TypeMismatch", 0),
            (8, "NoMatch", 1)
        ]
    );
    assert!(found[0].message.contains("RFC 1123"));
    assert!(found[1].message.contains("did you mean `targets`?"), "{}", found[1]);
    assert!(found[2].message.contains("did you mean `file.managed`?"), "{}", found[2]);
    assert!(found[4].message.contains("did you mean `Node`?") && found[4].message.contains("TaskBook"), "{}", found[4]);
}

#[test]
fn wrong_yaml_1_1_readings_are_plain_text_here() {
    let text = book(&format!("variables: {{a: no, b: on, c: 1:30, d: 0b1}}\n{TASKS}"));
    let objects = manifest::decode("in.yaml", text.as_bytes(), None).unwrap();
    let json = manifest::to_json(&objects[0]);
    assert_eq!(json["spec"]["variables"], serde_json::json!({"a": "no", "b": "on", "c": "1:30", "d": "0b1"}));
}
