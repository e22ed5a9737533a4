//! The catalogue of bad input, as far as no cluster is needed to know it: each row is refused for its reason, at its
//! place, and no object comes out. Rows are named after the catalogue's numbers.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

use lockstep_apis::{manifest, params, v1alpha::Violation};

/// A book whose `spec` is the given text, indented by two, from line 3 on.
fn book(spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("metadata: {{apiVersion: v1alpha, kind: TaskBook, name: web, namespace: shop}}\nspec:\n{indented}")
}

/// A book whose only task is the given text, on line 4 from column 5 on.
fn task(text: &str) -> String {
    book(&format!("tasks:\n- {text}"))
}

/// A Run of a book with one more line in its spec, on line 4.
fn run(line: &str) -> String {
    format!(
        "metadata: {{apiVersion: v1alpha, kind: Run, name: r, namespace: shop}}\nspec:\n  taskBooks: [web]\n  {line}\n"
    )
}

/// A Node with that metadata, on line 1 from column 45 on.
fn node(metadata: &str) -> String {
    format!("metadata: {{apiVersion: v1alpha, kind: Node, {metadata}}}\n")
}

const TASKS: &str = "tasks: [{command.run: {argv: [id]}}]";

struct Row {
    number: &'static str,
    input: Vec<u8>,
    file: &'static str,
    reason: &'static str,
    at: (u32, u32),
    field: &'static str,
}

fn row(
    number: &'static str,
    input: impl Into<Vec<u8>>,
    reason: &'static str,
    at: (u32, u32),
    field: &'static str,
) -> Row {
    Row { number, input: input.into(), file: "in.yaml", reason, at, field }
}

fn json(number: &'static str, input: &str, reason: &'static str, at: (u32, u32), field: &'static str) -> Row {
    Row { file: "in.json", ..row(number, input, reason, at, field) }
}

fn violations(row: &Row) -> Vec<Violation> {
    match manifest::decode(row.file, &row.input, None) {
        Ok(_) => panic!("{} was accepted: {}", row.number, String::from_utf8_lossy(&row.input)),
        Err(violations) => violations,
    }
}

/// One of the violations is the row's. Others may follow from the same mistake.
fn check(rows: Vec<Row>) {
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

#[test]
fn documents_that_are_no_text_or_no_yaml_are_refused() {
    let mut utf16 = b"\xff\xfe".to_vec();
    utf16.extend("a: 1".encode_utf16().flat_map(u16::to_le_bytes));
    check(vec![
        row("B1 empty", "", "EmptyBody", (1, 1), ""),
        row("B1 comments", "# nothing\n# here\n", "EmptyBody", (1, 1), ""),
        row("B1 marker", "---\n", "EmptyBody", (1, 1), ""),
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
fn fields_kinds_and_types_that_are_not_ours_are_refused() {
    check(vec![
        row(
            "B9 mode",
            task("file.managed: {path: /a, mode: 0644}"),
            "AmbiguousMode",
            (4, 36),
            "spec.tasks[0].file.managed.mode",
        ),
        row(
            "B9 mode octal",
            task("file.managed: {path: /a, mode: 0o644}"),
            "AmbiguousMode",
            (4, 36),
            "spec.tasks[0].file.managed.mode",
        ),
        row("B9 null", task("user: ~\n  command.run: {argv: [a]}"), "TypeMismatch", (4, 11), "spec.tasks[0].user"),
        row("B9 float", task("user: 1e3\n  command.run: {argv: [a]}"), "TypeMismatch", (4, 11), "spec.tasks[0].user"),
        row(
            "B9 infinite",
            book(&format!("variables: {{a: .inf}}\n{TASKS}")),
            "OutOfRange",
            (3, 18),
            "spec.variables.a",
        ),
        row("B9 nan", book(&format!("variables: {{a: .NaN}}\n{TASKS}")), "OutOfRange", (3, 18), "spec.variables.a"),
        row("B10 misspelt", format!("{}sepc: {{}}\n", book(TASKS)), "UnknownField", (4, 1), "sepc"),
        row("B10 case", format!("{}Status: {{}}\n", book(TASKS)), "UnknownField", (4, 1), "Status"),
        row(
            "B10 deep",
            book("targts: {all: true}\ntasks: [{command.run: {argv: [id]}}]"),
            "UnknownField",
            (3, 3),
            "spec.targts",
        ),
        row(
            "B11 word",
            book(&format!("runOptions: {{serialize: two}}\n{TASKS}")),
            "TypeMismatch",
            (3, 27),
            "spec.runOptions.serialize",
        ),
        row("B11 list", book(&format!("variables: []\n{TASKS}")), "TypeMismatch", (3, 14), "spec.variables"),
        row(
            "B11 2^63",
            book(&format!("variables: {{a: 9223372036854775808}}\n{TASKS}")),
            "OutOfRange",
            (3, 18),
            "spec.variables.a",
        ),
        row("B11 1e400", book(&format!("variables: {{a: 1e400}}\n{TASKS}")), "OutOfRange", (3, 18), "spec.variables.a"),
        row(
            "B11 -1",
            book(&format!("targets: {{all: true, limit: -1}}\n{TASKS}")),
            "OutOfRange",
            (3, 31),
            "spec.targets.limit",
        ),
        row(
            "B11 1.5",
            book(&format!("targets: {{all: true, limit: 1.5}}\n{TASKS}")),
            "TypeMismatch",
            (3, 31),
            "spec.targets.limit",
        ),
        row(
            "B11 text",
            book(&format!("targets: {{all: \"yes\"}}\n{TASKS}")),
            "TypeMismatch",
            (3, 18),
            "spec.targets.all",
        ),
        row(
            "B12 kind",
            "metadata: {apiVersion: v1alpha, kind: TaksBook, name: a}",
            "NoMatch",
            (1, 39),
            "metadata.kind",
        ),
        row(
            "B12 version",
            "metadata: {apiVersion: v2, kind: Node, name: a}",
            "NoMatch",
            (1, 24),
            "metadata.apiVersion",
        ),
        row("B12 top level", "apiVersion: apps/v1\nkind: Node\nmetadata: {name: a}", "NoMatch", (1, 13), "apiVersion"),
        row("B12 nothing", "spec: {}", "NoMatch", (1, 1), "metadata.kind"),
        row("B12 name", "metadata: {apiVersion: v1alpha, kind: Node}", "Required", (1, 11), "metadata.name"),
        row("B15 status", format!("{}status: {{liveness: Ready}}\n", node("name: a")), "Immutable", (2, 1), "status"),
        row(
            "B15 created",
            node("name: a, createdAt: \"2026-01-02T03:04:05Z\""),
            "Immutable",
            (1, 54),
            "metadata.createdAt",
        ),
        row("B15 generation", node("name: a, generation: 7"), "Immutable", (1, 54), "metadata.generation"),
        row("B15 origin", run("origin: {type: User}"), "Immutable", (4, 3), "spec.origin"),
        row("B25 junk", node("name: a, resourceVersion: abc"), "ResourceVersion", (1, 71), "metadata.resourceVersion"),
        row(
            "B25 2^64",
            node("name: a, resourceVersion: \"18446744073709551616\""),
            "ResourceVersion",
            (1, 71),
            "metadata.resourceVersion",
        ),
        row(
            "B36 year",
            node("name: a, resourceVersion: \"1\", createdAt: \"0000-01-01T00:00:00Z\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
        row(
            "B36 leap",
            node("name: a, resourceVersion: \"1\", createdAt: \"2026-01-01T00:00:60Z\""),
            "Timestamp",
            (1, 87),
            "metadata.createdAt",
        ),
    ]);
}

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

#[test]
fn counts_durations_and_tasks_are_held_to_their_ranges() {
    let mut rows: Vec<Row> = Vec::new();
    for count in ["0", "-1", "0%", "101%", "\"33\"", "1.5"] {
        let text = book(&format!("runOptions: {{serialize: {count}}}\n{TASKS}"));
        rows.push(row("B29", text, "OutOfRange", (3, 27), "spec.runOptions.serialize"));
    }
    let list = book(&format!("runOptions: {{serialize: {{count: [1, 0]}}}}\n{TASKS}"));
    rows.push(row("B29 list", list, "OutOfRange", (3, 39), "spec.runOptions.serialize.count[1]"));
    let empty = book(&format!("runOptions: {{serialize: {{count: []}}}}\n{TASKS}"));
    rows.push(row("B29 empty", empty, "OutOfRange", (3, 35), "spec.runOptions.serialize.count"));
    for timeout in ["0", "-5s", "5", "1y", "1h1h", "99999999999h", "5 m", "PT5M", "8d", "0s", "[1h]"] {
        let reason = if timeout == "[1h]" { "TypeMismatch" } else { "Duration" };
        rows.push(row(
            "B31",
            book(&format!("runOptions: {{timeout: {timeout}}}\n{TASKS}")),
            reason,
            (3, 25),
            "spec.runOptions.timeout",
        ));
    }
    let gate = |gate: &str| book(&format!("runOptions: {{serialize: {{count: 1, gate: {gate}}}}}\n{TASKS}"));
    let looks = |rest: &str| gate(&format!("{{check: [{{id: a, command.query: {{argv: [x]}}}}], {rest}}}"));
    rows.extend([
        row("gate alone", gate("{}"), "Required", (3, 44), "spec.runOptions.serialize.gate.check"),
        row("gate empty", gate("{check: []}"), "OutOfRange", (3, 52), "spec.runOptions.serialize.gate.check"),
        row("gate misspelt", looks("soaks: 1s"), "UnknownField", (3, 91), "spec.runOptions.serialize.gate.soaks"),
        row(
            "gate limit",
            looks("retry: {limit: 0}"),
            "OutOfRange",
            (3, 106),
            "spec.runOptions.serialize.gate.retry.limit",
        ),
        row(
            "gate interval",
            looks("retry: {interval: 0s}"),
            "Duration",
            (3, 109),
            "spec.runOptions.serialize.gate.retry.interval",
        ),
        row(
            "throttle",
            task("time.sleep: 1s\n  delegateTo: {nodes: [a]}\n  throttle: 33"),
            "OutOfRange",
            (6, 15),
            "spec.tasks[0].throttle",
        ),
        row(
            "delegate nobody",
            task("time.sleep: 1s\n  delegateTo: {}"),
            "EmptySelector",
            (5, 17),
            "spec.tasks[0].delegateTo",
        ),
        row("gate soak", looks("soak: 2d"), "Duration", (3, 97), "spec.runOptions.serialize.gate.soak"),
    ]);
    let many = book(&format!("tasks:\n{}", "- {command.run: {argv: [a]}}\n".repeat(10_001)));
    rows.extend([
        row(
            "B30 two actions",
            task("command.run: {argv: [a]}\n  time.sleep: 1s"),
            "TwoActions",
            (5, 5),
            "spec.tasks[0]",
        ),
        row(
            "B30 action twice",
            task("command.run: {argv: [a]}\n  action: time.sleep"),
            "TwoActions",
            (5, 13),
            "spec.tasks[0]",
        ),
        row("B30 no action", task("name: nothing"), "NoAction", (4, 5), "spec.tasks[0]"),
        row("B30 block", task("block: [{time.sleep: 1s}]\n  time.sleep: 1s"), "TwoActions", (5, 5), "spec.tasks[0]"),
        row("B30 empty block", task("block: []"), "OutOfRange", (4, 12), "spec.tasks[0].block"),
        row("B30 in a block", task("block: [{name: a}]"), "NoAction", (4, 13), "spec.tasks[0].block[0]"),
        row(
            "result of a block",
            task("block: [{time.sleep: 1s}]\n  success: true"),
            "NoMatch",
            (5, 5),
            "spec.tasks[0].success",
        ),
        row(
            "rescue of nothing",
            task("time.sleep: 1s\n  rescue: [{time.sleep: 1s}]"),
            "NoMatch",
            (5, 5),
            "spec.tasks[0].rescue",
        ),
        row(
            "in a rescue",
            task("block: [{time.sleep: 1s}]\n  rescue: [{comand.run: {argv: [a]}}]"),
            "UnknownAction",
            (5, 15),
            "spec.tasks[0].rescue[0].comand.run",
        ),
        row("loop of a block", task("block: [{time.sleep: 1s}]\n  loop: [1]"), "NoMatch", (5, 5), "spec.tasks[0].loop"),
        row("limit alone", task("time.sleep: 1s\n  loopLimit: 5"), "NoMatch", (5, 5), "spec.tasks[0].loopLimit"),
        row(
            "limit",
            task("time.sleep: 1s\n  loop: [1]\n  loopLimit: 10001"),
            "OutOfRange",
            (6, 16),
            "spec.tasks[0].loopLimit",
        ),
        row("B30 no tasks", book("tasks: []"), "EmptyTaskBook", (3, 10), "spec.tasks"),
        row(
            "B30 absent",
            "metadata: {apiVersion: v1alpha, kind: TaskBook, name: a}",
            "EmptyTaskBook",
            (1, 1),
            "spec.tasks",
        ),
        row("B38 tasks", many, "TooLarge", (4, 5), "spec.tasks"),
        row("run of nothing", "metadata: {apiVersion: v1alpha, kind: Run, name: a}\nspec: {}", "OneOf", (2, 7), "spec"),
        row("run of both", run("tasks: [{time.sleep: 1s}]"), "OneOf", (3, 3), "spec"),
        row("priority", run("priority: 1001"), "OutOfRange", (4, 13), "spec.priority"),
        row("unknown action", task("comand.run: {argv: [a]}"), "UnknownAction", (4, 5), "spec.tasks[0].comand.run"),
        row(
            "unknown parameter",
            task("command.run: {arvg: [a]}"),
            "UnknownField",
            (4, 19),
            "spec.tasks[0].command.run.arvg",
        ),
        row(
            "bare expression",
            task("when: ${{ true }}\n  time.sleep: 1s"),
            "Expression",
            (4, 11),
            "spec.tasks[0].when",
        ),
        row(
            "enum",
            book(&format!("runOptions: {{onFailure: StopNwo}}\n{TASKS}")),
            "TypeMismatch",
            (3, 27),
            "spec.runOptions.onFailure",
        ),
        row(
            "pattern",
            book(&format!("inputs: {{a: {{type: string, pattern: \"(\"}}}}\n{TASKS}")),
            "Pattern",
            (3, 39),
            "spec.inputs.a.pattern",
        ),
        row("no retries", task("retries: 0\n  time.sleep: 1s"), "OutOfRange", (4, 14), "spec.tasks[0].retries"),
        row(
            "interval",
            task("retries: {interval: 25h}\n  time.sleep: 1s"),
            "Duration",
            (4, 25),
            "spec.tasks[0].retries.interval",
        ),
        row(
            "environment",
            task("environment: {1A: b}\n  time.sleep: 1s"),
            "InvalidName",
            (4, 19),
            "spec.tasks[0].environment.1A",
        ),
    ]);
    check(rows);
}

#[test]
fn what_comes_later_is_refused_with_a_sentence() {
    check(vec![
        row("even false", book(&format!("trustFacts: false\n{TASKS}")), "NotYet", (3, 3), "spec.trustFacts"),
        row("include", task("include: {path: a}\n  time.sleep: 1s"), "NotYet", (4, 5), "spec.tasks[0].include"),
        row("run as", run("runAs: cleaner"), "NotYet", (4, 3), "spec.runAs"),
        row(
            "quota",
            "metadata: {apiVersion: v1alpha, kind: Namespace, name: a}\nspec: {quota: {}}",
            "NotYet",
            (2, 8),
            "spec.quota",
        ),
    ]);
}

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
fn what_keeps_runs_apart_is_checked_at_apply() {
    check(vec![
        row(
            "no key",
            book(&format!("concurrency: {{policy: Queue}}\n{TASKS}")),
            "Required",
            (3, 16),
            "spec.concurrency.key",
        ),
        row(
            "policy",
            book(&format!("concurrency: {{key: a, policy: Forbid}}\n{TASKS}")),
            "TypeMismatch",
            (3, 33),
            "spec.concurrency.policy",
        ),
        row(
            "mode",
            book(&format!("locks: [{{name: a, mode: Wrtie}}]\n{TASKS}")),
            "TypeMismatch",
            (3, 27),
            "spec.locks[0].mode",
        ),
        row(
            "too many locks",
            book(&format!("locks: [{}]\n{TASKS}", (0..17).map(|n| format!("l{n},")).collect::<String>())),
            "TooLarge",
            (3, 10),
            "spec.locks",
        ),
        row("text", book(&format!("concurrency: a\n{TASKS}")), "TypeMismatch", (3, 16), "spec.concurrency"),
    ]);
}

#[test]
fn parameters_of_modules_are_checked_at_apply() {
    let mut rows: Vec<Row> = Vec::new();
    let (long, part) = (format!("/{}", "a/".repeat(2048)), format!("/{}", "a".repeat(256)));
    for path in ["etc/motd", "", "/", "/a/../b", "/etc/", "//host", "/./a", &long, &part] {
        rows.push(row(
            "B47",
            task(&format!("file.managed: {{path: \"{path}\"}}")),
            "InvalidPath",
            (4, 26),
            "spec.tasks[0].file.managed.path",
        ));
    }
    for name in
        ["", "--reinstall", "foo;rm -rf /", "foo=", "=1", "a b", "a=1 b", "foo=-1", "a*", "a|b", "/tmp/x.deb", "a\\n"]
    {
        rows.push(row(
            "B55",
            task(&format!("package.installed: {{names: [\"{name}\"]}}")),
            "InvalidPackage",
            (4, 33),
            "spec.tasks[0].package.installed.names[0]",
        ));
    }
    for mode in ["999", "07777", "u+s", "", "44"] {
        let text = task(&format!("file.managed: {{path: /a, mode: \"{mode}\"}}"));
        rows.push(row("B50", text, "InvalidMode", (4, 36), "spec.tasks[0].file.managed.mode"));
    }
    rows.extend([
        row(
            "B51 both",
            task("file.managed: {path: /a, content: a, template: b}"),
            "OneOf",
            (4, 19),
            "spec.tasks[0].file.managed",
        ),
        row(
            "B51 no folder",
            task("file.managed: {path: /a, template: {file: ./x.hbs}}"),
            "NeedsFolder",
            (4, 47),
            "spec.tasks[0].file.managed.template.file",
        ),
        row(
            "B51 elsewhere",
            task("file.managed: {path: /a, template: {file: a/../../x}}"),
            "InvalidPath",
            (4, 47),
            "spec.tasks[0].file.managed.template.file",
        ),
        row(
            "B51 more than a file",
            task("file.managed: {path: /a, template: {file: x, mode: y}}"),
            "TypeMismatch",
            (4, 40),
            "spec.tasks[0].file.managed.template",
        ),
        row(
            "B51 checksum",
            task("file.managed: {path: /a, checksum: md5:00}"),
            "Checksum",
            (4, 40),
            "spec.tasks[0].file.managed.checksum",
        ),
        row("B52 empty", task("command.run: {argv: []}"), "OutOfRange", (4, 25), "spec.tasks[0].command.run.argv"),
        row(
            "B52 empty program",
            task("command.run: {argv: [\"\"]}"),
            "OutOfRange",
            (4, 26),
            "spec.tasks[0].command.run.argv",
        ),
        row("B52 text", task("command.run: {argv: ls -l}"), "TypeMismatch", (4, 25), "spec.tasks[0].command.run.argv"),
        row(
            "B52 number",
            task("command.run: {argv: [sleep, 5]}"),
            "TypeMismatch",
            (4, 33),
            "spec.tasks[0].command.run.argv[1]",
        ),
        row("B52 neither", task("command.run:"), "OneOf", (4, 5), "spec.tasks[0].command.run"),
        row("B52 both", task("command.run: {argv: [a], shell: a}"), "OneOf", (4, 18), "spec.tasks[0].command.run"),
        row(
            "required",
            task("file.directory: {mode: \"0755\"}"),
            "Required",
            (4, 21),
            "spec.tasks[0].file.directory.path",
        ),
        row(
            "unit",
            task("service.running: {name: --now}"),
            "InvalidUnit",
            (4, 29),
            "spec.tasks[0].service.running.name",
        ),
        row("unit", task("service.stopped: a/b"), "InvalidUnit", (4, 22), "spec.tasks[0].service.stopped"),
        row(
            "url",
            task("http.request: {url: \"https://u:p@h/\"}"),
            "InvalidURL",
            (4, 25),
            "spec.tasks[0].http.request.url",
        ),
        row(
            "url",
            task("http.request: {url: \"file:///etc/passwd\"}"),
            "InvalidURL",
            (4, 25),
            "spec.tasks[0].http.request.url",
        ),
        row(
            "method",
            task("http.request: {url: \"http://h/\", method: get}"),
            "Pattern",
            (4, 46),
            "spec.tasks[0].http.request.method",
        ),
        row(
            "B56 unsigned",
            task("package.repository: {name: r, uris: [\"https://h/\"], suites: [s], components: [c]}"),
            "OneOf",
            (4, 25),
            "spec.tasks[0].package.repository",
        ),
        row(
            "B56 key id",
            task("package.repository: {name: r, key: \"0xDEADBEEF\"}"),
            "Pattern",
            (4, 40),
            "spec.tasks[0].package.repository.key",
        ),
        row(
            "B56 injection",
            task("package.repository: {name: r, unsigned: true, uris: [\"https://h/\\nTrusted: yes\"]}"),
            "Pattern",
            (4, 58),
            "spec.tasks[0].package.repository.uris[0]",
        ),
        row("sleep", task("time.sleep: 5"), "Duration", (4, 17), "spec.tasks[0].time.sleep"),
    ]);
    check(rows);
}

/// A row whose violation is where `part` begins in the action.
fn at_part(name: &'static str, action: &str, part: &str, reason: &'static str, field: &'static str) -> Row {
    let column = 5 + action.find(part).unwrap() as u32;
    row(name, task(action), reason, (4, column), field)
}

#[test]
fn parameters_of_edits_are_refused_before_they_reach_a_node() {
    check(vec![
        at_part("no line", "file.line: {path: /a}", "{", "Required", "spec.tasks[0].file.line.line"),
        at_part("no pattern", "file.line: {path: /a, absent: true}", "{", "Required", "spec.tasks[0].file.line.line"),
        at_part(
            "two lines",
            r#"file.line: {path: /a, line: "a\nb"}"#,
            "\"a",
            "Pattern",
            "spec.tasks[0].file.line.line",
        ),
        at_part(
            "pattern",
            "file.line: {path: /a, line: a, regexp: '('}",
            "'('",
            "Pattern",
            "spec.tasks[0].file.line.regexp",
        ),
        at_part(
            "drift",
            "file.line: {path: /a, line: a, regexp: '^b'}",
            "'^b'",
            "Pattern",
            "spec.tasks[0].file.line.regexp",
        ),
        at_part(
            "two places",
            "file.line: {path: /a, line: a, insertAfter: a, insertBefore: b}",
            "{",
            "OneOf",
            "spec.tasks[0].file.line",
        ),
        at_part(
            "near",
            "file.line: {path: /a, line: a, regex: a}",
            "regex:",
            "UnknownField",
            "spec.tasks[0].file.line.regex",
        ),
        at_part("no name", "file.block: {path: /a, content: a}", "{", "Required", "spec.tasks[0].file.block.name"),
        at_part(
            "both",
            "file.block: {path: /a, name: a, content: a, absent: true}",
            "{",
            "OneOf",
            "spec.tasks[0].file.block",
        ),
        at_part("nothing", "file.content: {path: /a}", "{", "OneOf", "spec.tasks[0].file.content"),
        at_part("nothing", "file.replaced: {path: /a}", "{", "Required", "spec.tasks[0].file.replaced.regexp"),
        at_part(
            "nothing",
            "file.replaced: {path: /a, regexp: ''}",
            "''",
            "Pattern",
            "spec.tasks[0].file.replaced.regexp",
        ),
        at_part("target", "file.symlink: {path: /a, target: ''}", "''", "Pattern", "spec.tasks[0].file.symlink.target"),
        at_part("path", "file.symlink: {path: a, target: b}", "a, ", "InvalidPath", "spec.tasks[0].file.symlink.path"),
    ]);
}

#[test]
fn parameters_of_accounts_are_refused_before_they_reach_a_node() {
    let found = manifest::decode("in.yaml", task("user.present: {name: a, password: hunter2}").as_bytes(), None);
    assert!(found.unwrap_err().iter().all(|violation| !violation.message.contains("hunter2")));
    check(vec![
        at_part("name", "user.present: {name: '-R'}", "'-R'", "Pattern", "spec.tasks[0].user.present.name"),
        at_part("name", "group.absent: 'a:b'", "'a:b'", "Pattern", "spec.tasks[0].group.absent"),
        at_part("B50 uid", "user.present: {name: a, uid: -1}", "-1", "OutOfRange", "spec.tasks[0].user.present.uid"),
        at_part(
            "B50 gid",
            "group.present: {name: a, gid: 4294967295}",
            "4294967295",
            "OutOfRange",
            "spec.tasks[0].group.present.gid",
        ),
        at_part(
            "B46",
            "user.present: {name: a, password: hunter2}",
            "hunter2",
            "InlineSecret",
            "spec.tasks[0].user.present.password",
        ),
        at_part(
            "shell",
            "user.present: {name: a, shell: bash}",
            "bash",
            "InvalidPath",
            "spec.tasks[0].user.present.shell",
        ),
        at_part(
            "day",
            "user.present: {name: a, expires: tomorrow}",
            "tomorrow",
            "Pattern",
            "spec.tasks[0].user.present.expires",
        ),
        at_part(
            "near",
            "user.present: {name: a, shel: /bin/sh}",
            "shel:",
            "UnknownField",
            "spec.tasks[0].user.present.shel",
        ),
    ]);
}

#[test]
fn parameters_of_the_machine_are_refused_before_they_reach_a_node() {
    let cron = |schedule: &str| format!("cron.entry: {{name: a, command: b, schedule: '{schedule}'}}");
    let mut rows: Vec<Row> = ["* * * *", "60 * * * *", "@dayly", "0 0 30 2 *", "5-1 * * * *", "* * * * mon-sun"]
        .map(|bad| at_part("schedule", &cron(bad), "'", "Schedule", "spec.tasks[0].cron.entry.schedule"))
        .into();
    rows.extend([
        at_part(
            "no schedule",
            "cron.entry: {name: a, command: b}",
            "{",
            "Required",
            "spec.tasks[0].cron.entry.schedule",
        ),
        at_part("name", "cron.entry: {name: a.b, absent: true}", "a.b", "Pattern", "spec.tasks[0].cron.entry.name"),
        at_part("name", "sysctl.set: {name: ../x, value: '1'}", "../x", "Pattern", "spec.tasks[0].sysctl.set.name"),
        at_part("number", "sysctl.set: {name: a.b, value: 1}", "1}", "TypeMismatch", "spec.tasks[0].sysctl.set.value"),
        at_part("name", "hostname.set: -a", "-a", "Pattern", "spec.tasks[0].hostname.set"),
        at_part(
            "option",
            "mount.present: {path: /a, source: -o, type: b}",
            "-o",
            "Pattern",
            "spec.tasks[0].mount.present.source",
        ),
        at_part(
            "blank",
            "mount.present: {path: /a, source: b, type: c d}",
            "c d",
            "Pattern",
            "spec.tasks[0].mount.present.type",
        ),
        at_part("path", "mount.unmounted: data", "data", "InvalidPath", "spec.tasks[0].mount.unmounted"),
    ]);
    check(rows);
}

#[test]
fn parameters_of_archives_are_refused_before_they_reach_a_node() {
    let field = "spec.tasks[0].archive.unpacked.strip";
    check(vec![
        at_part("source", "archive.unpacked: {path: /a}", "{", "Required", "spec.tasks[0].archive.unpacked.source"),
        at_part(
            "path",
            "archive.unpacked: {path: a, source: /b}",
            "a, ",
            "InvalidPath",
            "spec.tasks[0].archive.unpacked.path",
        ),
        at_part("strip", "archive.unpacked: {path: /a, source: /b, strip: -1}", "-1", "OutOfRange", field),
        at_part("near", "archive.unpaked: {path: /a}", "archive", "UnknownAction", "spec.tasks[0].archive.unpaked"),
    ]);
}

#[test]
fn parameters_of_scripts_and_waits_are_refused_before_they_reach_a_node() {
    check(vec![
        at_part("B52 neither", "command.script: {args: [a]}", "{", "OneOf", "spec.tasks[0].command.script"),
        at_part("B52 both", "command.script: {script: a, template: b}", "{", "OneOf", "spec.tasks[0].command.script"),
        at_part(
            "B52 text",
            "command.script: {script: a, args: b}",
            "b}",
            "TypeMismatch",
            "spec.tasks[0].command.script.args",
        ),
        at_part("nothing", "wait.for: {interval: 1s}", "{", "OneOf", "spec.tasks[0].wait.for"),
        at_part("port", "wait.for: {port: 65536}", "65536", "OutOfRange", "spec.tasks[0].wait.for.port"),
        at_part("both", "wait.for: {port: 1, path: /a}", "{", "OneOf", "spec.tasks[0].wait.for"),
        at_part("fast", "wait.for: {port: 1, interval: 1ms}", "1ms", "Duration", "spec.tasks[0].wait.for.interval"),
        at_part("empty", "debug.print: {}", "{", "Required", "spec.tasks[0].debug.print.message"),
        at_part("near", "debug.pint: a", "debug", "UnknownAction", "spec.tasks[0].debug.pint"),
    ]);
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
