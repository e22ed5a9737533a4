//! Tasks that do not wait for all that is written before them: those of one segment under `ordering: Free`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use lockstep_apis::v1alpha::CompiledTask;

/// A stretch of tasks, and how far they are.
#[derive(Clone, Debug)]
pub(super) struct Together {
    /// Their positions.
    pub(super) range: Range<usize>,
    /// May begin: all that they wait for has ended.
    pub(super) ready: BTreeSet<usize>,
    /// Have begun, and not ended.
    pub(super) begun: BTreeSet<usize>,
    /// By place in the range: how many it still waits for.
    waits: Vec<usize>,
    /// By place in the range: the positions of those that wait for it.
    followers: Vec<Vec<usize>>,
}

impl Together {
    /// The stretch that begins at this position; `None` if the task there is done in order.
    pub(super) fn of(tasks: &[CompiledTask], from: usize) -> Option<Self> {
        let number = tasks.get(from)?.together;
        if number == 0 {
            return None;
        }
        let count = tasks[from..].iter().take_while(|task| task.together == number).count();
        let range = from..from + count;
        let places: BTreeMap<u32, usize> = range.clone().map(|at| (tasks[at].index, at)).collect();
        let mut followers = vec![Vec::new(); count];
        let waits: Vec<usize> = range
            .clone()
            .map(|at| {
                let after: BTreeSet<usize> =
                    tasks[at].after.iter().filter_map(|task| places.get(task)).copied().collect();
                after.iter().for_each(|before| followers[before - from].push(at));
                after.len()
            })
            .collect();
        let ready = range.clone().filter(|at| waits[at - from] == 0).collect();
        Some(Self { range, ready, begun: BTreeSet::new(), waits, followers })
    }

    pub(super) fn begin(&mut self, at: usize) {
        self.ready.remove(&at);
        self.begun.insert(at);
    }

    pub(super) fn end(&mut self, at: usize) {
        self.ready.remove(&at);
        self.begun.remove(&at);
        for follower in std::mem::take(&mut self.followers[at - self.range.start]) {
            let waits = &mut self.waits[follower - self.range.start];
            *waits -= 1;
            if *waits == 0 {
                self.ready.insert(follower);
            }
        }
    }
}
