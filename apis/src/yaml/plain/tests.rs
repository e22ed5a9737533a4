//! The oracle: what is read here, the library reads alike, positions included, and finds nothing wrong with.

use proptest::prelude::*;

use super::*;
use crate::violation::Violations;

fn by_library(text: &str) -> Result<String, String> {
    let mut violations = Violations::new("");
    let documents = super::super::parse_any(text, &mut violations);
    match violations.list.as_slice() {
        [] => Ok(format!("{documents:#?}")),
        wrong => Err(format!("{wrong:?}")),
    }
}

/// Whether it was read here.
fn agrees(text: &str) -> bool {
    let Some(document) = parse(text) else { return false };
    let (own, theirs) = (format!("{:#?}", [document]), by_library(text));
    assert!(theirs.as_ref() == Ok(&own), "{text}\n{own}\n{theirs:#?}");
    true
}

#[test]
fn manifests_as_people_write_them_are_read_here() {
    let book = "# a book\nmetadata: {apiVersion: v1alpha, kind: TaskBook, name: bench}\n\nspec:\n  targets: {all: true, nodes: \
                [a, \"b c\", 'd']}\n  # why\n  tasks:\n    - name: Say it, twice\n      file.managed:\n        path: /etc/motd\n        \
                mode: \"0644\"\n        template: |\n          # {{vars.a}}\n\n            b: é\n      when: vars.a == 1 && \
                'x' in vars.b\n    - command.run: {argv: [/bin/true, \"1\"]}\n  locks:\n  - a\n  - name: b\n    \
                text: |-\n      x\n";
    assert!(agrees(book));
    for file in std::fs::read_dir("../examples").unwrap().chain(std::fs::read_dir("../tests/bench").unwrap()) {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            agrees(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn what_may_mean_more_is_the_librarys() {
    for text in [
        "",
        "\n",
        "a\n",
        "a: b",
        "a:\n",
        "a: &x b\n",
        "a: *x\n",
        "a: !!str b\n",
        "<<: {a: b}\n",
        "a: b\na: c\n",
        "a: {b: c, b: d}\n",
        "a: b\n  c\n",
        "a: b # c\n",
        "a: \"\\n\"\n",
        "a: 'b''c'\n",
        "a: >\n  b\n",
        "a: |+\n  b\n",
        "a: |2\n  b\n",
        "---\na: b\n",
        "a: b\n...\n",
        "a: {b}\n",
        "a: {b: c,}\n",
        "a: [b: c]\n",
        "a: b: c\n",
        "a:\tb\n",
        "é: b\n",
        "a: é\n",
        "- - a\n",
        "a: {b:\n c}\n",
        "a: |\n\n  b\n",
        "a: |\n  b\n c: d\n",
        "? a\n",
        "a: - b\n",
        "a: @b\n",
        "a: 'b' c\n",
        "a: b \n",
    ] {
        assert!(parse(text).is_none(), "{text:?}");
    }
    let deep = (0..30).fold(String::new(), |text, depth| format!("{text}{}a:\n", " ".repeat(depth)));
    assert!(parse(&format!("{deep}{}b: c\n", " ".repeat(30))).is_none());
}

fn scalar() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "1",
        "0644",
        "true",
        "~",
        "null",
        "a b",
        "/x/y",
        "http://x:1/y",
        "-1",
        "-",
        "--- a",
        "\"q\"",
        "\"a: b # c\"",
        "'s'",
        "''",
        "\"\"",
        "a#b",
        "a:b",
        "a ,b",
        "x]",
        "{}",
        "[]",
        "[a, 1, \"x\"]",
        "{a: b, c: [d, {e: f}]}",
        "{ a: b , c: d }",
        "[ a ]",
        "[a,b]",
        "{a: ${{ x }}}",
        "${{ vars.x }}",
        "a{b}",
        "$x",
        "(a)",
        "=",
        "+1",
        ".5",
        "...",
        "\"a\\n\"",
        "'a''b'",
        "|",
        "|-",
        "|+",
        ">",
        "*a",
        "&a b",
        "!t c",
        "é",
        "a é",
        "{a: 'b', \"c\": d}",
        "[a b, c:d]",
        "{a: b:c}",
        "[a: b]",
        "{a:b}",
        "[-1, - 2]",
        "[a]b",
        "{a: -}",
        "[#]",
        "[a #b]",
        "a\u{85}b",
        "?",
        "? a",
        ":",
        "::",
        "a:",
    ])
}

fn line() -> impl Strategy<Value = String> {
    let indent = prop_oneof![4 => Just(0usize), 4 => Just(2), 4 => Just(4), 2 => Just(6), 1 => 0usize..8];
    let key = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "file.managed",
        "x-y",
        "1",
        "<<",
        "a b",
        "\"k\"",
        "null",
        "-a",
        "_",
        "/p",
    ]);
    let body = prop_oneof![
        6 => (key.clone(), scalar()).prop_map(|(key, value)| format!("{key}: {value}")),
        4 => key.clone().prop_map(|key| format!("{key}:")),
        3 => scalar().prop_map(|value| format!("- {value}")),
        3 => (key.clone(), scalar()).prop_map(|(key, value)| format!("- {key}: {value}")),
        1 => key.clone().prop_map(|key| format!("-   {key}:")),
        2 => (key, prop::sample::select(vec!["|", "|-"])).prop_map(|(key, block)| format!("{key}: {block}")),
        2 => prop::sample::select(vec!["", "# c", "text", "t: x", "é\u{2028}", " "]).prop_map(str::to_owned),
        1 => scalar().prop_map(str::to_owned),
    ];
    (indent, body).prop_map(|(indent, body)| format!("{}{body}\n", " ".repeat(indent)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_here_the_library_reads_alike(lines in prop::collection::vec(line(), 1..9)) {
        agrees(&lines.concat());
    }

    /// Built to be right, so that most is read here.
    #[test]
    fn nested_documents_are_read_alike(parts in prop::collection::vec((0usize..4, scalar(), 0usize..5), 1..10)) {
        let (mut text, mut open) = (String::new(), vec![0usize]);
        for (nth, (close, value, form)) in parts.iter().enumerate() {
            open.truncate(open.len().saturating_sub(*close).max(1));
            let indent = *open.last().unwrap();
            let pad = " ".repeat(indent);
            let line = match form {
                0 => { open.push(indent + 2); format!("{pad}k{nth}:\n{pad}  j: 1\n") }
                1 => format!("{pad}k{nth}: |\n{pad}  x {value}\n\n{pad}    y\n{pad}# z\n"),
                2 => format!("{pad}k{nth}:\n{pad}- {value}\n{pad}- l: {value}\n{pad}  m: 1\n"),
                3 => format!("{pad}k{nth}:\n\n{pad}    - {value}\n"),
                _ => format!("{pad}k{nth}: {value}\n"),
            };
            text.push_str(&line);
        }
        agrees(&text);
    }
}
