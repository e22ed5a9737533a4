//! Tasks without a book: `exec` and `run --task`; and how what several nodes printed is told.

use super::shell::{BOOK, Shell};
use anyhow::{Result, ensure};

#[test]
fn a_command_is_run_told_by_node_and_recorded() -> Result<()> {
    let shell = Shell::start()?;
    let _second = shell.join("s2", &[])?;
    let same = shell.run(&["exec", "--all", "--name", "one", "--", "echo", "hello"])?;
    ensure!((same.code, same.out.as_str()) == (0, "2 nodes: s1 s2\n  | hello\n"), "{same:?}");
    ensure!(same.err.contains("run/one Succeeded") && same.err.contains("2 nodes: 2 changed"), "{same:?}");
    let word = "echo ${{ node.name }}; test ${{ node.name }} = s1 || { echo no >&2; exit 3; }";
    let differs = shell.run(&["exec", "--all", "--reads", "--shell", "--name", "two", "--", word])?;
    ensure!(differs.code == 1, "{differs:?}");
    ensure!(differs.out.starts_with("1 node: s1\n  | s1\n1 node: s2\n  | s2\n  ! no\n  Failed: "), "{differs:?}");
    // One node into a pipe: what it printed, and nothing else.
    let alone = shell.run(&["exec", "--node", "s2", "--reads", "echo", "-n", "-e", "a\\tb"])?;
    ensure!((alone.code, alone.out.as_str()) == (0, "-n -e a\\tb\n") || alone.out == "a\tb\n", "{alone:?}");
    // It is a Run like any other.
    ensure!(shell.ok(&["logs", "one"])? == "s1 s2 exec | hello\n");
    ensure!(shell.ok(&["logs", "one", "--by-node"])? == "s1 exec | hello\ns2 exec | hello\n");
    let described = shell.ok(&["describe", "run", "one"])?;
    ensure!(described.contains("\n  s1 s2 Changed\n    Changed "), "{described}");
    let again = shell.run(&["rerun", "one", "--wait"])?;
    ensure!(again.code == 0 && again.out.contains("Changed     s1 s2"), "{again:?}");
    Ok(())
}

#[test]
fn a_command_without_nodes_or_with_wrong_options_runs_nowhere() -> Result<()> {
    let shell = Shell::start()?;
    for (arguments, expected) in [
        (&["exec", "--", "true"][..], "on which nodes? Give -l SELECTOR, --node NAME or --all"),
        (&["exec", "--limit", "1", "--", "true"], "on which nodes?"),
        (&["exec", "-l", "role=none", "--", "true"], "role=none"),
        (&["exec", "--node", "s3", "--", "true"], "s3"),
        (&["exec", "--all", "--timeout", "soon", "--", "true"], "--timeout soon"),
        (&["exec", "--all", "--serialize", "half", "--", "true"], "--serialize half"),
        (&["exec", "--all"], "required arguments"),
        (&["run", "--task", "file.managd", "path=/a", "--all"], "did you mean `file.managed`?"),
        (&["run", "--task", "file.managed", "pat=/a", "--all"], "file.managed.pat: "),
        (&["run", "--task", "file.managed", "path=/a", "content=x"], "on which nodes?"),
        (&["run", "web", "--task", "time.sleep", "1s", "--all"], "cannot be used with"),
    ] {
        let said = shell.run(arguments)?;
        ensure!(matches!(said.code, 1 | 2) && said.err.contains(expected), "{arguments:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn a_task_needs_no_book() -> Result<()> {
    let shell = Shell::start()?;
    let file = ["run", "--task", "file.managed", "path=/motd", "content=hello: {", "mode=0640", "--all"];
    let check = shell.run(&[&file[..], &["--check", "--diff", "--wait"]].concat())?;
    ensure!(check.code == 0 && check.out.contains("would change  file.managed"), "{check:?}");
    let done = shell.run(&[&file[..], &["--wait"]].concat())?;
    ensure!(done.code == 0 && done.out.contains("Changed     s1"), "{done:?}");
    let again = shell.run(&[&file[..], &["--wait"]].concat())?;
    ensure!(again.code == 0 && again.out.contains("Ok          s1"), "{again:?}");
    let made = shell.daemon().folder().join("root/motd");
    ensure!(std::fs::read_to_string(made)? == "hello: {");
    Ok(())
}

#[test]
fn a_plan_tells_what_a_run_waits_for() -> Result<()> {
    let shell = Shell::start()?;
    let options = "spec:\n  inputs: {place: {type: string, required: true}}\n  \
                   concurrency: {key: \"web-${{ inputs.place }}\", policy: Replace}\n  approval: {twoPersons: true}";
    let book = shell.file("web.yaml", &BOOK.replace("spec:", options))?;
    shell.ok(&["apply", "-f", &book])?;
    let plan = shell.ok(&["plan", "web", "-i", "place=eu"])?;
    for line in [
        "approval of somebody else than who starts it is needed, with `lockstep approve`",
        "concurrency web-eu Replace: the one before it is cancelled",
    ] {
        ensure!(plan.lines().any(|told| told == line), "{line}:\n{plan}");
    }
    Ok(())
}
