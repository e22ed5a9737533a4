//! Looking without changing anything: `eval`, `render`, `doctor`, and what a shell completes.

use super::shell::{BOOK, Shell, said};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn an_expression_and_a_template_come_out_with_what_the_node_has() -> Result<()> {
    let shell = Shell::start()?;
    let variables = "metadata: {apiVersion: v1alpha, kind: Variables, name: all, namespace: default}\n\
                     spec: {static: {port: 8080, tls: {min: \"1.3\"}}}\n";
    let file = shell.file("variables.yaml", variables)?;
    shell.ok(&["apply", "-f", &file])?;
    shell.ok(&["label", "node", "s1", "role=web"])?;
    let eval = |words: &[&str]| shell.run(&[&["eval", "--node", "s1"], words].concat());
    for (expression, expected) in [
        ("vars.port + 1", "8081\n"),
        ("node.labels.role + '-' + vars.tls.min", "web-1.3\n"),
        ("facts.kernel.release != ''", "true\n"),
    ] {
        let said = eval(&[expression])?;
        ensure!((said.code, said.out.as_str()) == (0, expected), "{expression}: {said:?}");
    }
    ensure!(eval(&["vars.port", "--set", "port=1"])?.out == "1\n");
    for (expression, expected) in [("vars.prot", "prot"), ("1 +", "line 1"), ("results.a", "results")] {
        let said = eval(&[expression])?;
        ensure!(said.code == 2 && said.err.contains(expected), "{expression}: {said:?}");
    }
    let nobody = shell.run(&["eval", "--node", "s9", "1"])?;
    ensure!(nobody.code == 2 && nobody.err.contains("s9"), "{nobody:?}");

    let template = shell.file("conf.hbs", "listen {{vars.port}} on {{node.name}}\n")?;
    ensure!(shell.ok(&["render", "-f", &template, "--node", "s1"])? == "listen 8080 on s1\n");
    let wrong = shell.file("wrong.hbs", "a\n{{vars.prot}}\n")?;
    let said = shell.run(&["render", "-f", &wrong, "--node", "s1"])?;
    ensure!(said.code == 2 && said.err.contains("wrong.hbs") && said.err.contains("prot"), "{said:?}");
    let options = "spec:\n  inputs: {n: {type: integer, default: 2}}\n  variables: {port: 9}";
    let text = BOOK.replace("spec:", options).replace("[echo, hello]", "[echo, \"${{ vars.port + inputs.n }}\"]");
    let book = shell.file("book.yaml", &text)?;
    let shown = shell.ok(&["render", "-f", &book, "--node", "s1"])?;
    ensure!(shown.contains("taskbook/web") && shown.contains("- 11") || shown.contains("11]"), "{shown}");
    let other = shell.ok(&["render", "-f", &book, "--node", "s1", "-i", "n=3"])?;
    ensure!(other.contains("12"), "{other}");
    Ok(())
}

#[test]
fn the_doctor_tells_what_is_wrong_and_what_to_do() -> Result<()> {
    let shell = Shell::start()?;
    let well = shell.run(&["doctor"])?;
    // The machine's own disk may be full: that is no fault of what is tested.
    let problems = well.out.lines().filter(|line| line.starts_with("PROBLEM") && !line.contains("disk")).count();
    ensure!(problems == 0 && well.out.contains("1 of 1 node ready"), "{well:?}");
    ensure!(well.out.contains("note      store       embedded in the only server"), "{well:?}");
    shell.ok(&["cordon", "s1"])?;
    fs::set_permissions(shell.context(), fs::Permissions::from_mode(0o644))?;
    let dead = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let text = fs::read_to_string(shell.context())?.replace("servers: [", &format!("servers: [\"{dead}\", "));
    fs::write(shell.context(), text)?;
    let ill = shell.run(&["doctor"])?;
    ensure!(ill.code == 1, "{ill:?}");
    for expected in ["others may read it (mode 644)", "chmod 600", "does not answer", "cordoned: s1"] {
        ensure!(ill.out.contains(expected), "{expected}: {ill:?}");
    }
    Ok(())
}

/// What bash offers behind these words; the last one is the one that is being typed.
fn offered(shell: &Shell, words: &[&str]) -> Result<Vec<String>> {
    let line = format!(
        "source <(lockstep completion bash); COMP_WORDS=({words}); COMP_CWORD={at}; COMP_TYPE=9
         _clap_complete_lockstep lockstep {last:?}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words = words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "),
        at = words.len() - 1,
        last = words.last().context("words")?,
    );
    let tool = shell.command(&[])?;
    let folder = Path::new(tool.get_program()).parent().context("a folder")?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &line]).env("PATH", path).env("LOCKSTEP_CONTEXT", shell.context());
    let told = said(bash.stdin(Stdio::null()).output()?)?;
    ensure!(told.err.is_empty(), "{words:?}: {told:?}");
    Ok(told.out.lines().map(|line| line.trim().to_owned()).collect())
}

#[test]
fn a_shell_offers_commands_kinds_and_names() -> Result<()> {
    let shell = Shell::start()?;
    shell.book()?;
    for (words, expected) in [
        (&["lockstep", "unco"][..], "uncordon"),
        (&["lockstep", "get", "taskb"], "taskbooks"),
        (&["lockstep", "get", "nodes", ""], "s1"),
        (&["lockstep", "describe", "book/"], "book/web"),
        (&["lockstep", "run", "w"], "web"),
        (&["lockstep", "exec", "--node", ""], "s1"),
        (&["lockstep", "-n", "default", "get", "books", "w"], "web"),
        (&["lockstep", "explain", "file.mana"], "file.managed"),
    ] {
        let offered = offered(&shell, words)?;
        ensure!(offered.iter().any(|one| one == expected), "{words:?}: {offered:?}");
    }
    ensure!(offered(&shell, &["lockstep", "-n", "system", "run", "w"])?.concat().is_empty());
    let unknown = shell.run(&["completion", "csh"])?;
    ensure!(unknown.code == 2 && unknown.err.contains("bash"), "{unknown:?}");
    Ok(())
}
