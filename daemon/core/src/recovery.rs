//! What a journal says about an attempt after something died: whether it still goes on, never began, or how it ended.
//! Knows records and nothing else: not files, not processes, not the clock. Never guesses: what may have run and is not
//! known to have ended is `Interrupted`.

use std::collections::BTreeSet;

use lockstep_apis::v1alpha::{
    JournalReboot, JournalRecord, Outcome, Report, TaskReport, Value, Work, journal_record::Record,
};

/// What becomes of an attempt that this node holds a claim for.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// An executor is at it: wait.
    Working,
    /// No task can have started: an executor may be started, for the same attempt.
    NotStarted,
    /// It is over; this is what to report.
    Ended(Report),
}

/// Judges an attempt by its journal.
///
/// `records` are all that can be read, in order; `boot_id` is of the machine's present boot; `executor_alive` says
/// whether a process holds the folder's lock. It was given `work`. When the answer is `Ended` though no executor said
/// so, the caller has killed what was left of its process group before it asked.
///
/// Only the first record (the claim), the last (the end), and that of a reboot are synced when written. Within one boot
/// every written record survives; after another boot whatever is between them may be missing, and what it claims may be
/// undone. A reboot that was written and has no end was done by the other boot, whoever brought it about; as long as the
/// machine has not gone down it may still come.
pub fn judge(work: &Work, records: &[JournalRecord], boot_id: &str, executor_alive: bool, now_ms: u64) -> Judgement {
    if let Some(report) = finished(records) {
        return Judgement::Ended(report.clone());
    }
    if executor_alive {
        return Judgement::Working;
    }
    let Some(claimed_in) = records.iter().find_map(|record| match &record.record {
        Some(Record::Claim(claim)) => Some(claim.boot_id.as_str()),
        _ => None,
    }) else {
        // The claim is synced before an executor is started.
        return Judgement::NotStarted;
    };
    match (open_reboot(records), claimed_in == boot_id) {
        (Some(reboot), false) => return Judgement::Ended(rebooted(work, records, reboot, now_ms)),
        (Some(reboot), true) if now_ms < reboot.until_ms => return Judgement::Working,
        (None, false) => return Judgement::Ended(interrupted_all(work, now_ms)),
        (_, true) => {}
    }
    if !records.iter().any(|record| matches!(record.record, Some(Record::Intent(_)))) {
        return Judgement::NotStarted;
    }
    Judgement::Ended(interrupted_open(records, now_ms))
}

/// The report of an attempt of which nothing is known but that it was claimed: every task that is not left out may have
/// run.
///
/// For a node that lost the attempt's folder, or whose machine went down in it.
pub fn interrupted_all(work: &Work, now_ms: u64) -> Report {
    let known: BTreeSet<u32> = work.known.iter().map(|report| report.task).collect();
    let done = work.tasks.iter().filter(|task| task.left_out.is_empty());
    let tasks = done.map(|task| task.index).filter(|index| !known.contains(index));
    Report {
        tasks: tasks
            .map(|task| interrupted(task, now_ms, "the machine went down while the task may have run"))
            .collect(),
        started_ms: now_ms,
        finished_ms: now_ms,
        ..Default::default()
    }
}

/// A reboot that was begun and of which no end is written.
fn open_reboot(records: &[JournalRecord]) -> Option<&JournalReboot> {
    let mut open = None;
    for record in records {
        match &record.record {
            Some(Record::Reboot(reboot)) => open = Some(reboot),
            Some(Record::Done(done))
                if done.report.as_ref().map(|report| report.task) == open.map(|open| open.task) =>
            {
                open = None;
            }
            _ => {}
        }
    }
    open
}

/// The machine is back: what was written before the reboot is true, and the reboot is done.
fn rebooted(work: &Work, records: &[JournalRecord], reboot: &JournalReboot, now_ms: u64) -> Report {
    let done = records.iter().filter_map(|record| match &record.record {
        Some(Record::Done(done)) => done.report.clone(),
        _ => None,
    });
    let mut tasks: Vec<TaskReport> = done.collect();
    let is_late = now_ms > reboot.until_ms;
    let (took_ms, may_ms) = (now_ms.saturating_sub(reboot.at_ms), reboot.until_ms.saturating_sub(reboot.at_ms));
    let message = match is_late {
        true => format!("rebooted, and back after {} s; at most {} s are allowed", took_ms / 1000, may_ms / 1000),
        false => format!("rebooted in {} s", took_ms / 1000),
    };
    let flags = [("changed", !is_late), ("failed", is_late), ("skipped", false)];
    let task = work.tasks.iter().find(|task| task.index == reboot.task);
    tasks.push(TaskReport {
        task: reboot.task,
        outcome: if is_late { Outcome::Failed } else { Outcome::Changed }.into(),
        started_ms: reboot.at_ms,
        duration_us: took_ms.saturating_mul(1000),
        message,
        attempts: 1,
        result: task
            .filter(|task| task.keep_result)
            .map(|_| Value::map(flags.map(|(name, flag)| (name, Value::from(flag))))),
        ignored: is_late && task.is_some_and(|task| task.ignore_errors),
        ..Default::default()
    });
    let started_ms = tasks.iter().map(|task| task.started_ms).min().unwrap_or(now_ms);
    Report { tasks, started_ms, finished_ms: now_ms, ..Default::default() }
}

fn finished(records: &[JournalRecord]) -> Option<&Report> {
    records.iter().find_map(|record| match &record.record {
        Some(Record::Finished(finished)) => finished.report.as_ref(),
        _ => None,
    })
}

/// The machine stayed up: what is written is true, and an intent without an end was cut.
fn interrupted_open(records: &[JournalRecord], now_ms: u64) -> Report {
    let mut report = Report { finished_ms: now_ms, ..Default::default() };
    let mut open: Vec<(u32, u64)> = Vec::new();
    for record in records {
        match &record.record {
            // A loop writes one for each item.
            Some(Record::Intent(intent)) if open.iter().any(|(task, _)| *task == intent.task) => {}
            Some(Record::Intent(intent)) => open.push((intent.task, intent.at_ms)),
            Some(Record::Done(done)) => {
                let Some(task) = &done.report else { continue };
                open.retain(|(index, _)| *index != task.task);
                report.tasks.push(task.clone());
            }
            Some(Record::Claim(_) | Record::Finished(_) | Record::Reboot(_)) | None => {}
        }
    }
    report
        .tasks
        .extend(open.iter().map(|(task, at_ms)| interrupted(*task, *at_ms, "its executor died during the task")));
    report.started_ms = report.tasks.iter().map(|task| task.started_ms).min().unwrap_or(now_ms);
    report
}

fn interrupted(task: u32, started_ms: u64, message: &str) -> TaskReport {
    TaskReport {
        task,
        outcome: Outcome::Interrupted.into(),
        started_ms,
        message: message.to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::{CompiledTask, JournalClaim, JournalDone, JournalFinished, JournalIntent};

    fn work() -> Work {
        let task = |index| CompiledTask { index, ..Default::default() };
        Work { tasks: vec![task(4), task(5)], ..Default::default() }
    }

    fn claim(boot: &str) -> JournalRecord {
        JournalRecord { record: Some(Record::Claim(JournalClaim { boot_id: boot.into(), ..Default::default() })) }
    }

    fn intent(task: u32) -> JournalRecord {
        JournalRecord { record: Some(Record::Intent(JournalIntent { task, at_ms: 7 })) }
    }

    fn done(task: u32) -> JournalRecord {
        let report = TaskReport { task, outcome: Outcome::Changed.into(), ..Default::default() };
        JournalRecord { record: Some(Record::Done(JournalDone { report: Some(report) })) }
    }

    fn ends(judgement: Judgement) -> Vec<(u32, Outcome)> {
        match judgement {
            Judgement::Ended(report) => report.tasks.iter().map(|task| (task.task, task.outcome())).collect(),
            other => panic!("not ended: {other:?}"),
        }
    }

    #[test]
    fn a_claim_without_an_intent_in_the_same_boot_never_started() {
        assert_eq!(judge(&work(), &[claim("b")], "b", false, 9), Judgement::NotStarted);
        assert_eq!(judge(&work(), &[], "b", false, 9), Judgement::NotStarted);
    }

    #[test]
    fn an_intent_without_an_end_is_interrupted_and_the_rest_is_left_out() {
        assert_eq!(ends(judge(&work(), &[claim("b"), intent(4)], "b", false, 9)), [(4, Outcome::Interrupted)]);
        let records = [claim("b"), intent(4), done(4), intent(5)];
        let ends = ends(judge(&work(), &records, "b", false, 9));
        assert_eq!(ends, [(4, Outcome::Changed), (5, Outcome::Interrupted)]);
    }

    #[test]
    fn tasks_that_were_at_work_beside_each_other_are_each_interrupted() {
        let records = [claim("b"), intent(5), intent(4), done(5)];
        let ends = |records: &[JournalRecord]| ends(judge(&work(), records, "b", false, 9));
        assert_eq!(ends(&records), [(5, Outcome::Changed), (4, Outcome::Interrupted)]);
        assert_eq!(ends(&records[..3]), [(5, Outcome::Interrupted), (4, Outcome::Interrupted)]);
    }

    #[test]
    fn what_a_run_leaves_out_is_never_interrupted() {
        let mut work = work();
        work.tasks[0].left_out = "left out".into();
        assert_eq!(ends(judge(&work, &[claim("b")], "c", false, 9)), [(5, Outcome::Interrupted)]);
    }

    #[test]
    fn a_loop_that_was_cut_is_interrupted_once() {
        let records = [claim("b"), intent(4), intent(4), intent(4)];
        assert_eq!(ends(judge(&work(), &records, "b", false, 9)), [(4, Outcome::Interrupted)]);
    }

    #[test]
    fn after_another_boot_every_task_may_have_run() {
        for records in [vec![claim("b")], vec![claim("b"), intent(4), done(4)]] {
            let ends = ends(judge(&work(), &records, "c", false, 9));
            assert_eq!(ends, [(4, Outcome::Interrupted), (5, Outcome::Interrupted)]);
        }
    }

    #[test]
    fn what_an_earlier_attempt_ended_is_not_interrupted_by_this_one() {
        let known = vec![TaskReport { task: 4, outcome: Outcome::Ok.into(), ..Default::default() }];
        let work = Work { known, ..work() };
        assert_eq!(ends(judge(&work, &[claim("b")], "c", false, 9)), [(5, Outcome::Interrupted)]);
    }

    fn reboot(task: u32) -> JournalRecord {
        JournalRecord { record: Some(Record::Reboot(JournalReboot { task, at_ms: 10, until_ms: 100 })) }
    }

    #[test]
    fn a_reboot_is_done_by_the_next_boot_and_by_no_other_sign() {
        let records = [claim("b"), intent(4), done(4), intent(5), reboot(5)];
        let after = |boot, now_ms| judge(&work(), &records, boot, false, now_ms);
        assert_eq!(after("b", 99), Judgement::Working, "the machine may still go down");
        assert_eq!(ends(after("b", 100)), [(4, Outcome::Changed), (5, Outcome::Interrupted)]);
        assert_eq!(ends(after("c", 100)), [(4, Outcome::Changed), (5, Outcome::Changed)]);
        assert_eq!(ends(after("c", 101)), [(4, Outcome::Changed), (5, Outcome::Failed)], "back too late");
        let before = [claim("b"), intent(4), done(4), intent(5)];
        let ends = ends(judge(&work(), &before, "c", false, 20));
        assert_eq!(
            ends,
            [(4, Outcome::Interrupted), (5, Outcome::Interrupted)],
            "another crash, before it was written"
        );
    }

    #[test]
    fn a_reboot_that_failed_is_not_done_by_a_later_boot() {
        let records = [claim("b"), intent(5), reboot(5), done(5)];
        let interrupted = [(4, Outcome::Interrupted), (5, Outcome::Interrupted)];
        assert_eq!(ends(judge(&work(), &records, "c", false, 20)), interrupted);
        assert_eq!(ends(judge(&work(), &records, "b", false, 20)), [(5, Outcome::Changed)]);
    }

    #[test]
    fn a_written_end_counts_whatever_happened_since() {
        let report = Report { finished_ms: 3, ..Default::default() };
        let finished = JournalFinished { report: Some(report.clone()) };
        let end = JournalRecord { record: Some(Record::Finished(finished)) };
        let records = [claim("b"), intent(4), done(4), end];
        assert_eq!(judge(&work(), &records, "c", false, 9), Judgement::Ended(report));
    }

    #[test]
    fn a_living_executor_is_waited_for() {
        assert_eq!(judge(&work(), &[claim("b"), intent(4)], "b", true, 9), Judgement::Working);
    }
}
