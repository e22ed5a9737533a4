//! `lockstep exec` and `lockstep run --task`: one task without a book. It becomes a Run like any other.

use super::{
    follow::{Show, create, new},
    run::{set, targets},
};
use crate::{
    cli::{Exec, Run as Arguments, RunSpecArguments},
    context::Session,
    error::{Error, Result},
    render::safe,
    terminal,
};
use lockstep_apis::{
    duration,
    params::{self, Action},
    v1alpha::{
        CountOrPercent, EarlyEnd, OnFailure, PlanRequest, RunOptions, RunSpec, Serialize, Targets, Task, Value,
        Violation, count_or_percent, value,
    },
};
use std::collections::BTreeMap;

/// Most characters of a command in a question, and in the task's name.
const SHOWN: usize = 60;

pub(crate) async fn exec(session: &Session, arguments: &Exec) -> Result<()> {
    let words = &arguments.command;
    let said = safe(&words.join(" "), SHOWN);
    let chosen = RunSpecArguments {
        nodes: arguments.nodes.clone(),
        selector: arguments.selector.clone(),
        all: arguments.all,
        limit: arguments.limit,
        ..RunSpecArguments::default()
    };
    let timeout_ms = duration::parse(&arguments.timeout)
        .map_err(|e| Error::Usage(format!("--timeout {}: {e}", arguments.timeout)))?;
    let given = match arguments.shell {
        true => ("shell", Value::text(words.join(" "))),
        false => ("argv", Value::list(words.iter().map(|word| Value::text(word.as_str())))),
    };
    let task = Task {
        id: "exec".into(),
        name: said.clone(),
        action: if arguments.reads { "command.query" } else { "command.run" }.into(),
        parameters: Some(Value::map([given])),
        user: arguments.user.clone().unwrap_or_default(),
        timeout: Some(duration::to_proto(timeout_ms)),
        ..Task::default()
    };
    let serialize = arguments.serialize.as_deref().map(at_once).transpose()?;
    // Nodes that do it all at once do not depend on each other.
    let on_failure = if serialize.is_some() { OnFailure::StopNow } else { OnFailure::FinishWindow };
    let options = RunOptions { serialize, on_failure: on_failure.into(), ..RunOptions::default() };
    let spec = RunSpec {
        tasks: vec![task],
        targets: Some(chosen_targets(&chosen)?),
        run_options: Some(options),
        ..RunSpec::default()
    };
    confirm(session, &spec, &said, arguments.yes).await?;
    create(session, new(session, "exec", arguments.name.as_deref(), spec), Show::Output).await
}

/// `lockstep run --task ACTION PARAMETER=VALUE …`
pub(crate) async fn task(session: &Session, arguments: &Arguments) -> Result<()> {
    let (name, words) = arguments.task.split_first().ok_or_else(|| Error::Usage("--task needs an action".into()))?;
    if !arguments.spec.inputs.is_empty() {
        return Err(Error::Usage("--input is for books: a task takes PARAMETER=VALUE".into()));
    }
    if !arguments.spec.tags.is_empty() || !arguments.spec.skip_tags.is_empty() {
        return Err(Error::Usage("--tags and --skip-tags are for books: there is but one task".into()));
    }
    let parameters = match params::action(name) {
        Some(action) => parameters(action, words)?,
        None => Value::null(),
    };
    refuse(name, params::check(name, &parameters))?;
    let task = Task {
        id: name.replace('.', "_"),
        name: name.clone(),
        action: name.clone(),
        parameters: Some(parameters),
        ..Task::default()
    };
    let spec = RunSpec {
        tasks: vec![task],
        targets: Some(chosen_targets(&arguments.spec)?),
        set: set(&arguments.spec.set)?,
        priority: arguments.spec.priority,
        check: arguments.check,
        diff: arguments.diff,
        run_options: Some(RunOptions { on_failure: OnFailure::FinishWindow.into(), ..RunOptions::default() }),
        ..RunSpec::default()
    };
    confirm(session, &spec, name, arguments.yes).await?;
    let stem = name.replace(['.', '_'], "-");
    create(session, new(session, &stem.to_lowercase(), arguments.name.as_deref(), spec), Show::waiting(arguments.wait))
        .await
}

/// `5` or `25%`.
fn at_once(text: &str) -> Result<Serialize> {
    let wrong = || Error::Usage(format!("--serialize {text}: write a number of nodes, or a percentage as in 25%"));
    let value = match text.strip_suffix('%') {
        Some(percent) => count_or_percent::Value::Percent(percent.parse().map_err(|_| wrong())?),
        None => count_or_percent::Value::Count(text.parse().map_err(|_| wrong())?),
    };
    Ok(Serialize { count: vec![CountOrPercent { value: Some(value) }], ..Serialize::default() })
}

/// No book says on which nodes: the command line must.
fn chosen_targets(chosen: &RunSpecArguments) -> Result<Targets> {
    let named = !chosen.nodes.is_empty() || chosen.selector.is_some() || chosen.all;
    targets(chosen).filter(|_| named).ok_or_else(|| {
        Error::Usage("on which nodes? Give -l SELECTOR, --node NAME or --all, in front of the command".into())
    })
}

/// `mode=0644 names=curl names=jq`, each in the type that the action wants.
fn parameters(action: &Action, words: &[String]) -> Result<Value> {
    let mut given: BTreeMap<String, Value> = BTreeMap::new();
    for word in words {
        let (name, text) = match (word.split_once('='), action.shorthand()) {
            (Some((name, text)), _) => (name, text),
            (None, Some(name)) => (name, word.as_str()),
            (None, None) => {
                let known = action.parameters().collect::<Vec<_>>().join(", ");
                return Err(Error::Usage(format!(
                    "--task: {word}: write PARAMETER=VALUE; {} takes {known}",
                    action.name
                )));
            }
        };
        let value = action.typed(name, text).map_err(Error::Invalid)?;
        match (given.get_mut(name).and_then(|known| known.kind.as_mut()), value.kind) {
            (Some(value::Kind::List(known)), Some(value::Kind::List(more))) => known.items.extend(more.items),
            (Some(_), _) => return Err(Error::Usage(format!("--task: {name} is given twice, and is no list"))),
            (None, kind) => {
                given.insert(name.to_owned(), Value { kind });
            }
        }
    }
    Ok(Value::map(given))
}

fn refuse(action: &str, mut found: Vec<Violation>) -> Result<()> {
    for violation in &mut found {
        violation.field =
            [action, &violation.field].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
    }
    if found.is_empty() { Ok(()) } else { Err(Error::Invalid(found)) }
}

/// Asks if it concerns many nodes, and somebody is there to be asked.
async fn confirm(session: &Session, spec: &RunSpec, what: &str, yes: bool) -> Result<()> {
    if yes || spec.check || !terminal::is_there() {
        return Ok(());
    }
    let request = PlanRequest { namespace: session.namespace.clone(), spec: Some(spec.clone()) };
    let plan = session.ask(async || session.runs().plan(request.clone()).await).await?.snapshot.unwrap_or_default();
    let nodes = plan.nodes.iter().filter(|node| node.early() == EarlyEnd::Unspecified).count();
    terminal::confirm(nodes, &format!("`{what}` on {nodes} nodes"), yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &str) -> Result<String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let (name, words) = words.split_first().unwrap();
        let parameters = parameters(params::action(name).unwrap(), words)?;
        refuse(name, params::check(name, &parameters))?;
        Ok(serde_json::Value::from(&parameters).to_string())
    }

    #[test]
    fn a_tasks_parameters_need_no_quotes() {
        assert_eq!(typed("file.managed path=/a mode=0644").unwrap(), r#"{"mode":"0644","path":"/a"}"#);
        assert_eq!(typed("package.installed curl names=jq").unwrap(), r#"{"names":["curl","jq"]}"#);
        assert_eq!(typed("time.sleep 5s").unwrap(), r#"{"duration":"5s"}"#);
    }

    #[test]
    fn what_is_wrong_with_a_task_names_its_parameter() {
        for (words, expected) in [
            ("file.managed path=/a mod=0644", "file.managed.mod: "),
            ("file.managed path=/a mod=0644", "did you mean `mode`?"),
            ("file.managed path=a", "file.managed.path: "),
            ("file.managed path=/a path=/b", "given twice"),
            ("command.run uptime", "write PARAMETER=VALUE; command.run takes argv, shell"),
        ] {
            let said = typed(words).unwrap_err().to_string();
            assert!(said.contains(expected), "{words}: {said}");
        }
    }

    #[test]
    fn nodes_are_never_all_by_omission() {
        assert!(chosen_targets(&RunSpecArguments { limit: Some(3), ..Default::default() }).is_err());
        assert!(chosen_targets(&RunSpecArguments { all: true, ..Default::default() }).unwrap().all);
        let selected = RunSpecArguments { selector: Some("role=web".into()), ..Default::default() };
        assert!(!chosen_targets(&selected).unwrap().all);
        assert!(at_once("25%").is_ok() && at_once("3").is_ok() && at_once("x").is_err());
    }
}
