//! Windows and segments: where a Run's cursor goes next.
//! Knows one Run at a time; whose turn it is on a node is the queue's to say.

use lockstep_apis::v1alpha::{GateReasonType, OnFailure, Window};

use super::{Active, Deciding, closing::limit_message};
use crate::{
    protocol,
    world::{Plan, RunState, Stage, segments_of},
};

/// Where a cursor goes.
enum Move {
    Stay,
    Segment(u32),
    Window(u32, u32, u32),
    /// Too many nodes of the window failed.
    Stop(String),
    Complete,
}

impl Deciding<'_> {
    /// Moves every cursor that can move. A Run whose last window is done ends.
    pub(super) fn move_on(&mut self) {
        for at in 0..self.active.len() {
            let active = &mut self.active[at];
            if !active.cursor.granted || !active.may_move() {
                continue;
            }
            match next(active) {
                Move::Stay => {}
                Move::Segment(segment) => {
                    active.cursor.segment = segment;
                    active.moved = true;
                }
                Move::Window(group, window, segment) => {
                    self.ticket += 1;
                    let cursor = &mut active.cursor;
                    (cursor.group, cursor.window, cursor.segment) = (group, window, segment);
                    cursor.ticket = self.ticket;
                    active.moved = true;
                }
                Move::Stop(message) => {
                    let reason = protocol::reason(GateReasonType::Failed, "leader", self.now_ms, &message);
                    self.close_with(at, reason);
                }
                Move::Complete => self.end(at),
            }
        }
    }
}

/// Whether nothing is left to do, so that only the end must be written.
pub(super) fn is_through(active: &Active<'_>) -> bool {
    active.cursor.granted && active.may_move() && matches!(next(active), Move::Complete)
}

fn next(active: &Active<'_>) -> Move {
    let (run, plan, cursor) = (active.run, active.plan, &active.cursor);
    if cursor.ticket == 0 {
        return next_window(active, 0, 0);
    }
    let (Some(group), Some(window)) = (plan.group(cursor.group), plan.window(cursor.group, cursor.window)) else {
        return Move::Complete;
    };
    if !segment_is_done(run, plan, window, group.first_segment + cursor.segment) {
        return Move::Stay;
    }
    if let Some(segment) = first_segment(run, plan, cursor.group, window, cursor.segment + 1) {
        return Move::Segment(segment);
    }
    if group.on_failure() == OnFailure::FinishWindow
        && let Some(message) = limit_message(active, cursor.group)
    {
        return Move::Stop(message);
    }
    next_window(active, cursor.group, cursor.window + 1)
}

/// The first window from there on that has something to do.
fn next_window(active: &Active<'_>, group: u32, window: u32) -> Move {
    let (run, plan) = (active.run, active.plan);
    for group_at in group..plan.snapshot.groups.len() as u32 {
        let Some(of) = plan.group(group_at) else { break };
        let from = if group_at == group { window } else { 0 };
        if let Some(message) = limit_message(active, group_at) {
            return Move::Stop(message);
        }
        for window_at in from..of.windows.len() as u32 {
            let first = of.windows.get(window_at as usize);
            let first = first.and_then(|window| first_segment(run, plan, group_at, window, 0));
            if let Some(segment) = first {
                return Move::Window(group_at, window_at, segment);
            }
        }
    }
    Move::Complete
}

/// The first segment of the group, from this one on, that a node of the window has still to do; counted in the group.
fn first_segment(run: &RunState, plan: &Plan, group: u32, window: &Window, from: u32) -> Option<u32> {
    let of = plan.group(group)?;
    let mut segments = segments_of(of).skip(from as usize);
    let goes =
        |segment: u32| window.nodes.iter().any(|&node| run.does(plan, segment, node) && run.stop(node).is_none());
    segments.find(|&segment| goes(segment)).map(|segment| segment - of.first_segment)
}

/// Whether every node of the window that does the segment has ended it, or goes no further.
fn segment_is_done(run: &RunState, plan: &Plan, window: &Window, segment: u32) -> bool {
    window.nodes.iter().all(|&node| {
        !run.does(plan, segment, node)
            || run.stop(node).is_some()
            || matches!(run.stage(segment, node), Stage::Ended(_))
    })
}
