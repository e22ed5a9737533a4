//! The open window of a Run, as the queues of nodes see it: whom it asks for, and whom it keeps.
//! Knows one Run; who else asks is the queue's to know.

use lockstep_apis::v1alpha::Window;

use crate::world::{Plan, RunState, Stage, segments_of};

/// The open window of a Run, as its nodes' queues see it.
pub(super) struct Open<'w> {
    pub(super) run: &'w RunState,
    pub(super) plan: &'w Plan,
    pub(super) segment: u32,
    last_segment: u32,
    /// Only a window with sync points asks for all its nodes together, and keeps them from its start to its end.
    together: bool,
    started: bool,
}

impl<'w> Open<'w> {
    pub(super) fn new(
        run: &'w RunState,
        plan: &'w Plan,
        group: u32,
        segment: u32,
        window: &Window,
        ticket: u64,
    ) -> Self {
        let segments = plan.group(group).map_or(0..0, segments_of);
        let together = segments.len() > 1;
        let mut open = Open {
            run,
            plan,
            segment: segments.start + segment,
            last_segment: segments.end.saturating_sub(1),
            together,
            started: false,
        };
        open.started = together && open.has_begun(window, segments.start, ticket);
        open
    }

    fn has_begun(&self, window: &Window, first: u32, ticket: u64) -> bool {
        window.nodes.iter().any(|&node| {
            (first..=self.segment).any(|segment| {
                let attempts = self.run.track(segment, node).map_or(&[][..], |track| &track.attempts);
                attempts.iter().any(|attempt| {
                    attempt.assignment.as_ref().is_some_and(|assignment| assignment.value.ticket == ticket)
                })
            })
        })
    }

    /// Whether the window has still something to do on the node.
    pub(super) fn needs(&self, node: u32) -> bool {
        let left = |segment| {
            self.run.does(self.plan, segment, node) && !matches!(self.run.stage(segment, node), Stage::Ended(_))
        };
        self.run.stop(node).is_none() && (self.segment..=self.last_segment).any(left)
    }

    /// Whether the node is kept for the Run though it may be idle.
    pub(super) fn keeps(&self, node: u32) -> bool {
        match self.together {
            true => self.started && self.needs(node),
            false => self.run.stage(self.segment, node) == Stage::Rerun,
        }
    }

    /// Whom the window asks for on behalf of a node: itself, and those who still have something to do for it; by uid
    /// and name.
    pub(super) fn asked_for(&self, node: u32, mut each: impl FnMut(&'w str, &'w str)) {
        each(self.plan.uid(node), self.plan.name(node));
        for segment in self.segment..=self.last_segment {
            if let Some(delegate) = self.plan.delegate(segment, node)
                && !matches!(self.run.stage(segment, node), Stage::Ended(_))
            {
                each(&delegate.uid, &delegate.name);
            }
        }
    }
}
