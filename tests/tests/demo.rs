//! What the README promises: the demo shows what it says, on both stores, and cleans up.

use anyhow::{Context, Result, ensure};
use lockstep_tests::{daemon::program, hosts};
use std::process::Command;

#[test]
fn the_demo_runs_in_lockstep_and_changes_nothing_the_second_time() -> Result<()> {
    demo("embedded")
}

#[test]
fn the_demo_does_the_same_on_a_real_etcd() -> Result<()> {
    demo("etcd")
}

fn demo(store: &str) -> Result<()> {
    let programs = program("lockstep")?;
    let scratch = tempfile::tempdir()?;
    let done = Command::new(hosts::folder().join("demo.sh"))
        .env("STORE", store)
        .env("TMPDIR", scratch.path())
        .env("LOCKSTEP_PROGRAMS", programs.parent().context("programs lie in a folder")?)
        .output()
        .context("demo.sh")?;
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{text}");
    ensure!(text.contains("3 nodes: 3 changed") && text.contains("3 nodes: 3 ok"), "{text}");
    let left: Vec<_> = std::fs::read_dir(scratch.path())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}
