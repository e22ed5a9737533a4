//! Statuses: the copy of a Run's state for readers, at once when its phase changes, else about once a second.

use lockstep_apis::v1alpha::RunStatus;

use super::Deciding;
use crate::outcome;

/// How old the counts of a status may be.
const COUNTS_EVERY_MS: u64 = 1000;

impl Deciding<'_> {
    pub(super) fn write_statuses(&mut self) {
        for at in 0..self.active.len() {
            let waiting = std::mem::take(&mut self.active[at].waiting);
            // Ended in this step: the status is in that commit.
            if !self.active[at].settled || !self.active[at].run.open().is_empty() {
                self.write_status(at, &waiting);
            }
            if !waiting.is_empty() {
                self.step.why.insert(self.active[at].run.uid().to_owned(), waiting);
            }
        }
    }

    fn write_status(&mut self, at: usize, waiting: &[lockstep_apis::v1alpha::Waiting]) {
        let Some(object) = self.active[at].run.object() else { return };
        let stored = object.value.status.clone().unwrap_or_default();
        let run = self.active[at].run;
        let counted_ms = stored.observed_at.as_ref().map_or(0, lockstep_apis::timestamp::to_ms);
        // A count from the future was made by a clock that was wrong.
        let fresh = counted_ms <= self.now_ms && self.now_ms < counted_ms + COUNTS_EVERY_MS;
        if fresh && outcome::phase(run, waiting) == stored.phase() {
            return self.wake_at(counted_ms + COUNTS_EVERY_MS);
        }
        let status = outcome::status(run, waiting, self.now_ms, false);
        if (RunStatus { observed_at: status.observed_at, ..stored }) == status {
            return;
        }
        let commit = outcome::write_status(self.commit(), object, status);
        self.step.status.push(commit);
    }
}
