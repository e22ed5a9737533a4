use super::*;
use crate::v1alpha::{CountOrPercent, Run, TaskBook, Value, count_or_percent, object};

const BOOK: &str = r#"# a book
metadata:
  apiVersion: v1alpha
  kind: TaskBook
  name: web
  namespace: shop
  labels: {role: web}
spec:
  inputs:
    version: {type: string, pattern: '^\d+\.\d+$', required: true}
  targets: {nodeGroups: [web], selector: "tier!=db", where: facts.os.family == "debian", exclude: {nodes: [web9]}}
  runOptions:
    timeout: 1h
    serialize: {count: [1, "25%", "100%"], maxFailures: 0, onFailure: FinishWindow}
  locks: [shop-maintenance, {name: other, mode: Read}]
  variables: {port: 8080, ratio: 1.0, on: "yes"}
  tasks:
    - name: drain
      command.run: {argv: [lbctl, drain, "${{ node.name }}"], exitCodes: 3}
    - name: configure
      file.managed:
        path: /etc/web.conf
        mode: "0644"
        template: |
          workers {{facts.cpu.count}}
          port {{vars.port}}
        validate: [web, check, "${{ file }}"]
      when: true
      environment: {LANG: C}
    - time.sleep: 5s
      serialize: "10%"
"#;

fn book(text: &str) -> TaskBook {
    match decode("book.yaml", text.as_bytes(), None).unwrap().remove(0).kind {
        Some(object::Kind::TaskBook(book)) => book,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_book_becomes_its_typed_form() {
    let book = book(BOOK);
    let spec = book.spec.unwrap();
    let options = spec.run_options.unwrap();
    assert_eq!(options.timeout.unwrap().seconds, 3600);
    let serialize = options.serialize.unwrap();
    let count = |value| CountOrPercent { value: Some(value) };
    use count_or_percent::Value::{Count, Percent};
    assert_eq!(serialize.count, [count(Count(1)), count(Percent(25)), count(Percent(100))]);
    assert_eq!(serialize.max_failures, Some(count(Count(0))));
    assert_eq!(spec.locks[0].name, "shop-maintenance");
    assert_eq!(spec.variables["port"], Value::from(8080));
    assert_eq!(spec.variables["ratio"], Value::from(1.0));
    assert_eq!(spec.variables["on"], Value::from("yes"));
    assert_eq!(spec.tasks[1].action, "file.managed");
    assert_eq!(spec.tasks[1].when, "true");
    let parameters = spec.tasks[1].parameters.as_ref().unwrap();
    assert_eq!(
        parameters.get("template").unwrap().as_text(),
        Some("workers {{facts.cpu.count}}\nport {{vars.port}}\n")
    );
    assert_eq!(spec.tasks[2].parameters, Some(Value::from("5s")));
    assert_eq!(spec.tasks[2].serialize.as_ref().unwrap().count, [count(Percent(10))]);
}

#[test]
fn what_is_printed_reads_back_as_the_same_object_in_both_forms() {
    let objects = decode("book.yaml", BOOK.as_bytes(), None).unwrap();
    let yaml = print_yaml(&objects);
    assert_eq!(decode("x.yaml", yaml.as_bytes(), None).unwrap(), objects, "{yaml}");
    let json = print_json(&objects);
    assert_eq!(decode("x.json", json.as_bytes(), None).unwrap(), objects, "{json}");
    let two = [objects[0].clone(), objects[0].clone()];
    assert_eq!(decode("x.yaml", print_yaml(&two).as_bytes(), None).unwrap(), two);
    assert_eq!(decode("x.json", print_json(&two).as_bytes(), None).unwrap(), two);
}

#[test]
fn the_kubernetes_form_is_read_and_printed_as_it_was_written() {
    let text = "apiVersion: lockstep/v1alpha\nkind: Node\nmetadata:\n  name: web1\nspec:\n  unschedulable: true\n";
    let objects = decode("node.yaml", text.as_bytes(), Some("ignored")).unwrap();
    assert_eq!(print_yaml(&objects), text);
    let own = "metadata:\n  apiVersion: v1alpha\n  kind: Node\n  name: web1\n";
    assert_eq!(print_yaml(&decode("node.yaml", own.as_bytes(), None).unwrap()), own);
}

#[test]
fn the_default_namespace_goes_to_namespaced_objects_that_name_none() {
    let run = |namespace: &str| {
        let text =
            format!("metadata: {{apiVersion: v1alpha, kind: Run, name: r{namespace}}}\nspec: {{taskBooks: [web]}}");
        let objects = decode("-", text.as_bytes(), Some("mine")).unwrap();
        objects[0].metadata().namespace.clone()
    };
    assert_eq!(run(""), "mine");
    assert_eq!(run(", namespace: yours"), "yours");
}

#[test]
fn aliases_and_merge_keys_share_parts_of_a_file() {
    let text = "metadata: {apiVersion: v1alpha, kind: TaskBook, name: a, namespace: n}\nspec:\n  variables:\n    base: &base {a: 1, b: 2}\n    more: {<<: *base, b: 3}\n  tasks: [{command.run: {argv: [id]}}]\n";
    let book = book(text);
    let more = &book.spec.unwrap().variables["more"];
    assert_eq!(serde_json::Value::from(more), serde_json::json!({"a": 1, "b": 3}));
}

#[test]
fn an_object_that_was_read_may_be_applied_again() {
    let text = "metadata: {apiVersion: v1alpha, kind: Run, name: a, namespace: n, resourceVersion: \"7\", generation: 2, uuid: u, createdAt: \"2026-01-02T03:04:05Z\"}\nspec: {taskBooks: [web], origin: {type: User}}\nstatus: {phase: Running}\n";
    let objects = decode("run.yaml", text.as_bytes(), None).unwrap();
    assert!(matches!(&objects[0].kind, Some(object::Kind::Run(Run { status: Some(_), .. }))));
    assert_eq!(decode("run.yaml", print_yaml(&objects).as_bytes(), None).unwrap(), objects);
}

#[test]
fn a_book_of_500_tasks_is_read_in_a_few_milliseconds() {
    let mut text = BOOK.split("  tasks:").next().unwrap().to_owned() + "  tasks:\n";
    for at in 0..500 {
        text.push_str(&format!(
            "    - name: file {at}\n      file.managed:\n        path: /etc/app/conf.d/file-{at}.conf\n        mode: \"0644\"\n        \
             content: |\n          setting-{at} = value\n          # generated by the book, do not edit by hand\n          other = {at}\n"
        ));
    }
    let start = std::time::Instant::now();
    assert_eq!(book(&text).spec.unwrap().tasks.len(), 500);
    let taken = start.elapsed();
    println!("{} bytes in {taken:?}", text.len());
    // Generous: unoptimised, on a busy machine. What it guards against is growth with the square of the size.
    assert!(taken.as_millis() < 2000, "{taken:?}");
}

#[test]
fn a_template_in_a_file_beside_the_manifest_becomes_the_objects_own() {
    let text = "metadata: {apiVersion: v1alpha, kind: TaskBook, name: web, namespace: shop}\nspec:\n  tasks:\n  - \
                file.managed: {path: /a, template: {file: ./a.hbs}}\n";
    let read = |name: &str| match name {
        "./a.hbs" => Ok("port {{vars.port}}\n".to_owned()),
        other => Err(format!("{other} is not there")),
    };
    let objects = decode_beside("web.yaml", text.as_bytes(), None, Some(&read)).unwrap();
    let Some(crate::v1alpha::object::Kind::TaskBook(book)) = &objects[0].kind else { panic!("no book") };
    let parameters = book.spec.as_ref().unwrap().tasks[0].parameters.as_ref().unwrap();
    assert_eq!(parameters.get("template").and_then(crate::v1alpha::Value::as_text), Some("port {{vars.port}}\n"));

    let gone = decode_beside("web.yaml", text.replace("./a.hbs", "b.hbs").as_bytes(), None, Some(&read)).unwrap_err();
    assert_eq!((gone[0].reason.as_str(), gone[0].line, gone[0].column), ("File", 4, 47));
    assert_eq!(gone[0].message, "b.hbs is not there");
}
