//! What a process costs, read from /proc.

use anyhow::{Context, Result};
use std::fs;

/// Resident memory.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("the process has no memory")?;
    let kib: u64 = line.split_whitespace().nth(1).context("VmRSS has a number")?.parse()?;
    Ok(kib * 1024)
}

/// User and system time so far, in seconds; of ended children, too.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("a stat line")?.1.split(' ').collect();
    let ticks: u64 = fields.get(11..15).context("a stat line")?.iter().map(|f| f.parse::<u64>().unwrap_or(0)).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
