//! `run --check` over the cluster: says what a run then does, and leaves no trace on the node.

use anyhow::{Result, ensure};
use lockstep_tests::daemon::Daemon;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const BOOK: &str = r#"
metadata: {apiVersion: v1alpha, kind: TaskBook, name: web, namespace: default}
spec:
  targets: {all: true}
  runOptions: {serialize: 1}
  locks: [shop]
  variables: {port: 8080}
  tasks:
    - {name: folder, file.directory: {path: /etc/web}}
    - {name: configure, file.managed: {path: /etc/web/conf, template: {file: ./conf.hbs}}}
    - {name: old, file.absent: {path: /old, recursive: true}}
    - {name: token, runOnce: true, command.run: {argv: [echo, t1]}}
    - {name: keep token, file.managed: {path: /token, content: "${{ shared.token.stdout }}"}}
    - {name: after, when: results.configure.changed, file.managed: {path: /changed, content: ""}}
"#;

#[test]
fn a_check_says_what_the_run_then_does_and_changes_nothing() -> Result<()> {
    let daemon = Daemon::init("c1", &[])?;
    let folder = daemon.folder().to_owned();
    daemon.wait_until_it_answers()?;
    fs::create_dir_all(folder.join("root/old/deep"))?;
    fs::create_dir(folder.join("root/etc"))?;
    fs::write(folder.join("book.yaml"), BOOK)?;
    fs::write(folder.join("conf.hbs"), "port {{vars.port}}\n")?;
    let ctl = |arguments: &[&str]| daemon.ctl(arguments);
    ctl(&["apply", "-f", &folder.join("book.yaml").display().to_string()])?;

    let before = tree(&folder.join("root"))?;
    let said = ctl(&["run", "web", "--name", "dry", "--check", "--diff", "--wait"])?;
    ensure!(tree(&folder.join("root"))? == before, "the check left a trace: {said}");
    for expected in [
        "1 node: c1",
        "would change  folder",
        "would change  configure: created",
        "      +port 8080",
        "would change  old",
        "unpredicted   token",
        "unpredicted   keep token",
        "would change  after",
        "a check, nothing was changed",
    ] {
        ensure!(said.contains(expected), "{expected:?} is missing: {said}");
    }
    let diffs = ctl(&["logs", "dry", "--diff"])?;
    ensure!(diffs.contains("configure ~ +port 8080") && !diffs.contains('|'), "{diffs}");
    ensure!(ctl(&["get", "runs"])?.contains("web (check)"), "the table tells checks from runs");

    let done = ctl(&["run", "web", "--name", "wet", "--wait"])?;
    ensure!(done.contains("Succeeded"), "{done}");
    for (path, content) in [("etc/web/conf", "port 8080\n"), ("token", "t1"), ("changed", "")] {
        ensure!(fs::read_to_string(folder.join("root").join(path))? == content, "{path}");
    }
    ensure!(!folder.join("root/old").exists());

    let again = ctl(&["run", "web", "--check", "--wait"])?;
    ensure!(again.contains("as it is      4 tasks") && !again.contains("would change"), "converged: {again}");
    Ok(())
}

/// A path's inode, time of change (seconds, nanoseconds) and mode.
type Seen = (PathBuf, u64, i64, i64, u32);

/// Every path with what a change of any kind would move: inode, time of change, mode.
fn tree(folder: &Path) -> Result<Vec<Seen>> {
    let seen = fs::symlink_metadata(folder)?;
    let mut found = vec![(folder.to_owned(), seen.ino(), seen.ctime(), seen.ctime_nsec(), seen.mode())];
    if seen.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            found.extend(tree(&entry.path())?);
        }
    }
    Ok(found)
}
