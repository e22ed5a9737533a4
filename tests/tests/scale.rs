//! A thousand agents over the real protocol. Holds what does not depend on the machine: that it works, and how many
//! writes it costs. Times are `make scale`'s to report.

use anyhow::{Context, Result, ensure};
use lockstep_tests::daemon::program;
use serde_json::Value;
use std::process::Command;

const NODES: f64 = 1000.0;
/// Of a whole Run, whatever its size: the Run, its snapshot, gate, cursor and statuses, and events.
const WRITES_PER_RUN: f64 = 60.0;

#[test]
fn a_thousand_nodes_cost_three_writes_each_and_segment() -> Result<()> {
    let done = Command::new(program("lockstep-scale")?).args(["--nodes", "1000"]).output().context("lockstep-scale")?;
    let text = String::from_utf8(done.stdout)?;
    ensure!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    print!("{text}");
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let runs: Vec<&Value> =
        lines.iter().filter(|line| line["what"] == "run" && line["nodes"] == NODES as u64).collect();
    ensure!(runs.len() == 3, "{} runs of {NODES} nodes", runs.len());
    for run in runs {
        let puts = run["puts_per_node_and_segment"].as_f64().context("a number")?;
        ensure!(puts <= 3.0 + WRITES_PER_RUN / NODES, "{run}");
    }
    Ok(())
}
