//! What a Run would do, as text.

use super::{names::compact, plural, safe};
use lockstep_apis::duration;
use lockstep_apis::v1alpha::{
    CompiledGate, Concurrency, ConcurrencyPolicy, CountOrPercent, EarlyEnd, Group, LockMode, OnFailure, Segment,
    Snapshot, count_or_percent,
};
use std::fmt::Write;

/// What the Run waits for before it begins, and groups, windows, segments and nodes of a compiled Run.
pub(crate) fn snapshot(plan: &Snapshot, concurrency: Option<&Concurrency>) -> String {
    let mut out = String::new();
    let nodes = plan.nodes.iter().filter(|node| node.early() == EarlyEnd::Unspecified).count();
    let _ = writeln!(out, "{}, {}", plural(n(nodes), "node"), plural(n(plan.segments.len()), "segment"));
    for node in &plan.nodes {
        let why = match node.early() {
            EarlyEnd::Unspecified => continue,
            EarlyEnd::Cordoned => "is cordoned: skipped",
            EarlyEnd::UnreachableSkipped => "is not reached: skipped",
            EarlyEnd::UnreachableFailed => "is not reached: counts as failed",
        };
        let _ = writeln!(out, "  {} {why}", node.name);
    }
    if let Some(approval) = plan.approval.filter(|own| own.required || own.two_persons) {
        let by = if approval.two_persons { " of somebody else than who starts it" } else { "" };
        let _ = writeln!(out, "approval{by} is needed, with `lockstep approve`");
    }
    if let Some(own) = concurrency {
        let _ = writeln!(out, "concurrency {} {}", safe(&own.key, 253), policy(own.policy()));
    }
    for lock in &plan.locks {
        let mode = if lock.mode() == LockMode::Read { "Read" } else { "Write" };
        let _ = writeln!(out, "lock {} {mode}", lock.name);
    }
    for pick in &plan.picks {
        let names = pick.nodes.iter().filter_map(|uid| plan.nodes.iter().find(|node| node.uid == *uid));
        let names: Vec<&str> = names.map(|node| node.name.as_str()).collect();
        let _ = writeln!(out, "pick {}: {}", pick.name, names.join(" "));
    }
    for (number, group) in plan.groups.iter().enumerate() {
        group_lines(&mut out, plan, number, group);
    }
    out
}

/// The policy, and what it does where another Run has the key.
fn policy(policy: ConcurrencyPolicy) -> &'static str {
    match policy {
        ConcurrencyPolicy::Allow => "Allow: runs beside others",
        ConcurrencyPolicy::Unspecified | ConcurrencyPolicy::Queue => "Queue: waits for those before it",
        ConcurrencyPolicy::QueueLatest => "QueueLatest: waits, and those that wait already are cancelled",
        ConcurrencyPolicy::Refuse => "Refuse: is not created beside another",
        ConcurrencyPolicy::Join => "Join: one that does the same already is taken in its place",
        ConcurrencyPolicy::Replace => "Replace: the one before it is cancelled",
    }
}

fn group_lines(out: &mut String, plan: &Snapshot, number: usize, group: &Group) {
    let kind = if group.serialized { "rollout group" } else { "group" };
    let _ = write!(out, "{kind} {}: {}", number + 1, plural(n(group.windows.len()), "window"));
    if group.serialized {
        let stop = if group.on_failure() == OnFailure::FinishWindow { "after the window" } else { "at once" };
        let _ = write!(out, "; stops {stop} when more than {} fail", plural(group.max_failures, "node"));
    }
    out.push('\n');
    for (number, window) in group.windows.iter().enumerate() {
        let names: Vec<&str> =
            window.nodes.iter().filter_map(|i| plan.nodes.get(*i as usize)).map(|node| node.name.as_str()).collect();
        let _ = writeln!(out, "  window {}: {}", number + 1, compact(&names));
    }
    let first = group.first_segment as usize;
    for (number, segment) in plan.segments.iter().enumerate().skip(first).take(group.segment_count as usize) {
        segment_lines(out, plan, number, segment);
    }
}

fn segment_lines(out: &mut String, plan: &Snapshot, number: usize, segment: &Segment) {
    let who = if segment.all_of_window {
        String::new()
    } else {
        let names: Vec<&str> =
            segment.nodes.iter().filter_map(|i| plan.nodes.get(*i as usize)).map(|node| node.name.as_str()).collect();
        format!(" on {}", compact(&names))
    };
    let by = match segment.delegates.first().and_then(|first| plan.delegates.get(*first as usize)) {
        Some(first) if segment.delegates.iter().all(|by| Some(by) == segment.delegates.first()) => {
            format!(", done by {}, {} at once", first.name, segment.throttle)
        }
        Some(first) => format!(", done by {} and others, {} at once on each", first.name, segment.throttle),
        None => String::new(),
    };
    let waits = if segment.reads_shared.is_empty() {
        String::new()
    } else {
        format!(", after {}", segment.reads_shared.join(", "))
    };
    let free = if segment.tasks.iter().any(|task| task.together != 0) { ", in any order" } else { "" };
    let _ = writeln!(out, "  segment {}{who}{by}{waits}{free}", number + 1);
    for task in &segment.tasks {
        if let Some(gate) = &task.gate {
            gate_line(out, gate);
            continue;
        }
        let secret = if task.secret { " (secret result)" } else { "" };
        let secret = if task.handler { " (handler, if notified)" } else { secret };
        let left_out = if task.left_out.is_empty() { String::new() } else { format!(" ({})", task.left_out) };
        let before = segment.tasks.iter().filter(|other| task.after.contains(&other.index));
        let before: Vec<&str> = before.map(|other| other.id.as_str()).collect();
        let after = if before.is_empty() { String::new() } else { format!(", after {}", before.join(", ")) };
        let _ = writeln!(out, "    {}: {}{after}{secret}{left_out}", task.id, task.action);
    }
}

fn gate_line(out: &mut String, gate: &CompiledGate) {
    let checks: Vec<&str> = gate.checks.iter().map(|check| check.id.as_str()).collect();
    let _ = write!(out, "    health gate: {}", checks.join(", "));
    if !gate.condition.is_empty() {
        let _ = write!(out, ", until {}", safe(&gate.condition, 100));
    }
    let _ = write!(out, "; every {}, shut at most {} times", duration::format(gate.interval_ms), gate.limit);
    if gate.soak_ms > 0 {
        let _ = write!(out, ", open for {}", duration::format(gate.soak_ms));
    }
    out.push('\n');
}

/// A count as it was written.
pub(crate) fn count(count: &CountOrPercent) -> String {
    match count.value {
        Some(count_or_percent::Value::Count(n)) => n.to_string(),
        Some(count_or_percent::Value::Percent(n)) => format!("{n}%"),
        None => "?".into(),
    }
}

fn n(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
