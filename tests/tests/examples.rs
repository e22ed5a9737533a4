//! Every example does what its README says. Those of one machine run on an isolated host, twice: the first time something
//! changes, the second time nothing.

use anyhow::{Context, Result, ensure};
use lockstep_tests::{hosts::folder, local::LocalHost, rig::said};
use std::{collections::BTreeSet, fs};

/// Examples of one machine, and how `run --local` is to do them.
const LOCAL: [(&str, &[&str]); 4] = [
    ("02-first-file", &["--root", "/tmp/first"]),
    ("05-base-system", &[]),
    ("03-edits", &["--root", "/tmp/server"]),
    ("06-sshd-hardening", &["-i", "users=[root]"]),
];

/// Examples that a suite of their own runs.
const ELSEWHERE: [(&str, &str); 2] = [("01-lockstep", "demo.rs"), ("04-rolling-upgrade", "rolling.rs")];

#[test]
fn examples_of_one_machine_change_it_once() -> Result<()> {
    let host = LocalHost::up("examples", "10.85.0", None)?;
    host.exec(&["mkdir", "-p", "/tmp/first", "/tmp/server"])?;
    for (name, flags) in LOCAL {
        let book = fs::read_to_string(folder().join("../examples").join(name).join("book.yaml")).context(name)?;
        host.write("book.yaml", &book)?;
        let run = |more: &[&str]| -> Result<String> {
            let program = ["/opt/lockstep/lockstep", "run", "--local", "-f", "/shared/book.yaml"];
            let done = host.try_exec(&[&program, flags, more].concat())?;
            ensure!(done.status.success(), "{name} {more:?}: {}\n{}", done.status, said(&done));
            Ok(said(&done))
        };
        let checked = run(&["--check"])?;
        ensure!(checked.contains("would change"), "{name}: the check sees nothing to do\n{checked}");
        let first = run(&[])?;
        ensure!(!first.contains(" 0 changed") && first.contains("changed"), "{name}: nothing changed\n{first}");
        let again = run(&[])?;
        ensure!(!again.contains("changed"), "{name}: the second run changes something\n{again}");
    }
    Ok(())
}

#[test]
fn every_example_is_run_by_a_test() -> Result<()> {
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(folder().join("../examples"))? {
        let entry = entry?;
        ensure!(entry.path().join("README.md").is_file(), "{:?} has no README.md", entry.file_name());
        there.insert(entry.file_name().to_string_lossy().into_owned());
    }
    let tested: BTreeSet<String> =
        LOCAL.iter().map(|(name, _)| *name).chain(ELSEWHERE.map(|(name, _)| name)).map(str::to_owned).collect();
    ensure!(there == tested, "examples {there:?}, tested {tested:?}");
    for (name, suite) in ELSEWHERE {
        let text = fs::read_to_string(folder().join("tests").join(suite))?;
        ensure!(name == "01-lockstep" || text.contains(name), "{suite} does not run {name}");
    }
    Ok(())
}
