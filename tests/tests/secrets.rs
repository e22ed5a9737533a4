//! A secret that a task makes reaches the task that refers to it, and nothing else: not the store, not a log.

use anyhow::{Result, ensure};
use lockstep_tests::daemon::Daemon;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Looks like nothing else on this machine.
const CANARY: &str = "canary-7Qz9wLx2Vt4Rk8";

const BOOK: &str = r#"
metadata: {apiVersion: v1alpha, kind: TaskBook, name: secret, namespace: default}
spec:
  targets: {all: true}
  tasks:
    - name: token
      runOnce: true
      command.query: {argv: [cat, CANARY_FILE]}
      register: {secret: true}
    - name: use
      file.managed: {path: /used, mode: "0600", content: "${{ shared.token.stdout }}"}
    - name: leak
      command.run:
        shell: "cat; base64 CANARY_FILE; od -An -v -tx1 CANARY_FILE | tr -d ' \\n'; echo public"
        stdin: "${{ shared.token.stdout }}"
"#;

#[test]
fn a_registered_secret_is_sealed_in_the_store_and_masked_in_output() -> Result<()> {
    let mut daemon = Daemon::init("s1", &[])?;
    let folder = daemon.folder().to_owned();
    let canary_file = folder.join("canary");
    fs::write(&canary_file, CANARY)?;
    fs::write(folder.join("book.yaml"), BOOK.replace("CANARY_FILE", &canary_file.display().to_string()))?;
    daemon.wait_until_it_answers()?;
    let ctl = |arguments: &[&str]| daemon.ctl(arguments);
    let book = folder.join("book.yaml").display().to_string();
    ctl(&["apply", "-f", &book])?;
    let said = ctl(&["run", "secret", "--name", "once", "--wait"])?;
    ensure!(said.contains("Succeeded"), "{said}");
    let used = fs::read_to_string(folder.join("root/used"))?;
    ensure!(used == CANARY, "the task that refers to it got {used:?}");

    let printed = ctl(&["logs", "once"])?;
    ensure!(printed.contains("public"), "the task's own words are there: {printed}");
    for text in [printed, ctl(&["describe", "run", "once"])?, ctl(&["events"])?, ctl(&["get", "runs", "-o", "yaml"])?] {
        clean("an answer", text.as_bytes())?;
    }
    daemon.kill()?;
    let mut searched = 0;
    for path in files(&folder)? {
        // Where the secret comes from, and where a task was asked to put it.
        if path == canary_file || path == folder.join("root/used") {
            continue;
        }
        clean(&path.display().to_string(), &fs::read(&path)?)?;
        searched += 1;
    }
    ensure!(searched > 10 && files(&folder)?.iter().any(|path| path.ends_with("store.redb")), "{searched} files");
    Ok(())
}

/// Fails if the bytes hold the canary, plainly or in one of its usual disguises.
fn clean(what: &str, bytes: &[u8]) -> Result<()> {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Base64 of the canary from its first byte on, without the end that depends on what follows.
    let base64 = "Y2FuYXJ5LTdRejl3THgyVnQ0Ums";
    for disguise in [CANARY, base64, hex.as_str(), hex.to_uppercase().as_str()] {
        let found = bytes.windows(disguise.len()).any(|window| window == disguise.as_bytes());
        ensure!(!found, "{what} holds the secret as {disguise}");
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(files(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}
