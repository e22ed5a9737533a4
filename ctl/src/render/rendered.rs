//! A book's tasks as they come out on one node: which are done, and with which parameters. Pure.

use super::safe;
use lockstep_apis::{
    manifest,
    v1alpha::{Task, TaskBook, Value, value},
};
use lockstep_core::{context::Context, expression::EvaluationError, parameters::TaskTexts, template::TemplateCache};
use std::{collections::BTreeMap, fmt::Write};

/// The book as YAML that a reader compares with what was written; comments say what cannot be known before a Run.
/// Errors: a text that is no expression or template.
pub(crate) fn book(book: &TaskBook, context: &Context) -> Result<String, String> {
    let spec = book.spec.clone().unwrap_or_default();
    let name = book.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    let mut out = format!("# taskbook/{name}\n");
    let mut cache = TemplateCache::new();
    tasks(&mut out, "tasks", &spec.tasks, context, &mut cache)?;
    tasks(&mut out, "handlers", &spec.handlers, context, &mut cache)?;
    Ok(out)
}

fn tasks(
    out: &mut String,
    title: &str,
    tasks: &[Task],
    context: &Context,
    cache: &mut TemplateCache,
) -> Result<(), String> {
    if tasks.is_empty() {
        return Ok(());
    }
    let _ = writeln!(out, "{title}:");
    for of in tasks {
        task(out, of, context, cache, 0)?;
    }
    Ok(())
}

fn task(out: &mut String, of: &Task, context: &Context, cache: &mut TemplateCache, depth: usize) -> Result<(), String> {
    let margin = "  ".repeat(2 * depth);
    let wrong = |error: &dyn std::fmt::Display| format!("the task `{}`: {error}", safe(&of.name, 60));
    let texts = TaskTexts::of_task(of, cache).map_err(|found| {
        found.iter().map(|one| wrong(&format_args!("{}: {}", one.field, one.error))).collect::<Vec<_>>().join("\n")
    })?;
    let when = match texts.is_wanted(context) {
        Ok(true) => String::new(),
        Ok(false) => format!("  # skipped: `{}` is false", safe(&of.when, 80)),
        Err(error) => format!("  # if `{}`; {}", safe(&of.when, 80), unknown(&error)),
    };
    let _ = writeln!(out, "{margin}- name: {}{when}", one_line(&of.name));
    let blocks = [("block", &of.block), ("rescue", &of.rescue), ("always", &of.always)];
    for (word, inner) in blocks.into_iter().filter(|(_, inner)| !inner.is_empty()) {
        let _ = writeln!(out, "{margin}  {word}:");
        for of in inner {
            task(out, of, context, cache, depth + 1)?;
        }
    }
    if of.action.is_empty() {
        return Ok(());
    }
    let items = match texts.items(context) {
        None => vec![(None, context.clone())],
        Some(Ok(items)) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| {
                let mut inner = context.clone();
                inner.set_item(item.clone(), index);
                (Some(item), inner)
            })
            .collect(),
        Some(Err(error)) => {
            let _ = writeln!(out, "{margin}  # for each of its items; {}", unknown(&error));
            return Ok(());
        }
    };
    for (item, inner) in items {
        if let Some(item) = item {
            let _ = writeln!(out, "{margin}  # item: {}", safe(&item.to_json_line(), 120));
        }
        match texts.parameters.render(&inner) {
            Ok(parameters) => action(out, &margin, &of.action, parameters),
            Err(error) => {
                let _ = writeln!(out, "{margin}  {}:  # {}", of.action, unknown(&error));
            }
        }
    }
    Ok(())
}

fn action(out: &mut String, margin: &str, name: &str, parameters: Value) {
    let is_empty = parameters.as_map().is_none_or(BTreeMap::is_empty);
    let shown = if is_empty { Value { kind: Some(value::Kind::Map(Default::default())) } } else { parameters };
    for line in manifest::print_value_yaml(&Value::map([(name, shown)])).lines() {
        let _ = writeln!(out, "{margin}  {line}");
    }
}

/// Why it cannot be said here.
fn unknown(error: &EvaluationError) -> String {
    format!("not known before a Run: {}", safe(&error.to_string(), 200))
}

fn one_line(name: &str) -> String {
    manifest::print_value_yaml(&Value::text(name)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::object::Kind;

    #[test]
    fn a_book_comes_out_with_what_the_node_has_and_says_what_only_a_run_knows() {
        let text = r#"
metadata: {apiVersion: v1alpha, kind: TaskBook, name: web, namespace: default}
spec:
  targets: {all: true}
  tasks:
    - name: conf
      file.managed: {path: "/etc/${{ vars.name }}.conf", template: "workers {{vars.workers}}\n"}
    - name: never
      when: vars.workers > 10
      command.run: {argv: [x]}
    - name: each
      loop: [a, b]
      command.run: {argv: [echo, "${{ item }}"]}
    - name: later
      command.run: {argv: [echo, "${{ results.each.stdout }}"]}
"#;
        let mut objects = manifest::decode("web", text.as_bytes(), None).unwrap();
        let Some(Kind::TaskBook(web)) = objects.remove(0).kind else { panic!("a book") };
        let variables = BTreeMap::from([
            ("name".to_owned(), Value::text("web")),
            ("workers".to_owned(), Value { kind: Some(value::Kind::Integer(4)) }),
        ]);
        let shown = book(&web, &Context::new().with_variables(&variables)).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        for expected in [
            "# taskbook/web",
            "- name: conf",
            "- name: never  # skipped: `vars.workers > 10` is false",
            "  # item: \"a\"",
            "  # item: \"b\"",
        ] {
            assert!(lines.contains(&expected), "{expected}:\n{shown}");
        }
        assert!(shown.contains("/etc/web.conf") && shown.contains("workers 4"), "{shown}");
        assert!(shown.contains("  command.run:  # not known before a Run: "), "{shown}");
    }
}
