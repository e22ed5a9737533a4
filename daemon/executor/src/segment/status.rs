//! Where an attempt is, told from its folder alone.

use std::{fs, path::Path};

use lockstep_apis::v1alpha::{JournalRecord, Outcome, Report, Work, journal_record::Record};
use lockstep_core::recovery::{self, Judgement};

use super::SegmentError;
use crate::{folder::Folder, journal, leftovers, sequence::now_ms};

/// Where an attempt is.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// An executor is at it, or what it left behind is still going down: ask again.
    Working,
    /// No task was ever begun: [`super::execute`] may be started.
    NotStarted,
    /// It is over; this is its report.
    Ended(Report),
}

/// Tells where the attempt is. `boot_id` is of the machine's present boot.
///
/// If its executor died, every process of its control group and of its session is killed first, so that what is reported `Interrupted` does not
/// go on.
///
/// # Errors
/// The folder cannot be read. Nothing is known then; it is not to be executed.
pub fn status(path: &Path, boot_id: &str) -> Result<Status, SegmentError> {
    let folder = Folder::at(path);
    if folder.is_locked().map_err(SegmentError::file("look at the lock of", path))? {
        return Ok(Status::Working);
    }
    let (records, _, _) = journal::read(&folder.journal()).map_err(SegmentError::journal(path))?;
    let work = match folder.read_work() {
        Ok(work) => work,
        // Only a crash of the machine cuts it: the folder appears after both were written, in the same boot.
        Err(error) => return Ok(without_work(&records, &error.to_string())),
    };
    if !is_finished(&records) && !leftovers_are_gone(&folder, &records, boot_id) {
        return Ok(Status::Working);
    }
    if !records.iter().any(|record| matches!(record.record, Some(Record::Claim(_)))) {
        // It was synced before the folder had its name: the disk lost it, so what ran is not known.
        return Ok(Status::Ended(recovery::interrupted_all(&work, now_ms())));
    }
    let status = with_failure(judged(&work, &records, boot_id), &folder);
    Ok(if folder.fenced().exists() { fenced(status, work.fence_ms) } else { status })
}

/// The guard killed it: what was cut says why, and what was not begun is not begun any more.
fn fenced(status: Status, fence_ms: u64) -> Status {
    let mut report = match status {
        Status::Working => return Status::Working,
        Status::NotStarted => Report { started_ms: now_ms(), finished_ms: now_ms(), ..Report::default() },
        Status::Ended(report) => report,
    };
    let why = format!("killed by its fence: no server was heard for {} s", fence_ms / 1000);
    let cut = report.tasks.iter_mut().filter(|task| task.outcome() == Outcome::Interrupted);
    cut.for_each(|task| task.message.clone_from(&why));
    Status::Ended(report)
}

fn is_finished(records: &[JournalRecord]) -> bool {
    records.iter().any(|record| matches!(record.record, Some(Record::Finished(_))))
}

/// Processes do not outlive the boot that the claim names.
fn leftovers_are_gone(folder: &Folder, records: &[JournalRecord], boot_id: &str) -> bool {
    let same_boot =
        records.iter().any(|record| matches!(&record.record, Some(Record::Claim(c)) if c.boot_id == boot_id));
    if !same_boot {
        return true;
    }
    let session_is_gone = folder.identity().is_none_or(leftovers::kill);
    session_is_gone && folder.cgroup().is_none_or(|group| group.kill())
}

fn judged(work: &Work, records: &[JournalRecord], boot_id: &str) -> Status {
    match recovery::judge(work, records, boot_id, false, now_ms()) {
        Judgement::Working => Status::Working,
        Judgement::NotStarted => Status::NotStarted,
        Judgement::Ended(report) => Status::Ended(report),
    }
}

/// An executor that could not keep its journal said why beside it: the attempt is over, and not to be begun again.
fn with_failure(status: Status, folder: &Folder) -> Status {
    let Ok(error) = fs::read_to_string(folder.failure()) else { return status };
    let now_ms = now_ms();
    Status::Ended(match status {
        Status::Ended(report) => Report { error, ..report },
        _ => Report { error, started_ms: now_ms, finished_ms: now_ms, ..Report::default() },
    })
}

fn without_work(records: &[JournalRecord], error: &str) -> Status {
    let finished = records.iter().find_map(|record| match &record.record {
        Some(Record::Finished(finished)) => finished.report.clone(),
        _ => None,
    });
    let now_ms = now_ms();
    Status::Ended(finished.unwrap_or_else(|| Report {
        error: format!("the work of the segment cannot be read: {error}"),
        started_ms: now_ms,
        finished_ms: now_ms,
        ..Report::default()
    }))
}
