//! Claims about the expression language. Its results are compared with those of the `cel` crate's own interpreter.

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::Value;

use super::*;

fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn values(json: serde_json::Value) -> BTreeMap<String, Value> {
    Value::from(json).as_map().cloned().unwrap()
}

fn context() -> Context {
    let web = labels(&[("role", "web"), ("example.com/zone", "a")]);
    let db = labels(&[("role", "db")]);
    Context::new()
        .with_node("web1", &web, &["10.0.0.1".to_owned()])
        .with_facts(serde_json::json!({"os": {"family": "debian"}, "cpu": {"count": 4}}).into())
        .with_variables(&values(serde_json::json!({
            "port": 8080, "big": 9007199254740993_i64, "ratio": 0.5, "on": true, "none": null,
            "names": ["a", "b", "c"], "tls": {"min": "1.3"}, "many": (0..2000).collect::<Vec<i64>>(),
        })))
        .with_inputs(&values(serde_json::json!({"version": "1.2"})))
        .with_shared(&values(serde_json::json!({"token": {"stdout": "s3cret ${{ vars.port }} {{vars.port}}"}})))
        .with_nodes([("db1", &db), ("web1", &web)])
        .with_run("r1", "shop", "uid-1")
}

fn evaluate(source: &str) -> Result<Value, String> {
    let expression = Expression::parse(source).map_err(|error| error.to_string())?;
    expression.evaluate(&context()).map_err(|error| error.to_string())
}

#[test]
fn expressions_have_these_values() {
    let table: &[(&str, serde_json::Value)] = &[
        ("vars.port > 1024", true.into()),
        ("vars.big + 0", 9007199254740993_i64.into()),
        ("vars.big > 9007199254740992.0", true.into()),
        ("1 == 1.0 && 1 != 2.0", true.into()),
        ("node.labels.role", "web".into()),
        ("node.labels.rol", "".into()),
        ("node.labels['example.com/zone']", "a".into()),
        ("node.labels['nothing']", "".into()),
        ("has(node.labels.rack)", false.into()),
        ("nodes.filter(n, n.labels.role == 'db').map(n, n.name)", serde_json::json!(["db1"])),
        ("nodes.filter(n, n.labels.rack == '').size()", 2.into()),
        ("nodes[0].labels.rack", "".into()),
        ("size(nodes)", 2.into()),
        ("vars.names.join(',')", "a,b,c".into()),
        ("'a-b-c'.split('-')[1]", "b".into()),
        ("vars.names.map(x, x + x)", serde_json::json!(["aa", "bb", "cc"])),
        ("vars.names.map(x, x != 'b', x + '!')", serde_json::json!(["a!", "c!"])),
        ("vars.names.exists_one(x, x == 'a')", true.into()),
        ("vars.names.all(x, x < 'd') && !vars.names.exists(x, x == 'd')", true.into()),
        ("[[1, 2], [3]].map(x, x.map(y, y * 10))", serde_json::json!([[10, 20], [30]])),
        ("[1, 2].map(x, [3].map(y, x + y)[0])", serde_json::json!([4, 5])),
        ("'b' in vars.names && 'min' in vars.tls", true.into()),
        ("vars.tls.map(k, k)", serde_json::json!(["min"])),
        ("has(vars.tls.max) ? vars.tls.max : 'none'", "none".into()),
        ("vars.none == null", true.into()),
        ("false && vars.nothing", false.into()),
        ("vars.nothing || true", true.into()),
        ("inputs.version.matches('^[0-9]+\\\\.[0-9]+$')", true.into()),
        ("string(vars.port) + '/' + string(vars.ratio)", "8080/0.5".into()),
        ("int('42') + int(2.9)", 44.into()),
        ("-vars.port % 7", (-8080 % 7).into()),
        ("{'a': {'b': [1]}}.a.b[0]", 1.into()),
        ("run.namespace + '/' + run.name", "shop/r1".into()),
        ("' X '.trim().lowerAscii()", "x".into()),
        ("'aXbX'.replace('X', '--')", "a--b--".into()),
        ("type(vars.tls)", "map".into()),
        ("facts.os.family == 'debian' && facts.cpu.count >= 4", true.into()),
    ];
    for (source, expected) in table {
        assert_eq!(evaluate(source), Ok(Value::from(expected.clone())), "{source}");
    }
}

#[test]
fn what_is_wrong_is_named_with_the_nearest_that_is_right() {
    let table = [
        ("vras.port", "line 1, column 1: unknown name `vras`: did you mean `vars`?"),
        ("vars.prot", "`vars.prot` is not there: did you mean `port`?"),
        ("facts.os.famly", "`facts.os.famly` is not there: did you mean `family`?"),
        ("vars.port.x", "`vars.port` is the integer 8080 and has no field `x`"),
        ("vars.names.mpa(x, x)", "unknown function `mpa`: did you mean `map`?"),
        ("vars.names.jion(',')", "unknown function `jion`: did you mean `join`?"),
        ("size(1, 2)", "`size` takes 1 arguments"),
        ("vars.port + 'a'", "`+` does not go with the integer 8080 and the text \"a\""),
        ("1 / 0", "nothing divides by zero"),
        ("9223372036854775807 + 1", "overflows an integer of 64 bits"),
        ("vars.names[7]", "`vars.names` has 3 items, counted from 0: no [7]"),
        ("vars.port && true", "`&&` needs true or false, not the integer 8080"),
        ("'x'.matches('(')", "is no regular expression"),
        ("vars.port >", "line 1, column 12: is no expression"),
        ("1u", "there are no unsigned integers here"),
        ("results.x", "`results` is not known here"),
        ("", "is empty"),
        ("google.Type{a: 1}", "there are no message types here"),
    ];
    for (source, expected) in table {
        let error = evaluate(source).expect_err(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn a_condition_must_be_true_or_false() {
    let error = Expression::parse("vars.port").unwrap().evaluate_bool(&context()).unwrap_err();
    assert_eq!(error.message, "`vars.port` must be true or false, and is the integer 8080");
}

/// Each would hang, or take the memory or the stack of the process, without a bound.
#[test]
fn hostile_expressions_end_with_an_error_at_once() {
    let many = |piece: &str, times: usize| piece.repeat(times);
    let hostile = [
        ("nested all", "vars.many.all(a, vars.many.all(b, a + b >= 0))".to_owned()),
        ("deeply nested map", "vars.many.map(a, vars.many.map(b, vars.many.map(c, 'x')))".to_owned()),
        ("nested exists_one", "vars.many.exists_one(a, vars.many.exists_one(b, a == b))".to_owned()),
        ("doubled text", format!("['x']{}", many(".map(a, a + a)", 120))),
        ("doubled list", format!("[['x']]{}", many(".map(a, a + a)", 120))),
        ("doubled nesting", format!("['x']{}", many(".map(a, [a, a])", 120))),
        ("doubled map", format!("['x']{}", many(".map(a, {'l': a, 'r': a})", 120))),
        ("grown by replace", format!("'xx'{}", many(".replace('x', 'xxxxxxxx')", 60))),
        ("grown by join", format!("vars.many{}", many(".map(a, vars.many.join(string(a)))", 4))),
        (
            "replace of nothing",
            "vars.many.map(a, 'x').join().replace('', vars.many.join('yyyyyyyyyyyyyyyyyyyy'))".to_owned(),
        ),
        ("compared again and again", "vars.many.all(a, vars.many == vars.many)".to_owned()),
        ("searched again and again", "vars.many.all(a, !(-1 in vars.many))".to_owned()),
        ("big pattern", "'a'.matches('((a{100}){100}){100}')".to_owned()),
        ("slow pattern", "vars.many.exists(a, vars.many.join().matches('(x+x+)+y'))".to_owned()),
        ("patterns made", "vars.many.exists(a, 'x'.matches(string(a)))".to_owned()),
        ("long sum", format!("1{}", many("+1", 30_000))),
        ("long sum within bounds of the parser", format!("1{}", many("+1", 900))),
        ("broken long sum", format!("1{}+", many("+1", 900))),
        ("long path", format!("vars{}", many(".a", 30_000))),
        ("long index", format!("vars{}", many("[0]", 900))),
        ("many nots", format!("{}true", many("!", 60_000))),
        ("parentheses", many("(", 60_000)),
        ("brackets", format!("{}{}", many("[", 900), many("]", 900))),
        ("braces", format!("{}1{}", many("{'a':", 900), many("}", 900))),
        ("conditions", format!("{}1", many("true?1:", 999))),
        ("right-hand conditions", format!("{}1", many("false?1:", 500))),
        ("long", format!("'{}'", many("x", 70_000))),
        ("garbage", many("a b ", 16_000)),
        ("chained macros", format!("[1]{}", many(".map(a,a)", 499))),
    ];
    // These mean something, and cost nothing.
    assert_eq!(evaluate(&format!("{}true", many("!", 901))), Ok(false.into()));
    assert_eq!(evaluate(&format!("{}1", many("-", 901))), Ok((-1).into()));
    assert_eq!(evaluate(&format!("{}1{}", many("(", 900), many(")", 900))), Ok(1.into()));
    for (what, source) in &hostile {
        let (took, outcome) = timed(|| evaluate(source));
        assert!(outcome.is_err(), "{what} was evaluated");
        let error = outcome.unwrap_err();
        assert!(error.len() < 600, "{what}: a short error, not {} bytes", error.len());
        assert!(took < 1500, "{what} took {took} ms");
    }
}

/// Tests may look at the clock: they are not the core.
#[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "measures the core from outside")]
fn timed<T>(work: impl FnOnce() -> T) -> (u128, T) {
    let start = std::time::Instant::now();
    let made = work();
    (start.elapsed().as_millis(), made)
}

#[test]
fn a_filter_over_ten_thousand_nodes_is_within_the_budget() {
    let names: Vec<String> = (0..10_000).map(|index| format!("node{index}")).collect();
    let role = labels(&[("role", "web")]);
    let context = Context::new().with_nodes(names.iter().map(|name| (name.as_str(), &role)));
    let expression = Expression::parse("size(nodes.filter(n, n.labels.role == 'web' && n.name != 'x'))").unwrap();
    assert_eq!(expression.evaluate(&context), Ok(10_000.into()));
}

#[test]
fn references_are_paths_and_what_is_calculated_is_open() {
    let expression = Expression::parse(
        "shared.token.stdout + results['init'].stdout + vars.names[vars.index] + nodes.map(n, n.labels[vars.key])[0] \
         + (has(facts.os.family) ? node.labels.role : '')",
    )
    .unwrap();
    let all: Vec<String> = expression
        .references()
        .iter()
        .map(|reference| format!("{reference}{}", if reference.open { "[]" } else { "" }))
        .collect();
    assert_eq!(
        all,
        [
            "node.labels.role",
            "facts.os.family",
            "vars.index",
            "vars.key",
            "vars.names[]",
            "results.init.stdout",
            "shared.token.stdout",
            "nodes"
        ]
    );
    assert_eq!(expression.references().shared().collect::<Vec<_>>(), ["token"]);
    assert_eq!(expression.references().results().collect::<Vec<_>>(), ["init"]);
}

#[test]
fn texts_are_interpolated_once_and_keep_the_type_of_a_lone_expression() {
    let table: &[(&str, serde_json::Value)] = &[
        ("plain", "plain".into()),
        ("${{ vars.port }}", 8080.into()),
        ("${{vars.names}}", serde_json::json!(["a", "b", "c"])),
        ("port ${{ vars.port }}!", "port 8080!".into()),
        ("${{ vars.port }}${{ vars.ratio }}", "80800.5".into()),
        ("${{ {'a': {'b': 'x}}'}}.a.b }}", "x}}".into()),
        ("$${{ vars.port }}", "${{ vars.port }}".into()),
        ("${{ shared.token.stdout }}", "s3cret ${{ vars.port }} {{vars.port}}".into()),
        ("x ${{ shared.token.stdout }}", "x s3cret ${{ vars.port }} {{vars.port}}".into()),
        ("ä ${{ 'ö' }} ü", "ä ö ü".into()),
    ];
    for (source, expected) in table {
        let rendered = interpolate(&Value::text(*source), &context());
        assert_eq!(rendered, Ok(Value::from(expected.clone())), "{source}");
    }
    let tree = serde_json::json!({"argv": ["echo", "${{ node.name }}", 3], "deep": [{"x": "${{ vars.on }}"}]});
    let rendered = interpolate(&tree.into(), &context()).unwrap();
    let expected = serde_json::json!({"argv": ["echo", "web1", 3], "deep": [{"x": true}]});
    assert_eq!(serde_json::Value::from(rendered), expected);
}

#[test]
fn wrong_texts_say_where() {
    let parse = |source: &str| Text::parse(source).map(|_| ()).unwrap_err().to_string();
    assert_eq!(parse("ab\n  ${{ vras.x }}"), "line 2, column 7: unknown name `vras`: did you mean `vars`?");
    assert!(parse("ab ${{ vars.x").starts_with("line 1, column 4: `${{` has no `}}`"));
    let render = |source: &str| Text::parse(source).unwrap().render(&context()).unwrap_err().to_string();
    assert_eq!(
        render("a ${{ vars.names }}"),
        "`vars.names`: is a list of 3, which has no place inside a text: use `join`"
    );
    assert_eq!(render("a ${{ vars.none }}"), "`vars.none`: is null, which has no place inside a text");
}

#[test]
fn what_did_not_run_in_a_check_is_unknown_and_neither_true_nor_false() {
    let mut context = context();
    context.add_result("init", values(serde_json::json!({"changed": true})).into());
    context.mark_unknown("make");
    let evaluate = |source: &str| Expression::parse(source).unwrap().evaluate_bool(&context);
    assert_eq!(evaluate("results.init.changed"), Ok(true));
    assert!(evaluate("results.make.changed").unwrap_err().is_unknown());
    assert!(evaluate("results['make'].changed").unwrap_err().is_unknown());
    assert!(evaluate("results.mkae.changed").is_err_and(|error| !error.is_unknown()));
    // What is decided without it is known.
    assert_eq!(evaluate("results.make.changed || results.init.changed"), Ok(true));
}

#[test]
fn facts_are_gathered_when_first_read_and_once() {
    use std::sync::{Arc, atomic::AtomicU32, atomic::Ordering};
    let count = Arc::new(AtomicU32::new(0));
    let counter = count.clone();
    let context = Context::new().with_variables(&BTreeMap::new()).with_lazy_facts(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Value::map([("a", 1.into())])
    });
    assert!(Expression::parse("vars == {}").unwrap().evaluate_bool(&context).unwrap());
    assert_eq!(count.load(Ordering::Relaxed), 0);
    let clone = context.clone().with_result(Value::null());
    for context in [&context, &clone, &context] {
        assert!(Expression::parse("facts.a == 1").unwrap().evaluate_bool(context).unwrap());
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

/// The oracle: on what both know, our evaluator and the interpreter of the crate agree.
mod oracle {
    use super::*;
    use proptest::prelude::*;

    fn theirs(source: &str) -> Option<serde_json::Value> {
        let program = cel::Program::compile(source).ok()?;
        let mut context = cel::Context::default();
        context.add_variable_from_value("vars", cel_variables());
        json(&program.execute(&context).ok()?)
    }

    #[allow(clippy::disallowed_types, reason = "the crate's interface")]
    fn cel_variables() -> cel::Value {
        let map: std::collections::HashMap<String, cel::Value> = [
            ("i".to_owned(), cel::Value::from(7)),
            ("f".to_owned(), cel::Value::from(2.5)),
            ("s".to_owned(), cel::Value::from("abc")),
            ("b".to_owned(), cel::Value::from(true)),
            ("l".to_owned(), cel::Value::from(vec![1, 2, 3])),
        ]
        .into();
        map.into()
    }

    fn json(value: &cel::Value) -> Option<serde_json::Value> {
        Some(match value {
            cel::Value::Int(integer) => (*integer).into(),
            cel::Value::Float(number) => (*number).into(),
            cel::Value::String(text) => text.as_str().into(),
            cel::Value::Bool(truth) => (*truth).into(),
            cel::Value::Null => serde_json::Value::Null,
            cel::Value::List(items) => items.iter().map(json).collect::<Option<_>>()?,
            _ => return None,
        })
    }

    fn ours(source: &str) -> Option<serde_json::Value> {
        let variables = serde_json::json!({"i": 7, "f": 2.5, "s": "abc", "b": true, "l": [1, 2, 3]});
        let context = Context::new().with_variables(&values(variables));
        Expression::parse(source).ok()?.evaluate(&context).ok().map(serde_json::Value::from)
    }

    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (-9..9i64).prop_map(|integer| format!("({integer})")),
            Just("1.5".to_owned()),
            Just("'b'".to_owned()),
            Just("''".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            prop_oneof!["vars\\.i", "vars\\.f", "vars\\.s", "vars\\.b", "vars\\.l"],
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                (
                    pair.clone(),
                    prop_oneof!["\\+", "-", "\\*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "\\|\\|", "in"]
                )
                    .prop_map(|((a, b), sign)| format!("({a} {sign} {b})")),
                inner.clone().prop_map(|a| format!("!({a})")),
                inner.clone().prop_map(|a| format!("-({a})")),
                (inner.clone(), pair.clone()).prop_map(|(a, (b, c))| format!("({a} ? {b} : {c})")),
                pair.clone().prop_map(|(a, b)| format!("[{a}, {b}]")),
                pair.clone().prop_map(|(a, b)| format!("{a}[{b}]")),
                inner.clone().prop_map(|a| format!("size({a})")),
                pair.clone().prop_map(|(a, b)| format!("{a}.contains({b})")),
                pair.clone().prop_map(|(a, b)| format!("{a}.startsWith({b})")),
                pair.clone().prop_map(|(a, b)| format!("{a}.all(x, x == {b})")),
                pair.clone().prop_map(|(a, b)| format!("{a}.exists(x, {b} < x)")),
                pair.clone().prop_map(|(a, b)| format!("{a}.exists_one(x, x != {b})")),
                pair.clone().prop_map(|(a, b)| format!("{a}.map(x, [x, {b}])")),
                pair.prop_map(|(a, b)| format!("{a}.filter(x, x == {b})")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_the_crate_evaluates_we_evaluate_alike(source in expression()) {
            prop_assert_eq!(ours(&source), theirs(&source), "{}", source);
        }
    }
}

#[test]
fn what_is_too_long_to_be_handed_on_is_an_error_that_says_so() {
    let context = Context::new().with_all(&BTreeMap::new(), ["a".to_owned()]);
    let error = Expression::parse("all.a['n1'].stdout").unwrap().evaluate(&context).unwrap_err();
    assert!(error.message.starts_with("`all.a` is longer than what is handed on"), "{error}");
}
