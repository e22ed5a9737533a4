//! `lockstep-scale --nodes N`: how the real server and a real etcd bear N agents. The agents are simulated in this
//! process, over the real protocol, each with its own connection and certificate; their tasks do nothing.
//! Prints one JSON line a measurement. Everything is on this machine, and shares its processors.

#[path = "scale/agents.rs"]
mod agents;
#[path = "scale/cluster.rs"]
mod cluster;

use agents::{Agents, Stored};
use anyhow::{Context, Result};
use cluster::Cluster;
use serde_json::json;
use std::time::{Duration, Instant};

/// A run that takes longer has failed.
const RUN_LIMIT: Duration = Duration::from_secs(180);

fn main() -> Result<()> {
    lockstep_daemon::identity::install_provider();
    let nodes = nodes()?;
    // As many threads as the server has: the machine is shared.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(nodes))
}

fn nodes() -> Result<usize> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Ok(1000),
        ["--nodes", n] => n.parse().context("--nodes takes a number"),
        _ => anyhow::bail!("usage: lockstep-scale [--nodes N]"),
    }
}

async fn measure(nodes: usize) -> Result<()> {
    raise_file_limit();
    let cluster = Cluster::start().await?;
    // A quarter first: two sizes give the exponent of growth.
    let sizes = [nodes / 4, nodes];
    let mut agents = Agents::new();
    let empty_rss = cluster.server_rss_bytes()?;
    let mut last = Vec::new();
    for size in sizes {
        let began = Instant::now();
        let joined = cluster.join(agents.len()..size).await?;
        let join_s = began.elapsed().as_secs_f64();
        let began = Instant::now();
        agents.connect(joined, cluster.address()).await?;
        cluster.wait_for_ready(size).await?;
        let connect_s = began.elapsed().as_secs_f64();
        // Let what was sent at connection settle: idle memory is what stays.
        cluster.wait_until_idle().await?;
        let per_agent = cluster.server_rss_bytes()?.saturating_sub(empty_rss) / size as u64;
        println!(
            "{}",
            json!({"what": "connect", "nodes": size, "join_s": round(join_s), "connect_s": round(connect_s),
            "server_bytes_per_agent": per_agent, "server_rss_mb": cluster.server_rss_bytes()? / 1_048_576})
        );
        let runs = [("one-task", 1, None), ("twenty-tasks", 20, None), ("rolling-10%", 1, Some("10%"))];
        let mut lasts = Vec::new();
        for (name, tasks, windows) in runs {
            let taken = one_run(&cluster, &mut agents, size, name, tasks, windows).await?;
            lasts.push((name, taken));
        }
        last.push((size, lasts));
    }
    if let [(small, first), (large, second)] = last.as_slice() {
        for ((name, t1), (_, t2)) in first.iter().zip(second) {
            let exponent = (t2 / t1).ln() / (*large as f64 / *small as f64).ln();
            println!(
                "{}",
                json!({"what": "growth", "run": name, "from": small, "to": large, "exponent": round(exponent)})
            );
        }
    }
    Ok(())
}

async fn one_run(
    cluster: &Cluster,
    agents: &mut Agents,
    size: usize,
    name: &str,
    tasks: usize,
    windows: Option<&str>,
) -> Result<f64> {
    cluster.apply_book(name, tasks, windows).await?;
    let before = cluster.store_writes().await?;
    let cpu_before = cluster.cpu_seconds()?;
    agents.forget();
    let began = Instant::now();
    cluster.run(name, size).await?;
    let stored: Vec<Stored> = agents.wait_for(size, RUN_LIMIT).await?;
    let mut seconds: Vec<f64> = stored.iter().map(|s| s.at.duration_since(began).as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    cluster.wait_for_end(name, size).await?;
    let after = cluster.store_writes().await?;
    let cpu = cluster.cpu_seconds()?;
    let last = seconds[seconds.len() - 1];
    println!(
        "{}",
        json!({"what": "run", "run": name, "nodes": size, "p50_s": round(at(&seconds, 0.5)), "p99_s": round(at(&seconds, 0.99)),
            "last_s": round(last), "end_s": round(began.elapsed().as_secs_f64()),
            "puts_per_node_and_segment": round((after.puts - before.puts) as f64 / size as f64),
            "bytes_per_node_and_segment": ((after.bytes - before.bytes) / size as u64),
            "commits": after.revision - before.revision,
            "server_cpu_s": round(cpu.server - cpu_before.server), "etcd_cpu_s": round(cpu.etcd - cpu_before.etcd)})
    );
    Ok(last)
}

fn at(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() as f64 * quantile) as usize).min(sorted.len() - 1)]
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Every agent is a socket here and one in the server.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).is_err() {
        eprintln!("the limit of open files stays at {:?}", limit.current);
    }
}
