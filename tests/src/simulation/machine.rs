//! A managed machine: a disk with journals, an agent process, executors and the children that they started. A crash of
//! the machine takes back what was not synced; a crash of a process takes back nothing that it wrote.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::{
    keys::Attempt,
    v1alpha::{
        CompiledTask, JournalClaim, JournalDone, JournalFinished, JournalIntent, JournalReboot, JournalRecord, Outcome,
        Report, TaskReport, Work, journal_record::Record,
    },
};

use lockstep_core::course::Course;

use super::{cluster::START_MS, random::Random};

/// A segment's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) work: Work,
    pub(crate) records: Vec<JournalRecord>,
    /// So many records survive a crash of the machine; of the others some may.
    pub(crate) synced: usize,
    pub(crate) cancelled: bool,
    /// When what was acknowledged last was sent, by the machine's clock.
    pub(crate) renewed_ms: u64,
    /// The guard killed what was in progress.
    pub(crate) fenced: bool,
}

/// A process that does a segment.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    pub(crate) id: u64,
    pub(crate) paused_until: u64,
}

/// A child that does a task; it outlives its executor until somebody kills it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) id: u64,
    pub(crate) outcome: Outcome,
}

/// The agent process.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) instance: u64,
    /// The server it is connected to, and that server's epoch.
    pub(crate) server: Option<(usize, u64)>,
    /// When it opened its stream to it, by the machine's clock: names the stream.
    pub(crate) stream: u64,
    /// Attempts that it asked for, and when in this stream first.
    pub(crate) pending: BTreeMap<Attempt, u64>,
    /// Attempts that it was given, or that it knows to be over; never asked for again.
    pub(crate) taken: BTreeSet<Attempt>,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) up: bool,
    /// Never comes back.
    pub(crate) gone: bool,
    pub(crate) boot: u64,
    /// How much too fast its clock is.
    pub(crate) drift_per_mille: i64,
    pub(crate) cut_until: u64,
    pub(crate) agent: Option<Agent>,
    pub(crate) disk: BTreeMap<Attempt, Folder>,
    pub(crate) executors: BTreeMap<Attempt, Executor>,
    pub(crate) children: BTreeMap<(Attempt, u32), Child>,
}

impl Machine {
    pub(crate) fn new(drift_per_mille: i64) -> Self {
        Machine {
            drift_per_mille,
            up: true,
            gone: false,
            boot: 1,
            cut_until: 0,
            agent: None,
            disk: BTreeMap::new(),
            executors: BTreeMap::new(),
            children: BTreeMap::new(),
        }
    }

    pub(crate) fn boot_id(&self) -> String {
        boot_id(self.boot)
    }

    /// Its clock since boot. That reboots do not set it back changes nothing: what counts by it ends with the boot.
    pub(crate) fn boot_ms(&self, now_ms: u64) -> u64 {
        drifted(now_ms, self.drift_per_mille)
    }

    /// Makes the folder of a granted claim, with the claim synced; the claim was sent at `sent_ms`.
    pub(crate) fn make_folder(&mut self, attempt: &Attempt, work: Work, sent_ms: u64) {
        let claim = JournalClaim { run_uid: attempt.run.clone(), boot_id: self.boot_id(), ..Default::default() };
        let records = vec![JournalRecord { record: Some(Record::Claim(claim)) }];
        self.disk.insert(
            attempt.clone(),
            Folder { work, records, synced: 1, cancelled: false, renewed_ms: sent_ms, fenced: false },
        );
    }

    /// Reboots that are noted in this boot, and of which no end is.
    pub(crate) fn going_down(&self) -> Vec<(Attempt, u32)> {
        let boot_id = self.boot_id();
        let open = |folder: &Folder| {
            let claim = folder.records.first().and_then(|record| record.record.as_ref());
            let of_now = matches!(claim, Some(Record::Claim(claim)) if claim.boot_id == boot_id);
            let mut noted = folder.records.iter().filter_map(|record| match &record.record {
                Some(Record::Reboot(reboot)) => Some(reboot.task),
                _ => None,
            });
            noted.next().filter(|task| of_now && !folder.ended().any(|report| report.task == *task))
        };
        self.disk.iter().filter_map(|(attempt, folder)| Some((attempt.clone(), open(folder)?))).collect()
    }

    /// The power goes: processes are gone, and of what was not synced any part that was written last.
    pub(crate) fn lose_power(&mut self, random: &mut Random) -> Vec<(Attempt, u32)> {
        self.up = false;
        self.boot += 1;
        self.agent = None;
        self.executors.clear();
        for folder in self.disk.values_mut() {
            let kept = random.between(folder.synced as u64, folder.records.len() as u64);
            folder.records.truncate(kept as usize);
        }
        std::mem::take(&mut self.children).into_keys().collect()
    }

    /// The tasks of an attempt that are at work.
    pub(crate) fn at_work(&self, attempt: &Attempt) -> Vec<u32> {
        let children = self.children.range((attempt.clone(), 0)..=(attempt.clone(), u32::MAX));
        children.map(|((_, task), _)| *task).collect()
    }
}

/// The name of a boot. Names have no order.
pub(crate) fn boot_id(boot: u64) -> String {
    format!("boot{boot}")
}

/// What a clock says that began with the true time and is too fast.
pub(crate) fn drifted(now_ms: u64, drift_per_mille: i64) -> u64 {
    now_ms.saturating_add_signed((now_ms as i64 - START_MS as i64) * drift_per_mille / 1000)
}

impl Folder {
    pub(crate) fn write(&mut self, record: Record) {
        self.records.push(JournalRecord { record: Some(record) });
    }

    pub(crate) fn intend(&mut self, task: u32, at_ms: u64) {
        self.write(Record::Intent(JournalIntent { task, at_ms }));
    }

    /// Notes a reboot, with all before it on the disk.
    pub(crate) fn reboot(&mut self, task: u32, at_ms: u64, timeout_ms: u64) {
        self.write(Record::Reboot(JournalReboot { task, at_ms, until_ms: at_ms + timeout_ms }));
        self.synced = self.records.len();
    }

    pub(crate) fn done(&mut self, task: u32, outcome: Outcome) {
        let report = TaskReport { task, outcome: outcome.into(), ..Default::default() };
        self.write(Record::Done(JournalDone { report: Some(report) }));
    }

    /// The last record, with all that was done in this boot; synced.
    pub(crate) fn finish(&mut self) {
        let report = Report { tasks: self.ended().cloned().collect(), ..Default::default() };
        self.write(Record::Finished(JournalFinished { report: Some(report) }));
        self.synced = self.records.len();
    }

    /// The next task: due after those that are known from an earlier attempt, or were done in this one, and beside those
    /// that have begun.
    pub(crate) fn next_task(&self) -> Option<u32> {
        let tasks = &self.work.tasks;
        let mut course = Course::new(tasks, &self.work.blocks, &self.work.left_blocks).owing(&self.work.owed);
        let end_of = |task: &CompiledTask| {
            let mut known = self.work.known.iter().chain(self.ended());
            known.find(|report| report.task == task.index)
        };
        let mut due = course.resume(end_of)?;
        while self.has_begun(tasks[due].index) {
            if tasks[due].together == 0 {
                return None;
            }
            course.begin(due);
            due = course.due()?;
        }
        Some(tasks[due].index)
    }

    /// Something has begun and not ended.
    pub(crate) fn is_at_work(&self) -> bool {
        self.work.tasks.iter().any(|task| self.has_begun(task.index))
    }

    fn has_begun(&self, task: u32) -> bool {
        let begun =
            |record: &JournalRecord| matches!(&record.record, Some(Record::Intent(intent)) if intent.task == task);
        self.records.iter().any(begun) && !self.ended().any(|report| report.task == task)
    }

    /// Its tasks do not wait for each other, and nothing follows a failure.
    pub(crate) fn is_free(&self) -> bool {
        self.work.tasks.iter().any(|task| task.together != 0)
    }

    pub(crate) fn leaves_out(&self, task: u32) -> bool {
        self.work.tasks.iter().any(|own| own.index == task && !own.left_out.is_empty())
    }

    /// A task was cancelled: what is still done is there for that.
    pub(crate) fn is_ending(&self) -> bool {
        self.ended().any(|report| report.outcome() == Outcome::Cancelled)
    }

    fn ended(&self) -> impl Iterator<Item = &TaskReport> {
        self.records.iter().filter_map(|record| match &record.record {
            Some(Record::Done(done)) => done.report.as_ref(),
            _ => None,
        })
    }
}
