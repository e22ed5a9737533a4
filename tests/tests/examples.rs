//! Every example does what its README says, on isolated hosts with real packages: a check of it changes nothing and says
//! what the run then does, the run changes something, and a second run writes nothing at all.

#[path = "examples/cluster.rs"]
mod cluster;
#[path = "examples/local.rs"]
mod local;

use anyhow::{Context, Result, ensure};
use lockstep_tests::hosts::folder;
use std::{collections::BTreeSet, fs};

/// An example with a suite of its own.
const ELSEWHERE: (&str, &str) = ("04-rolling-upgrade", "rolling.rs");

/// The text of an example's file.
fn text(example: &str, file: &str) -> Result<String> {
    fs::read_to_string(folder().join("../examples").join(example).join(file))
        .with_context(|| format!("{example}/{file}"))
}

#[test]
fn every_example_is_run_by_a_test() -> Result<()> {
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(folder().join("../examples"))? {
        let entry = entry?;
        ensure!(entry.path().join("README.md").is_file(), "{:?} has no README.md", entry.file_name());
        there.insert(entry.file_name().to_string_lossy().into_owned());
    }
    let tested: BTreeSet<String> = (local::EXAMPLES.iter().map(|example| example.0))
        .chain(cluster::EXAMPLES)
        .chain([ELSEWHERE.0])
        .map(str::to_owned)
        .collect();
    ensure!(there == tested, "examples {there:?}, tested {tested:?}");
    let (name, suite) = ELSEWHERE;
    ensure!(fs::read_to_string(folder().join("tests").join(suite))?.contains(name), "{suite} does not run {name}");
    Ok(())
}
