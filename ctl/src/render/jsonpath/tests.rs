use super::*;
use serde_json::json;

fn rendered(template: &str) -> String {
    let root = json!([
        {"metadata": {"name": "a", "labels": {"lockstep/os": "debian"}}, "status": {"phase": "Failed", "n": 3}},
        {"metadata": {"name": "b"}, "status": {"phase": "Succeeded", "ports": [1, 2, 3]}},
    ]);
    JsonPath::parse(template).unwrap().render(&root)
}

#[test]
fn paths_find_what_kubectl_finds() {
    for (template, expected) in [
        ("{[*].metadata.name}", "a b\n"),
        ("[0].metadata.name", "a\n"),
        ("{$[-1].status.ports[1:]}", "2 3\n"),
        ("{..name}", "a b\n"),
        ("{[0].metadata.labels['lockstep/os']}", "debian\n"),
        ("{[?(@.status.phase==\"Failed\")].metadata.name}", "a\n"),
        ("{[?(@.status.phase != 'Failed')].metadata.name}", "b\n"),
        ("{[?(@.status.n == 3)].metadata.name}", "a\n"),
        ("{[?(@.status.ports)].metadata.name}", "b\n"),
        ("{range [*]}{.metadata.name}: {.status.phase}{\"\\n\"}{end}", "a: Failed\nb: Succeeded\n"),
        ("n={[1].status.ports.*}", "n=1 2 3\n"),
        ("{[0].metadata.labels}", "{\"lockstep/os\":\"debian\"}\n"),
        ("{[0].nothing.such}", ""),
        ("{[7].metadata}", ""),
        ("{[5:2].x}", ""),
    ] {
        assert_eq!(rendered(template), expected, "{template}");
    }
}

#[test]
fn what_a_node_says_moves_no_cursor() {
    let path = JsonPath::parse("{.a} {.b}").unwrap();
    assert_eq!(path.render(&json!({"a": "x\u{1b}[2J", "b": ["\u{9b}2J"]})), "x\\u{1b}[2J [\"\\u009b2J\"]\n");
}

#[test]
fn a_wrong_template_says_where() {
    for (template, expected) in [
        ("{.a", "not closed"),
        ("{range .a}x", "without its `{end}`"),
        ("{end}", "without a `{range"),
        ("{.a[x]}", "`x` is no index"),
        ("{.a[0}", "bracket"),
        ("{.a[?(@.b==c)]}", "`c` is no value"),
        ("{.a..}", "a name is missing"),
        ("{'a}", "not closed"),
        ("{.a[?(@.b[?(@.c)])]}", "inside of a condition"),
        ("", "is empty"),
    ] {
        let problem = JsonPath::parse(template).err();
        assert!(problem.as_ref().is_some_and(|text| text.contains(expected)), "{template}: {problem:?}");
    }
    assert!(JsonPath::parse(&"{range .a}".repeat(10_000)).is_err());
}
