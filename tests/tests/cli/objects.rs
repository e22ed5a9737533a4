//! Reading and watching: `get`, `nodes`, `runs`, `events`.

use super::shell::{Shell, plain};
use anyhow::{Context, Result, ensure};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

#[test]
fn objects_are_shown_in_every_form() -> Result<()> {
    let shell = Shell::start()?;
    shell.book()?;
    ensure!(plain(&shell.ok(&["get", "books"])?) == "NAME TASKS ROLLOUT AGE\nweb 1 all at once AGE\n");
    let wide = shell.ok(&["get", "books", "-o", "wide"])?;
    ensure!(wide.lines().next().is_some_and(|line| line.ends_with("LABELS       UID")), "{wide}");
    ensure!(wide.contains("tier=front"), "{wide}");
    ensure!(shell.ok(&["get", "books", "-o", "name"])? == "taskbook/web\n");
    ensure!(shell.ok(&["get", "books", "-o", "json"])?.starts_with("[\n"), "a list is an array");
    ensure!(shell.ok(&["get", "book", "web", "-o", "json"])?.starts_with("{\n"), "one object is itself");
    let names =
        shell.ok(&["get", "books", "-o", "jsonpath={range .items[*]}{.metadata.name}:{.kind}{\"\\n\"}{end}"])?;
    ensure!(names == "web:\n", "{names}");
    let none = shell.run(&["get", "nodegroups"])?;
    ensure!((none.code, none.out.as_str(), none.err.as_str()) == (0, "", "no nodegroups\n"), "{none:?}");
    let wrong = shell.run(&["get", "books", "-o", "jsn"])?;
    ensure!(wrong.code == 2 && wrong.err.contains("did you mean `json`?"), "{wrong:?}");
    let missing = shell.run(&["get", "book", "wbe"])?;
    ensure!(missing.code == 2 && missing.err.contains("wbe"), "{missing:?}");
    Ok(())
}

#[test]
fn nodes_say_their_state_facts_and_run() -> Result<()> {
    let shell = Shell::start()?;
    let nodes = plain(&shell.ok(&["nodes", "--fact", "arch", "--fact", "no.such"])?);
    let lines: Vec<&str> = nodes.lines().collect();
    ensure!(lines.len() == 2 && lines[0] == "NAME STATUS VERSION OS SEEN AGE RUN ARCH NO.SUCH", "{nodes}");
    ensure!(lines[1].starts_with("s1 Ready VERSION ") && lines[1].ends_with(" -"), "{nodes}");
    ensure!(lines[1].contains(" now AGE - "), "{nodes}");
    ensure!(shell.run(&["nodes", "--state", "lost"])?.err == "no nodes\n");
    let wrong = shell.run(&["nodes", "--state", "Redy"])?;
    ensure!(wrong.code == 2 && wrong.err.contains("did you mean `Ready`?"), "{wrong:?}");
    Ok(())
}

#[test]
fn runs_are_listed_by_age_with_who_made_them() -> Result<()> {
    let shell = Shell::start()?;
    shell.book()?;
    for name in ["b", "a", "c"] {
        shell.ok(&["run", "web", "--name", name, "--wait"])?;
    }
    ensure!(shell.ok(&["runs", "-o", "name"])? == "run/b\nrun/a\nrun/c\n");
    let two = shell.run(&["runs", "--limit", "2"])?;
    let expected = "NAME PHASE BOOK NODES BY AGE\na Succeeded web 1 node: 1 ok admin AGE\nc Succeeded web 1 node: 1 ok admin AGE\n";
    ensure!(plain(&two.out) == expected, "{two:?}");
    ensure!(two.err == "1 older ones are not shown; --all shows them\n", "{two:?}");
    ensure!(shell.run(&["runs", "--active"])?.err == "no runs\n");
    ensure!(shell.run(&["runs", "other"])?.err == "no runs\n");
    ensure!(shell.ok(&["runs", "web", "--phase", "succeeded,failed", "--all", "-o", "name"])?.lines().count() == 3);
    Ok(())
}

#[test]
fn events_are_filtered_by_object_type_severity_and_time() -> Result<()> {
    let shell = Shell::start()?;
    shell.book()?;
    shell.ok(&["run", "web", "--name", "one", "--wait"])?;
    shell.ok(&["run", "web", "--name", "two", "--wait"])?;
    let said = shell.until(&["events", "run/one"], |said| said.out.contains("run/finished"))?;
    ensure!(said.out.starts_with("TIME"), "{said:?}");
    ensure!(said.out.lines().skip(1).all(|line| line.contains("Run/default/one")), "{said:?}");
    let types = shell.ok(&["events", "--type", "run/fin*", "--since", "1h"])?;
    ensure!(types.lines().skip(1).all(|line| line.contains("run/finished")), "{types}");
    ensure!(shell.run(&["events", "--severity", "critical"])?.err == "no events\n");
    ensure!(shell.run(&["events", "--since", "1ms"])?.err == "no events\n");
    let wrong = shell.run(&["events", "--since", "1 day"])?;
    ensure!(wrong.code == 2 && wrong.err.contains("not a duration"), "{wrong:?}");
    Ok(())
}

#[test]
fn a_watch_tells_changes_and_deletions() -> Result<()> {
    let shell = Shell::start()?;
    shell.book()?;
    let mut watching = shell.command(&["get", "books", "-w", "-o", "json"])?.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("no output")?).lines();
    let mut next = || -> Result<serde_json::Value> { Ok(serde_json::from_str(&lines.next().context("it ended")??)?) };
    let first = next()?;
    ensure!(first["type"] == "Added" && first["object"]["metadata"]["name"] == "web", "{first}");
    let changed = shell.file("changed.yaml", &super::shell::BOOK.replace("tier: front", "tier: back"))?;
    shell.ok(&["apply", "-f", &changed])?;
    let second = next()?;
    ensure!(second["type"] == "Modified" && second["object"]["metadata"]["labels"]["tier"] == "back", "{second}");
    shell.ok(&["delete", "book", "web"])?;
    ensure!(next()?["type"] == "Deleted");
    watching.kill()?;
    watching.wait()?;
    Ok(())
}
