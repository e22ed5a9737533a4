//! Which task of a segment is next, after others have ended: the one meaning of `block`, `rescue` and `always`, for the
//! executor that does them, for the leader that judges a report, and for the next attempt after a crash.
//! Knows tasks by their places and outcomes; not conditions, not results.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::v1alpha::{BlockPart, CompiledBlock, CompiledTask, Outcome, TaskReport, Within};

mod together;

use together::Together;

/// A part of a block; `None` is what is in no block.
type Part = Option<(u32, BlockPart)>;

/// The first task that ended badly in a part of the course, and was not rescued there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fall {
    /// Its position in the segment.
    pub at: usize,
    /// `Failed` or `Cancelled`.
    pub outcome: Outcome,
}

/// A way through a segment.
///
/// Ask [`Course::due`], do that task, say how it [`ended`](Course::ended), until nothing is due. Of tasks that do not wait
/// for all before them several may be at work: say which have [`begun`](Course::begin), and ask for another.
///
/// - After a task failed, the rest of its part is left out. Of the body of a block, `rescue` follows; then `always`.
/// - A failure that no `rescue` ended well for is the block's, and so on outwards.
/// - After a cancel only `always` of blocks that were begun is left.
/// - A handler is due if a task that notifies it was Changed or, in a check, Unpredicted, and nothing failed.
/// - Tasks that are together begin when what they wait for has ended. After one failed, no other one begins.
/// - Where a block goes on in a later segment, its `rescue` and `always` are only for those who fail here.
#[derive(Clone, Debug)]
pub struct Course<'w> {
    tasks: &'w [CompiledTask],
    blocks: BTreeMap<u32, &'w CompiledBlock>,
    /// Left in an earlier segment.
    left: BTreeSet<u32>,
    /// Position of the next task to be looked at.
    at: usize,
    /// The tasks from there on that are together, if they are.
    together: Option<Together>,
    /// The blocks that it is in, outermost first.
    open: Vec<Within>,
    falls: BTreeMap<Part, Fall>,
    entered: BTreeSet<u32>,
    /// Blocks of whose `rescue` a task has ended.
    rescuing: BTreeSet<u32>,
    /// Failed in here.
    failed: BTreeSet<u32>,
    cancelled: bool,
    /// Handlers that are to be done.
    notified: BTreeSet<u32>,
    /// Of a check: handlers that are notified if a task changes something of which nobody can tell.
    doubted: BTreeSet<u32>,
}

impl<'w> Course<'w> {
    /// Through these tasks, which are in these blocks, for a node that left these blocks in earlier segments.
    pub fn new(tasks: &'w [CompiledTask], blocks: &'w [CompiledBlock], left: &[u32]) -> Self {
        Self {
            tasks,
            blocks: blocks.iter().map(|block| (block.index, block)).collect(),
            left: left.iter().copied().collect(),
            at: 0,
            together: None,
            open: Vec::new(),
            falls: BTreeMap::new(),
            entered: blocks.iter().filter(|block| block.begun).map(|block| block.index).collect(),
            rescuing: BTreeSet::new(),
            failed: BTreeSet::new(),
            cancelled: false,
            notified: BTreeSet::new(),
            doubted: BTreeSet::new(),
        }
    }

    /// With handlers that are to be done without being notified.
    pub fn owing(mut self, handlers: &[u32]) -> Self {
        self.notified.extend(handlers);
        self
    }

    /// The position of a task that is due; the same until it ended or begun. `None`: the segment is over, or waits for an
    /// end of what has begun.
    pub fn due(&mut self) -> Option<usize> {
        while let Some(task) = self.tasks.get(self.at) {
            self.move_to(&task.within);
            self.enter();
            if let Some(together) = &self.together {
                let over = self.falls.contains_key(&None) || self.cancelled;
                match together.ready.first() {
                    Some(at) if !over => return Some(*at),
                    _ if !together.begun.is_empty() => return None,
                    _ => self.at = together.range.end,
                }
                self.together = None;
                continue;
            }
            let wanted = !task.handler || self.notified.contains(&task.index) || self.doubted.contains(&task.index);
            if wanted && self.is_for_now(&task.within) {
                return Some(self.at);
            }
            self.at += 1;
        }
        self.move_to(&[]);
        None
    }

    /// Goes on over all that has ended before. The answer: what is due then.
    pub fn resume<'r>(&mut self, ended: impl Fn(&CompiledTask) -> Option<&'r TaskReport>) -> Option<usize> {
        loop {
            if let Some(task) = self.tasks.get(self.at).filter(|task| task.together != 0) {
                self.move_to(&task.within);
                self.enter();
            }
            // What was at work beside a failure has ended, too.
            let ready = self.together.iter().flat_map(|together| together.ready.iter().copied());
            let beside = ready.filter_map(|at| Some((at, ended(&self.tasks[at])?))).next();
            if let Some((at, report)) = beside {
                self.ended(at, report);
                continue;
            }
            let at = self.due()?;
            match ended(&self.tasks[at]) {
                Some(report) => self.ended(at, report),
                None => return Some(at),
            }
        }
    }

    /// The task that was due has begun, and others may beside it.
    pub fn begin(&mut self, at: usize) {
        self.together.iter_mut().for_each(|together| together.begin(at));
    }

    fn enter(&mut self) {
        if self.together.is_none() {
            self.together = Together::of(self.tasks, self.at);
        }
    }

    /// The task at this position, which was due, has ended so. What is no failure and no cancel, or is ignored, goes on.
    pub fn ended(&mut self, at: usize, report: &TaskReport) {
        self.entered.extend(self.open.iter().map(|place| place.block));
        let rescues = self.open.iter().filter(|place| place.part() == BlockPart::Rescue);
        self.rescuing.extend(rescues.map(|place| place.block));
        let notify = self.tasks.get(at).into_iter().flat_map(|task| &task.notify);
        match report.outcome() {
            Outcome::Changed => self.notified.extend(notify),
            Outcome::Unpredicted => self.doubted.extend(notify),
            _ => {}
        }
        self.pass(at, if report.ignored { Outcome::Ok } else { report.outcome() });
    }

    /// Whether the task that is due is a handler, and only tasks of which nobody can tell may notify it.
    pub fn is_in_doubt(&self) -> bool {
        self.tasks.get(self.at).is_some_and(|task| task.handler && !self.notified.contains(&task.index))
    }

    /// A cancel came before the task that was due could start.
    pub fn refused(&mut self, at: usize) {
        self.pass(at, Outcome::Cancelled);
    }

    fn pass(&mut self, at: usize, outcome: Outcome) {
        if matches!(outcome, Outcome::Failed | Outcome::Cancelled) {
            let fall = Fall { at, outcome };
            let first = self.falls.entry(part(self.open.last())).or_insert(fall);
            // Of those that end beside each other, a failure says more.
            if self.together.is_some() && first.outcome == Outcome::Cancelled {
                *first = fall;
            }
            self.cancelled |= outcome == Outcome::Cancelled;
        }
        match &mut self.together {
            Some(together) => together.end(at),
            None => self.at += 1,
        }
    }

    /// What the task that is due is there for: the failure that the `rescue` or `always` it is in follows.
    pub fn follows(&self) -> Option<Fall> {
        let after = self.open.iter().rev().filter(|place| place.part() != BlockPart::Body);
        let mut falls = after.filter_map(|place| self.falls.get(&Some((place.block, BlockPart::Body))));
        falls.next().copied()
    }

    /// What the segment as a whole failed by, once it is over.
    pub fn fall(&self) -> Option<Fall> {
        self.falls.get(&None).copied()
    }

    /// Blocks that failed here and go on in a later segment, which has nothing for this node in them.
    pub fn left_behind(&self) -> impl Iterator<Item = u32> {
        self.failed.iter().copied().filter(|block| self.blocks.get(block).is_some_and(|block| block.goes_on))
    }

    /// Closes the blocks that a task at this place is not in.
    fn move_to(&mut self, within: &[Within]) {
        let same = self.open.iter().zip(within).take_while(|(open, next)| open.block == next.block).count();
        while self.open.len() > same {
            self.close();
        }
        self.open = within.to_vec();
    }

    /// The innermost open block is over: what was not rescued in it is its outer part's.
    fn close(&mut self) {
        let Some(Within { block, .. }) = self.open.pop() else { return };
        let fall = |of: BlockPart| self.falls.get(&Some((block, of))).copied();
        let rescues = self.blocks.get(&block).is_some_and(|block| block.rescues);
        let unrescued = match fall(BlockPart::Body) {
            Some(body) if rescues && body.outcome == Outcome::Failed => {
                self.failed.insert(block);
                // A cancel may have come before the rescue did.
                let never = self.cancelled && !self.rescuing.contains(&block);
                fall(BlockPart::Rescue).or(never.then_some(body))
            }
            Some(body) => {
                self.failed.insert(block);
                Some(body)
            }
            None => None,
        };
        if let Some(fall) = unrescued.or(fall(BlockPart::Always)) {
            self.falls.entry(part(self.open.last())).or_insert(fall);
        }
    }

    fn is_for_now(&self, within: &[Within]) -> bool {
        if within.iter().any(|place| self.left.contains(&place.block)) {
            return false;
        }
        let mut in_always = false;
        for place in within {
            let failed = |of: BlockPart| self.falls.contains_key(&Some((place.block, of)));
            let goes_on = self.blocks.get(&place.block).is_some_and(|block| block.goes_on);
            let due = match place.part() {
                BlockPart::Rescue => failed(BlockPart::Body) && !failed(BlockPart::Rescue),
                BlockPart::Always => {
                    in_always |= self.entered.contains(&place.block);
                    (!goes_on || failed(BlockPart::Body)) && !failed(BlockPart::Always)
                }
                BlockPart::Body | BlockPart::Unspecified => !failed(BlockPart::Body),
            };
            if !due {
                return false;
            }
        }
        !self.falls.contains_key(&None) && (in_always || !self.cancelled)
    }
}

fn part(place: Option<&Within>) -> Part {
    place.map(|place| (place.block, place.part()))
}

#[cfg(test)]
mod tests;
