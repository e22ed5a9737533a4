//! Changing objects: `label`, `cordon`, `edit`, `diff`, `wait`; and the contexts.

use super::shell::{BOOK, Said, Shell, said};
use anyhow::{Context, Result, ensure};
use lockstep_tests::daemon::program;
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn labels_say_what_was_there_before() -> Result<()> {
    let shell = Shell::start()?;
    ensure!(shell.ok(&["label", "node", "s1", "role=web", "tier=front"])? == "node/s1 role=web, tier=front\n");
    ensure!(shell.ok(&["label", "node/s1", "role=db"])? == "node/s1 role=db (was web)\n");
    ensure!(
        shell.ok(&["label", "nodes", "-l", "role=db", "role=db", "tier-"])? == "node/s1 tier removed (was front)\n"
    );
    ensure!(shell.ok(&["label", "node", "s1", "role=db", "tier-"])? == "node/s1 unchanged\n");
    ensure!(shell.ok(&["annotate", "node", "s1", "owner=shop team"])? == "node/s1 owner=shop team\n");
    for (arguments, expected) in [
        (&["label", "node", "s1"][..], "key=value sets, key- removes"),
        (&["label", "nodes", "x=y"], "which nodes?"),
        (&["label", "node", "s1", "a b=c"], "no label key"),
        (&["label", "nodes", "-l", "no=such", "x=y"], "no nodes match"),
    ] {
        let said = shell.run(arguments)?;
        ensure!(said.code == 2 && said.err.contains(expected), "{arguments:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn a_cordoned_node_is_shown_and_comes_back() -> Result<()> {
    let shell = Shell::start()?;
    ensure!(shell.ok(&["cordon", "s1"])? == "node/s1 cordoned\n");
    ensure!(shell.ok(&["cordon", "node/s1"])? == "node/s1 unchanged\n");
    ensure!(shell.ok(&["nodes", "--state", "cordoned", "-o", "name"])? == "node/s1\n");
    ensure!(shell.ok(&["uncordon", "s1"])? == "node/s1 uncordoned\n");
    Ok(())
}

#[test]
fn diff_ends_with_1_where_apply_would_change_something() -> Result<()> {
    let shell = Shell::start()?;
    let book = shell.file("web.yaml", BOOK)?;
    let new = shell.run(&["diff", "-f", &book])?;
    ensure!(new.code == 1 && new.out.starts_with("--- (not there)\n+++ taskbook/web\n"), "{new:?}");
    shell.ok(&["apply", "-f", &book])?;
    let same = shell.run(&["diff", "-f", &book])?;
    ensure!((same.code, same.out.as_str(), same.err.as_str()) == (0, "", ""), "{same:?}");
    let changed = shell.file("changed.yaml", &BOOK.replace("tier: front", "tier: back"))?;
    let differs = shell.run(&["diff", "-f", &changed])?;
    ensure!(differs.code == 1 && differs.out.contains("-    tier: front\n+    tier: back\n"), "{differs:?}");
    ensure!(
        shell.ok(&["get", "books", "-l", "tier=front", "-o", "name"])? == "taskbook/web\n",
        "a diff changes nothing"
    );
    Ok(())
}

#[test]
fn wait_ends_when_it_comes_when_it_cannot_come_and_in_time() -> Result<()> {
    let shell = Shell::start()?;
    shell.book()?;
    shell.ok(&["run", "web", "--name", "one"])?;
    ensure!(shell.ok(&["wait", "run/one", "--for", "phase=Succeeded"])? == "run/one is Succeeded\n");
    let never = shell.run(&["wait", "run/one", "--for", "phase=Failed"])?;
    ensure!(never.code == 1 && never.err.contains("it will not be Failed any more"), "{never:?}");
    let late = shell.run(&["wait", "node", "s1", "--for", "condition=Draining", "--timeout", "1s"])?;
    ensure!(late.code == 1 && late.err.contains("did not come within 1s"), "{late:?}");
    ensure!(shell.ok(&["wait", "node", "s1", "--for", "jsonpath={.status.liveness}=Ready"])? == "node/s1 has Ready\n");
    ensure!(shell.ok(&["wait", "book", "gone", "--for", "delete"])? == "taskbook/gone is deleted\n");
    let wrong = shell.run(&["wait", "run/one", "--for", "sucess"])?;
    ensure!(wrong.code == 2 && wrong.err.contains("phase=PHASE"), "{wrong:?}");
    Ok(())
}

/// `lockstep edit book web` with a script as the editor; `$1` is the file, `$LOCKSTEP` the tool.
fn edit(shell: &Shell, script: &str) -> Result<Said> {
    let editor = shell.file("editor", &format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755))?;
    let mut command = shell.command(&["edit", "book", "web"])?;
    said(command.env("EDITOR", &editor).env_remove("VISUAL").env("LOCKSTEP", program("lockstep")?).output()?)
}

#[test]
fn an_edit_is_never_lost() -> Result<()> {
    let shell = Shell::start()?;
    shell.book()?;
    let done = edit(&shell, "sed -i s/front/back/ \"$1\"")?;
    ensure!((done.code, done.out.as_str()) == (0, "taskbook/web configured\n"), "{done:?}");
    let none = edit(&shell, "true")?;
    ensure!((none.code, none.out.as_str()) == (0, "taskbook/web unchanged\n"), "{none:?}");
    for (script, code, expected) in [
        ("$LOCKSTEP label book web x=y; sed -i s/back/middle/ \"$1\"", 3, "was changed since it was read"),
        ("sed -i 's/tier: back/tier: middle/; s/^spec:/sepc:/' \"$1\"", 2, "did you mean `spec`?"),
        ("sed -i 's/back/middle/; s/name: web/name: other/' \"$1\"", 2, "edit renames nothing"),
        ("sed -i s/back/middle/ \"$1\"; exit 1", 2, "the editor ended with"),
    ] {
        let failed = edit(&shell, script)?;
        ensure!(failed.code == code && failed.err.contains(expected), "{script}: {failed:?}");
        let kept = failed.err.split_once("your edit is in ").context("it does not say where the edit is")?.1;
        let kept = kept.split([':', ';']).next().context("no file")?;
        ensure!(fs::read_to_string(kept)?.contains("tier: middle"), "{kept}");
        ensure!(fs::metadata(kept)?.permissions().mode() & 0o777 == 0o600, "{kept}");
        fs::remove_file(kept)?;
    }
    ensure!(shell.ok(&["get", "books", "-l", "tier=back", "-o", "name"])? == "taskbook/web\n");
    Ok(())
}

#[test]
fn a_context_is_renewed_and_chosen() -> Result<()> {
    let shell = Shell::start()?;
    let before = fs::read_to_string(shell.context())?;
    shell.ok(&["context", "renew"])?;
    let after = fs::read_to_string(shell.context())?;
    ensure!(before != after && fs::metadata(shell.context())?.permissions().mode() & 0o777 == 0o600);
    ensure!(shell.ok(&["get", "nodes", "-o", "name"])? == "node/s1\n", "the renewed identity is good");
    ensure!(shell.ok(&["context", "show"])?.contains("certificate  ends in"));
    let folder = shell.context().with_file_name(".config").join("lockstep/contexts");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("one.yaml"), &after)?;
    fs::write(folder.join("two.yaml"), &before)?;
    let by_choice = |arguments: &[&str]| -> Result<Said> {
        said(shell.command(arguments)?.env_remove("LOCKSTEP_CONTEXT").env_remove("XDG_CONFIG_HOME").output()?)
    };
    let several = by_choice(&["get", "nodes"])?;
    ensure!(several.code == 4 && several.err.contains("lockstep context use NAME"), "{several:?}");
    ensure!(by_choice(&["context", "use", "two"])?.code == 0);
    let listed = by_choice(&["context", "list"])?;
    ensure!(listed.out.lines().any(|line| line.starts_with("*   two ")), "{listed:?}");
    ensure!(by_choice(&["get", "nodes", "-o", "name"])?.out == "node/s1\n");
    let wrong = by_choice(&["context", "use", "tow"])?;
    ensure!(wrong.code == 4 && wrong.err.contains("did you mean `two`?"), "{wrong:?}");
    Ok(())
}
