//! Claims about templates. What both can render is compared with the `handlebars` crate's own renderer.

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::Value;

use super::*;

fn values(json: serde_json::Value) -> BTreeMap<String, Value> {
    Value::from(json).as_map().cloned().unwrap()
}

fn variables() -> serde_json::Value {
    serde_json::json!({
        "port": 8080, "big": 9007199254740993_i64, "html": "<a & \"b\">", "no": false, "zero": 0, "nothing": null,
        "names": ["a", "b", "c"], "users": [{"name": "ann", "admin": true}, {"name": "bob", "admin": false}],
        "tls": {"min": "1.3", "max": "1.4"}, "empty": [], "text": "a\nb\n", "inject": "{{vars.port}} ${{ vars.port }}",
        "many": (0..2000).collect::<Vec<i64>>(),
    })
}

fn context() -> Context {
    let labels = BTreeMap::from([("role".to_owned(), "web".to_owned())]);
    Context::new()
        .with_node("web1", &labels, &[])
        .with_facts(serde_json::json!({"cpu": {"count": 4}}).into())
        .with_variables(&values(variables()))
        .with_results(&values(serde_json::json!({"init": {"stdout": "ok", "changed": true}})))
        .with_nodes([("web1", &labels)])
}

fn render(source: &str) -> Result<String, String> {
    let template = Template::parse(source).map_err(|error| error.to_string())?;
    template.render(&context()).map_err(|error| error.to_string())
}

#[test]
fn templates_make_these_texts() {
    let table = [
        ("workers {{facts.cpu.count}}\nport {{vars.port}}\n", "workers 4\nport 8080\n"),
        ("{{vars.big}}", "9007199254740993"),
        ("{{vars.html}}{{{vars.html}}}", "<a & \"b\"><a & \"b\">"),
        ("{{vars.inject}}", "{{vars.port}} ${{ vars.port }}"),
        ("{{node.labels.role}}{{node.labels.rack}}", "web"),
        ("{{default node.labels.rack \"r0\"}}{{default vars.nope vars.port}}", "r08080"),
        ("{{default vars.no \"x\"}}", "false"),
        ("{{join vars.names \", \"}}", "a, b, c"),
        ("{{json vars.tls}}", "{\"max\":\"1.4\",\"min\":\"1.3\"}"),
        ("{{yaml vars.users}}", "- admin: true\n  name: ann\n- admin: false\n  name: bob"),
        ("{{yaml vars.tls}}", "max: \"1.4\"\nmin: \"1.3\""),
        (
            "{{b64 \"foob\"}} {{sha256 \"abc\"}}",
            "Zm9vYg== ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        ("{{indent vars.text 2}}|", "  a\n  b\n|"),
        ("{{quote vars.html}}", "\"<a & \\\"b\\\">\""),
        ("{{expr \"vars.port + 1\"}}", "8081"),
        ("{{#each vars.names}}{{@index}}{{this}}{{#unless @last}},{{/unless}}{{/each}}", "0a,1b,2c"),
        ("{{#each vars.tls as |v k|}}{{k}}={{v}};{{/each}}", "max=1.4;min=1.3;"),
        ("{{#each vars.tls}}{{@key}} {{/each}}", "max min "),
        (
            "{{#each vars.users}}{{name}}{{#if admin}}*{{/if}} {{../vars.port}} {{@root.node.name}} {{/each}}",
            "ann* 8080 web1 bob 8080 web1 ",
        ),
        (
            "{{#each vars.users as |u|}}{{#each @root.vars.names as |n|}}{{u.name}}{{n}}{{@../index}} {{/each}}{{/each}}",
            "anna0 annb0 annc0 boba1 bobb1 bobc1 ",
        ),
        ("{{#each vars.empty}}x{{else}}none{{/each}}", "none"),
        ("{{#with vars.users.[1]}}{{name}}{{/with}} {{vars.names.0}}", "bob a"),
        ("{{#if vars.no}}a{{else if (eq vars.port 8080)}}b{{else}}c{{/if}}", "b"),
        ("{{#if (and (gt vars.port 1024) (not vars.no) (or vars.zero vars.tls))}}yes{{/if}}", "yes"),
        ("{{lookup vars.tls \"min\"}} {{len vars.names}}", "1.3 3"),
        ("{{! a comment }}{{!-- {{no}} --}}\\{{raw}}", "{{raw}}"),
        ("a\n{{#if vars.port}}\nb\n{{/if}}\nc\n", "a\nb\nc\n"),
        ("a {{~vars.port~}} b", "a8080b"),
        ("{{{{raw}}}}{{x}}{{{{/raw}}}}", "{{x}}"),
        ("{{vars.nothing}}", ""),
        ("{{results.init.stdout}}", "ok"),
        ("{{#each nodes}}{{name}}{{labels.role}}{{labels.rack}}{{/each}}", "web1web"),
    ];
    for (source, expected) in table {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_the_nearest_that_is_right() {
    let table = [
        ("a\nb {{vars.prot}}", "template line 2: `vars.prot` is not there: did you mean `port`?"),
        ("{{vras.port}}", "line 1, column 1: unknown name `vras`: did you mean `vars`?"),
        ("x\n{{#if vars.port}}\n{{port}}\n{{/if}}", "line 3, column 1: unknown name `port`: known are node, facts"),
        ("{{results.inti.stdout}}", "`results.inti` is not there: did you mean `init`?"),
        ("{{jion vars.names}}", "unknown helper `jion`: did you mean `join`?"),
        ("{{#eahc vars.names}}{{/eahc}}", "unknown block `eahc`: did you mean `each`?"),
        ("{{vars.names}}", "template line 1: a list of 3 is no text: use `json`, `yaml` or `join`"),
        (
            "{{#each vars.users}}\n{{nmae}}\n{{/each}}",
            "template line 2: `this.nmae` is not there: did you mean `name`?",
        ),
        ("{{#each vars.users}}{{vars.port}}{{/each}}", "inside `each` and `with` write `@root.vars.port`"),
        ("{{#each vars.port}}{{/each}}", "template line 1: `each` goes through lists and maps, not the integer 8080"),
        ("{{> part}}", "partials and decorators are not part of the language"),
        ("{{#*inline \"a\"}}{{> a}}{{/inline}}{{> a}}", "partials and decorators are not part of the language"),
        ("{{#if vars.port}}", "line 1, column 1"),
        ("{{expr vars.port}}", "`expr` is written `{{expr \"CEL\"}}`"),
        ("{{expr \"vras.x\"}}", "in `expr`, at 1:1: unknown name `vras`"),
        ("{{@index}}", "`@index` is only known inside `each`"),
        ("{{this}}", "`this` is only known inside"),
        ("{{join vars.names x=1}}", "`join` has no option `x`"),
        ("{{indent vars.text 1000}}", "`indent` takes a number of spaces from 0 to 256"),
        ("{{default vars.nope (lookup vars.tls \"x\")}}", "`lookup`: a map has no `x`"),
    ];
    for (source, expected) in table {
        let error = render(source).expect_err(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
}

/// Tests may look at the clock: they are not the core.
#[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "measures the core from outside")]
fn timed<T>(work: impl FnOnce() -> T) -> (u128, T) {
    let start = std::time::Instant::now();
    let made = work();
    (start.elapsed().as_millis(), made)
}

/// Each would hang, or take the memory or the stack of the process, without a bound.
#[test]
fn hostile_templates_end_with_an_error_at_once() {
    let nested = |open: &str, inner: &str, close: &str, times| open.repeat(times) + inner + &close.repeat(times);
    let each = nested("{{#each @root.vars.many}}", "", "{{/each}}", 4);
    let hostile = [
        ("nested each without output", each.clone()),
        ("nested each with output", each.replace("}}{{/", "}}some text to be written{{/")),
        ("nested each with an expression", each.replace("}}{{/", "}}{{expr \"size(vars.many)\"}}{{/")),
        ("deep blocks", nested("{{#if vars.port}}", "x", "{{/if}}", 1500)),
        ("deep blocks, unclosed", "{{#if vars.port}}".repeat(1500)),
        ("deep subexpressions", format!("{{{{{}vars.port{}}}}}", "not (".repeat(20_000), ")".repeat(20_000))),
        ("deep subexpressions, unclosed", format!("{{{{{}", "not (".repeat(20_000))),
        ("some subexpressions, unclosed", format!("{{{{{}", "not (".repeat(60))),
        ("deep list", format!("{{{{json {}}}}}", "[".repeat(50_000))),
        ("deep map", format!("{{{{json {}", "{\"a\":".repeat(50_000))),
        ("a quote that hides the end of the tag", format!("{{{{a.[\"] \"}}}} \" {}", "(a ".repeat(20_000))),
        ("many tags", "{{vars.port}}".repeat(20_000)),
        ("long", "x".repeat(300_000)),
        ("braces", "{{".repeat(1900)),
        ("more braces", "{".repeat(200_000)),
        ("else", format!("{{{{#if vars.port}}}}{}", "{{else}}".repeat(1900))),
        (
            "grown by indent",
            format!("{{{{indent {}(yaml vars.many){} 256}}}}", "(indent ".repeat(60), " 256)".repeat(60)),
        ),
        ("grown by base64", format!("{{{{len {}(json vars.many){}}}}}", "(b64 ".repeat(60), ")".repeat(60))),
    ];
    for (what, source) in &hostile {
        let (took, outcome) = timed(|| render(source));
        let Err(error) = outcome else { panic!("{what} was rendered") };
        assert!(error.len() < 600, "{what}: a short error, not {} bytes", error.len());
        assert!(took < 3000, "{what} took {took} ms");
    }
}

#[test]
fn output_is_capped() {
    let line = "x".repeat(9000);
    let source = format!("{{{{#each vars.many}}}}{line}{{{{/each}}}}");
    assert_eq!(render(&source), Err(format!("template line 1: the template makes more than {MAX_OUTPUT_BYTES} bytes")));
}

#[test]
fn references_are_those_of_names_and_expressions_but_not_of_items() {
    let template = Template::parse(
        "{{vars.port}}{{#each vars.users}}{{name}}{{../inputs.version}}{{@root.facts.cpu.count}}{{/each}}\
         {{expr \"shared.token.stdout\"}}{{default results.init.stdout \"x\"}}",
    )
    .unwrap();
    let all: Vec<String> = template.references().iter().map(ToString::to_string).collect();
    assert_eq!(
        all,
        ["facts.cpu.count", "vars.port", "vars.users", "inputs.version", "results.init.stdout", "shared.token.stdout"]
    );
}

#[test]
fn a_cache_parses_one_body_once() {
    let mut cache = TemplateCache::new();
    let first = cache.get("{{vars.port}}").unwrap();
    assert!(Arc::ptr_eq(&first, &cache.get("{{vars.port}}").unwrap()));
    assert!(cache.get("{{").is_err());
}

#[test]
fn what_did_not_run_in_a_check_is_unknown() {
    let mut context = context();
    context.mark_unknown("make");
    for source in ["{{results.make.stdout}}", "{{default results.make.stdout \"x\"}}", "{{expr \"results.make.x\"}}"] {
        assert!(Template::parse(source).unwrap().render(&context).unwrap_err().is_unknown(), "{source}");
    }
}

/// The oracle: what the crate renders in strict mode, we render alike.
mod oracle {
    use super::*;
    use proptest::prelude::*;

    fn theirs(source: &str) -> Option<String> {
        let mut registry = handlebars::Handlebars::new();
        registry.set_strict_mode(true);
        registry.register_escape_fn(handlebars::no_escape);
        registry.render_template(source, &serde_json::json!({ "vars": variables() })).ok()
    }

    fn piece() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("a\n"),
            Just("  "),
            Just("\n"),
            Just("{{vars.port}}"),
            Just("{{vars.html}}"),
            Just("{{~vars.port}}"),
            Just("{{vars.port~}}"),
            Just("{{! c }}"),
            Just("{{!-- c --}}\n"),
            Just("{{vars.tls.min}}"),
            Just("{{vars.names.[1]}}"),
            Just("{{@root.vars.port}}"),
            Just("\\{{x}}"),
            Just("{{{vars.html}}}"),
        ]
        .prop_map(str::to_owned);
        leaf.prop_recursive(4, 24, 4, |inner| {
            let body = prop::collection::vec(inner, 0..4).prop_map(|pieces| pieces.concat());
            let subject = prop_oneof![
                Just("@root.vars.names"),
                Just("@root.vars.empty"),
                Just("@root.vars.tls"),
                Just("@root.vars.port"),
                Just("@root.vars.no"),
                Just("@root.vars.zero"),
                Just("@root.vars.nothing"),
                Just("(not @root.vars.no)"),
                Just("(eq @root.vars.port 8080)"),
            ];
            (prop_oneof![Just("if"), Just("unless"), Just("with")], subject, body.clone(), body).prop_map(
                |(block, subject, then, otherwise)| {
                    // `with` changes what names mean: inside it only `@root` is the same to both.
                    let then = if block == "with" { then.replace("{{vars", "{{@root.vars") } else { then };
                    format!("{{{{#{block} {subject}}}}}\n{then}{{{{else}}}}\n{otherwise}{{{{/{block}}}}}\n")
                },
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_the_crate_renders_we_render_alike(pieces in prop::collection::vec(piece(), 0..5)) {
            let source = pieces.concat();
            if let Some(expected) = theirs(&source) {
                prop_assert_eq!(render(&source), Ok(expected), "{}", source);
            }
        }
    }
}

/// The oracle of the short way: what it reads, the grammar reads alike.
mod plain_templates {
    use super::super::{limits, lower, plain, render::Part};
    use super::*;
    use proptest::prelude::*;

    /// Parts as they print, texts side by side joined: only the grammar cuts them, at white space after tags.
    fn printed(parts: Vec<Part>) -> Vec<String> {
        let mut printed: Vec<String> = Vec::new();
        let mut open = false;
        for part in parts {
            match part {
                Part::Text(text) if open => printed.last_mut().unwrap().push_str(&text),
                Part::Text(text) => {
                    printed.push(text.into());
                    open = true;
                }
                other => {
                    printed.push(format!("{other:?}"));
                    open = false;
                }
            }
        }
        printed
    }

    fn by_grammar(source: &str) -> Result<(Vec<String>, References), SyntaxError> {
        limits::check(source)?;
        lower::parse(source).map(|(parts, references)| (printed(parts), references))
    }

    #[test]
    fn common_templates_go_the_short_way() {
        for source in
            ["", "no tags } { $", "{{vars.port}}", "a {{ vars.a-b.0 }}\n{{\nnode.name }}}} b", "c:\\x {{vars}}"]
        {
            assert!(plain::parse(source).is_some(), "{source}");
        }
        let others =
            ["{{x}}", "{{vars.a b}}", "{{{vars.a}}}", "\\{{vars.a}}", "{{~vars.a}}", "{{vars.this}}", "{{vars.[a]}}"];
        for source in others {
            assert!(plain::parse(source).is_none(), "{source}");
        }
        assert!(plain::parse(&"{{vars.a}}".repeat(MAX_TAGS + 1)).is_none());
        assert!(plain::parse(&"a".repeat(MAX_SOURCE_BYTES + 1)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_goes_the_short_way_is_what_the_grammar_reads(pieces in prop::collection::vec(prop_oneof![
            3 => prop::sample::select(vec!["{{", "}}", "vars", ".", "node", "a", " "]),
            3 => prop::sample::select(vec![
                "{{vars.a}}", "{{ node.labels.role }}", "{{vars.a\n}}", "{{\tinputs.x-y._z.0}}", "{{facts}}",
                "{{vars.9007199254740993}}", "{{results.a.stdout}}",
            ]),
            2 => prop::sample::select(vec![
                "{", "}", "\n", "\r\n", "\r", "\t", "\\", "~", "#", "/", "!", "else", "this", "as", "null", "true", "@root",
                "..", "-", "_", ":", "$", "\"", "'", "[", "]", "(", ")", "é", "\u{2028}", "x y", "{{!c}}", "{{#if vars.a}}", "{{/if}}",
            ]),
        ], 0..12)) {
            let source = pieces.concat();
            if let Some((parts, references)) = plain::parse(&source) {
                prop_assert_eq!(Ok((printed(parts), references)), by_grammar(&source), "{:?}", source);
            }
        }
    }
}
