//! The journal of one attempt: what was begun and what was done, so that a task is never started twice by guessing.
//! Knows framing and when to sync; it judges nothing: that is `lockstep_core::recovery`.
//!
//! Guarantees: a record whose append returned `Ok` survives the death of any process; one followed by [`Journal::sync`]
//! survives a power cut. After an error nothing more is ever written: what is on disk is then unknown.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use lockstep_apis::v1alpha::{
    JournalClaim, JournalDone, JournalFinished, JournalIntent, JournalReboot, JournalRecord, Report, TaskReport,
    journal_record::Record,
};
use prost::Message;

use crate::frame;

/// Most bytes of a journal that are read: 10,000 tasks with their results stay far below.
const MAX_JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Why a journal cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The record is not there; the task it announces must not be started.
    #[error("the journal cannot be written")]
    Append {
        /// What the system said; ENOSPC for a full disk.
        #[source]
        source: io::Error,
    },
    /// What reached the disk is unknown, and another sync would not tell: the segment ends here.
    #[error("the journal cannot be synced")]
    Sync {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An earlier append or sync failed.
    #[error("the journal failed before")]
    Failed,
    /// The machine goes down by a task of this segment: the next boot goes on from what is written.
    #[error("the machine goes down")]
    GoingDown,
    /// It cannot be opened or read.
    #[error("the journal cannot be read")]
    Read {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An open journal, positioned behind its last whole record.
#[derive(Debug)]
pub struct Journal {
    file: File,
    length: u64,
    buffer: Vec<u8>,
    failed: bool,
}

impl Journal {
    /// Makes a new journal that holds the claim. Not yet synced.
    pub fn create(path: &Path, claim: JournalClaim) -> Result<Self, JournalError> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| JournalError::Append { source })?;
        let mut journal = Self { file, length: 0, buffer: Vec::with_capacity(512), failed: false };
        journal.append(Record::Claim(claim))?;
        Ok(journal)
    }

    /// Opens a journal to go on behind its last whole record; a torn tail is cut off.
    pub fn open(path: &Path) -> Result<(Self, Vec<JournalRecord>), JournalError> {
        let (records, length, torn) = read(path)?;
        let file = OpenOptions::new().append(true).open(path).map_err(|source| JournalError::Append { source })?;
        if torn {
            file.set_len(length).map_err(|source| JournalError::Append { source })?;
        }
        Ok((Self { file, length, buffer: Vec::with_capacity(512), failed: false }, records))
    }

    /// Notes that the task is about to be started. Only after `Ok` may it be.
    pub fn intent(&mut self, task: u32, at_ms: u64) -> Result<(), JournalError> {
        self.append(Record::Intent(JournalIntent { task, at_ms }))
    }

    /// Notes how the task ended.
    pub fn done(&mut self, report: TaskReport) -> Result<(), JournalError> {
        self.append(Record::Done(JournalDone { report: Some(report) }))
    }

    /// Notes that the task reboots the machine now. The caller syncs, and only then does it.
    pub fn reboot(&mut self, task: u32, at_ms: u64, until_ms: u64) -> Result<(), JournalError> {
        self.append(Record::Reboot(JournalReboot { task, at_ms, until_ms }))
    }

    /// Notes that the segment is over. The caller syncs.
    pub fn finished(&mut self, report: Report) -> Result<(), JournalError> {
        self.append(Record::Finished(JournalFinished { report: Some(report) }))
    }

    /// Brings all that was appended to the disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        self.file.sync_data().map_err(|source| {
            self.failed = true;
            JournalError::Sync { source }
        })
    }

    fn append(&mut self, record: Record) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        self.buffer.clear();
        let record = JournalRecord { record: Some(record) };
        frame::push(&mut self.buffer, |buffer| record.encode_raw(buffer));
        match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.length += self.buffer.len() as u64;
                Ok(())
            }
            Err(source) => {
                // A part of the record may be there; a reader stops at it, and nothing may follow it.
                self.failed = true;
                let _ = self.file.set_len(self.length);
                Err(JournalError::Append { source })
            }
        }
    }
}

/// The whole records of a journal, the length they take, and whether a torn tail follows.
pub fn read(path: &Path) -> Result<(Vec<JournalRecord>, u64, bool), JournalError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| JournalError::Read { source })?;
    file.take(MAX_JOURNAL_BYTES).read_to_end(&mut bytes).map_err(|source| JournalError::Read { source })?;
    let mut frames = frame::Records::new(&bytes);
    let mut records = Vec::new();
    let mut length = 0;
    for frame in frames.by_ref() {
        // Bytes with a good checksum that are no record were written by a newer version: what follows means nothing.
        let Ok(record) = JournalRecord::decode(frame) else { break };
        length += (frame::HEADER_BYTES + frame.len()) as u64;
        records.push(record);
    }
    Ok((records, length, length < bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use lockstep_apis::v1alpha::Outcome;

    use super::*;

    fn claim() -> JournalClaim {
        JournalClaim { run_uid: "r".into(), boot_id: "b".into(), attempt: 1, ..Default::default() }
    }

    fn done(task: u32) -> TaskReport {
        TaskReport { task, outcome: Outcome::Changed as i32, ..Default::default() }
    }

    #[test]
    fn journal_reads_back_what_was_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, claim()).unwrap();
        journal.intent(0, 5).unwrap();
        journal.done(done(0)).unwrap();
        journal.finished(Report { tasks: vec![done(0)], ..Default::default() }).unwrap();
        journal.sync().unwrap();
        let (records, _, torn) = read(&path).unwrap();
        assert_eq!(records.len(), 4);
        assert!(!torn);
        assert!(matches!(&records[2].record, Some(Record::Done(d)) if d.report == Some(done(0))));
    }

    #[test]
    fn torn_tail_is_cut_before_the_next_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, claim()).unwrap();
        journal.intent(0, 5).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        journal.done(done(0)).unwrap();
        drop(journal);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(whole + 3).unwrap();

        let (mut journal, records) = Journal::open(&path).unwrap();
        assert_eq!(records.len(), 2);
        journal.done(done(7)).unwrap();
        let (records, _, torn) = read(&path).unwrap();
        assert!(!torn);
        assert!(matches!(&records[2].record, Some(Record::Done(d)) if d.report == Some(done(7))));
    }

    #[test]
    fn full_disk_refuses_the_intent_and_every_record_after_it() {
        // /dev/full answers every write with ENOSPC.
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut journal = Journal { file, length: 0, buffer: Vec::new(), failed: false };
        let Err(JournalError::Append { source }) = journal.intent(0, 1) else { panic!("the intent was taken") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert!(matches!(journal.done(done(0)), Err(JournalError::Failed)));
        assert!(matches!(journal.sync(), Err(JournalError::Failed)));
    }

    #[test]
    fn failed_sync_is_never_tried_again() {
        // A pipe cannot be synced: EINVAL, as a disk's EIO would be.
        let (_read, write) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(write));
        let mut journal = Journal { file, length: 0, buffer: Vec::new(), failed: false };
        assert!(matches!(journal.sync(), Err(JournalError::Sync { .. })));
        assert!(matches!(journal.sync(), Err(JournalError::Failed)));
        assert!(matches!(journal.intent(0, 1), Err(JournalError::Failed)));
    }

    #[test]
    fn second_claim_of_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        Journal::create(&path, claim()).unwrap();
        assert!(Journal::create(&path, claim()).is_err());
    }
}
