//! Health gates, compiled: the last task of a rollout group's last segment.

use lockstep_apis::duration;
use lockstep_apis::v1alpha::{CompiledGate, CompiledTask, HealthGate, OnInterrupt, Segment, Task};

use crate::check;

/// Gates are numbered from here on by their group: far above every task of a book.
const FIRST_INDEX: u32 = 1 << 20;
/// The name in reports.
const NAME: &str = "health gate";
/// The word in place of an action.
const ACTION: &str = "gate";

/// Default of a check's `timeout`, in milliseconds.
const CHECK_TIMEOUT_MS: u64 = 30_000;
/// Default of `retry.interval`, in milliseconds.
const INTERVAL_MS: u64 = 5_000;
/// Default of `retry.limit`.
const LIMIT: u32 = 20;

/// Puts the gate behind the last task of a group whose segments these are. Every node of a window passes it: behind a
/// segment that only some do, that is done elsewhere, or after which they reboot, it is a segment of its own.
pub(super) fn close(gate: &HealthGate, group: u32, segments: &mut Vec<Segment>) {
    let reboots = |segment: &Segment| segment.tasks.iter().any(|task| super::reboots(&task.action));
    if segments.last().is_none_or(|last| !last.all_of_window || reboots(last)) {
        segments.push(Segment { all_of_window: true, ..Segment::default() });
    }
    let last = segments.last_mut().expect("invariant: made above if there was none");
    last.tasks.push(CompiledTask {
        index: FIRST_INDEX + group,
        name: NAME.to_owned(),
        action: ACTION.to_owned(),
        // It only reads.
        on_interrupt: OnInterrupt::Rerun.into(),
        gate: Some(compiled(gate)),
        ..CompiledTask::default()
    });
}

fn compiled(gate: &HealthGate) -> CompiledGate {
    let retry = gate.retry.unwrap_or_default();
    CompiledGate {
        checks: gate.check.iter().map(check).collect(),
        condition: gate.condition.clone(),
        interval_ms: retry.interval.as_ref().map_or(INTERVAL_MS, duration::from_proto),
        limit: if retry.limit == 0 { LIMIT } else { retry.limit },
        soak_ms: gate.soak.as_ref().map_or(0, duration::from_proto),
    }
}

fn check(check: &Task) -> CompiledTask {
    CompiledTask {
        id: check::gate::id(check),
        name: check.name.clone(),
        action: check.action.clone(),
        parameters: check.parameters.clone(),
        success: check.success.clone(),
        timeout_ms: check.timeout.as_ref().map_or(CHECK_TIMEOUT_MS, duration::from_proto),
        environment: check.environment.clone(),
        user: check.user.clone(),
        working_directory: check.working_directory.clone(),
        ..CompiledTask::default()
    }
}
