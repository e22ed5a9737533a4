//! The executor's process: body of `lockstepd execute FOLDER`.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use lockstep_apis::v1alpha::{
    AttemptRef, CompiledTask, JournalRecord, NodeEvent, OutputChunk, Report, TaskReport, Work, journal_record::Record,
};
use lockstep_core::course::Course;
use lockstep_modules::{Cancel, Cgroup, Host, Unsynced};
use prost::Message;

use crate::{
    folder::Folder,
    frame, guard,
    journal::{Journal, JournalError},
    leftovers,
    masking::Masker,
    preparing::Preparation,
    raised, results,
    sequence::{Ledger, Segment, now_ms},
    surroundings,
};

/// How the executor is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A folder that stands for the machine's root.
    pub root: Option<PathBuf>,
    /// The control group that this process and all that it starts are in, and nothing else.
    pub cgroup: Option<Cgroup>,
    /// How a guard is started, before the folder's path; empty: this program's own `guard`.
    pub guard: Vec<OsString>,
}

/// How the executor's process ends, with the codes of sysexits.h. What happened to the tasks is in the folder, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The report is in the journal, synced.
    Done = 0,
    /// The folder cannot be used; nothing was begun.
    Unusable = 66,
    /// Another executor is alive in the folder; nothing was begun here.
    Busy = 75,
    /// Tasks were begun by an executor that died; nothing was begun here.
    BegunBefore = 70,
    /// The machine goes down by one of the tasks; the next boot tells how it ended.
    GoingDown = 71,
    /// The journal could not be kept. Nothing was begun after that.
    JournalFailed = 74,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Does the segment whose folder this is. Call it in a process of its own, before any thread is started; it makes itself
/// the leader of a session, so that all it starts can be found after its death.
pub fn execute(path: &std::path::Path, options: &Options) -> Exit {
    let folder = Folder::at(path);
    let lock = match folder.lock() {
        Ok(Some(lock)) => lock,
        Ok(None) => return Exit::Busy,
        Err(error) => return unusable("lock", &error),
    };
    let Some(identity) = leftovers::own_identity() else {
        return unusable("find itself in /proc for", &io::ErrorKind::NotFound);
    };
    if let Some(error) = options.cgroup.as_ref().and_then(|group| folder.write_cgroup(group).err()) {
        return unusable("write", &error);
    }
    if let Err(error) = folder.write_identity(identity) {
        return unusable("write", &error);
    }
    let (journal, records) = match Journal::open(&folder.journal()) {
        Ok(opened) => opened,
        Err(error) => return unusable("open the journal of", &error),
    };
    if records.iter().any(|record| matches!(record.record, Some(Record::Finished(_)))) {
        return Exit::Done;
    }
    if records.iter().any(|record| matches!(record.record, Some(Record::Intent(_)))) {
        return Exit::BegunBefore;
    }
    let exit = match run(&folder, options, journal, &records) {
        Ok(()) => Exit::Done,
        Err(JournalError::GoingDown) => Exit::GoingDown,
        Err(error) => {
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                text = format!("{text}: {source}");
            }
            eprintln!("{}: {text}", path.display());
            // On a full disk this fails too; the exit code says it then.
            let _ = fs::write(folder.failure(), text);
            Exit::JournalFailed
        }
    };
    drop(lock);
    exit
}

fn unusable(verb: &str, error: &dyn std::fmt::Display) -> Exit {
    eprintln!("cannot {verb} the segment's folder: {error}");
    Exit::Unusable
}

fn run(folder: &Folder, options: &Options, journal: Journal, records: &[JournalRecord]) -> Result<(), JournalError> {
    let started_ms = now_ms();
    let mut notes = Notes { journal, output: Output::new(folder), folder, attempt: AttemptRef::default(), raised: 0 };
    let mut report = match guarded(folder, options, &mut notes, records) {
        Ok((tasks, mut unsynced)) => {
            let synced = unsynced.sync().map_err(|error| error.to_string());
            Report { tasks, error: synced.err().unwrap_or_default(), ..Report::default() }
        }
        Err(Failure::Journal(error)) => return Err(error),
        Err(Failure::Segment(error)) => Report { error, ..Report::default() },
    };
    report.started_ms = started_ms;
    report.finished_ms = now_ms();
    notes.journal.finished(report)?;
    notes.journal.sync()
}

/// Why a segment ends outside its tasks.
enum Failure {
    Journal(JournalError),
    Segment(String),
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Failure::Journal(error)
    }
}

fn segment_error(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Segment(format!("{what}: {error}"))
}

/// Does the tasks, under a guard if the work asks for one.
fn guarded(
    folder: &Folder,
    options: &Options,
    notes: &mut Notes<'_>,
    records: &[JournalRecord],
) -> Result<(Vec<TaskReport>, Unsynced), Failure> {
    let work = folder.read_work().map_err(|error| segment_error("the work cannot be read", &error))?;
    notes.attempt = attempt_of(&work);
    if work.fence_ms == 0 {
        return tasks(folder, &work, options, notes, records);
    }
    let guard = guard::start(folder.path(), &options.guard)
        .map_err(|error| segment_error("the guard of `onNodeLost: AfterFence` does not start", &error))?;
    let done = tasks(folder, &work, options, notes, records);
    guard.end();
    done
}

fn tasks(
    folder: &Folder,
    work: &Work,
    options: &Options,
    notes: &mut Notes<'_>,
    records: &[JournalRecord],
) -> Result<(Vec<TaskReport>, Unsynced), Failure> {
    let mut host = Host::open(options.root.as_deref()).map_err(|error| segment_error("the root folder", &error))?;
    if let Some(group) = &options.cgroup {
        host.track(group).map_err(|error| segment_error("the control group", &error))?;
    }
    let cancel = Cancel::new().map_err(|error| segment_error("the cancel switch", &error))?;
    let (host, cancel) = (Arc::new(host), Arc::new(cancel));
    watch(folder, &cancel).map_err(|error| segment_error("the watch for a cancel", &error))?;

    let before = already_done(records);
    let known: Vec<TaskReport> = work.known.iter().chain(&before).cloned().collect();
    let prepared = Preparation::of(&work.tasks);
    let mut course = Course::new(&work.tasks, &work.blocks, &work.left_blocks).owing(&work.owed);
    let mut segment = Segment {
        host: &host,
        cancel: &cancel,
        grace: Duration::from_millis(work.grace_ms),
        output_limit: work.output_limit_bytes,
        check: work.check,
        diff: work.diff,
        unsettled: work.unsettled,
        context: surroundings::context(work, &host, &prepared),
        masker: masker(work),
        fence_token: work.fence_token,
        unsynced: Unsynced::new(),
        results_left: results::MAX_RESULTS_BYTES,
        ending: None,
    };
    for report in &known {
        let task = work.tasks.iter().find(|task| task.index == report.task);
        if let (Some(task), Some(result)) = (task, &report.result) {
            if task.secret {
                segment.masker.add_value(result);
            }
            segment.learn(task, result.clone());
        }
        if let Some(task) = task {
            segment.settle(task, report);
        }
    }
    work.unknown.iter().for_each(|id| segment.context.mark_unknown(id));
    let mut reports = before;
    reports.extend(segment.run(&prepared.tasks, &mut course, &known, notes)?);
    Ok((reports, segment.unsynced))
}

/// Tasks that ended without having been begun (skipped, not rendered) under an executor that died then.
fn already_done(records: &[JournalRecord]) -> Vec<TaskReport> {
    let done = records.iter().filter_map(|record| match &record.record {
        Some(Record::Done(done)) => done.report.clone(),
        _ => None,
    });
    done.collect()
}

fn attempt_of(work: &Work) -> AttemptRef {
    AttemptRef {
        run_uid: work.run_uid.clone(),
        segment: work.segment,
        for_uid: work.for_uid.clone(),
        node_uid: work.node_uid.clone(),
        attempt: work.attempt,
    }
}

fn masker(work: &Work) -> Masker {
    let mut masker = Masker::new();
    let shared = work.secret_shared.iter().filter_map(|id| work.shared.get(id));
    let results = work.secret_results.iter().filter_map(|id| work.results.get(id));
    for secret in shared.chain(results) {
        masker.add_value(secret);
    }
    masker
}

/// Throws the switch when SIGTERM comes. [`super::cancel`] leaves its mark first: one that came before there was a handler
/// is seen here. Not inotify: to close one takes the kernel 15 ms and more, at the end of every segment.
fn watch(folder: &Folder, cancel: &Arc<Cancel>) -> io::Result<()> {
    let (mut signalled, from_signal) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, from_signal)?;
    let (mark, cancel) = (folder.cancel(), Arc::clone(cancel));
    thread::Builder::new().name("cancel".to_owned()).stack_size(64 * 1024).spawn(move || {
        if !mark.exists() {
            // An error would be the pair's end, which only the process's end is.
            let _ = signalled.read(&mut [0u8; 1]);
        }
        cancel.throw();
    })?;
    Ok(())
}

/// Journal and output of the folder.
struct Notes<'f> {
    journal: Journal,
    output: Output,
    folder: &'f Folder,
    attempt: AttemptRef,
    /// How many Events were raised.
    raised: u32,
}

impl Ledger for Notes<'_> {
    fn intent(&mut self, task: &CompiledTask, at_ms: u64) -> Result<(), JournalError> {
        self.journal.intent(task.index, at_ms)
    }

    fn output(&mut self, _task: &CompiledTask, chunk: OutputChunk) {
        self.output.append(chunk);
    }

    fn done(&mut self, _task: &CompiledTask, report: &TaskReport) -> Result<(), JournalError> {
        self.journal.done(report.clone())
    }

    fn going_down(&mut self, task: &CompiledTask, until_ms: u64) -> Result<(), JournalError> {
        self.journal.reboot(task.index, now_ms(), until_ms)?;
        self.journal.sync()
    }

    fn raise(&mut self, event: NodeEvent) -> Result<bool, String> {
        if self.raised >= raised::MAX_EVENTS {
            return Err(format!("one segment raises at most {} Events on a node", raised::MAX_EVENTS));
        }
        let event = NodeEvent { attempt: Some(self.attempt.clone()), ..event };
        raised::keep(self.folder, self.raised, &event).map_err(|error| format!("the Event cannot be kept: {error}"))?;
        self.raised += 1;
        Ok(true)
    }

    fn is_cancelled(&mut self) -> bool {
        self.folder.cancel().exists()
    }
}

/// The output file, made when something is printed.
struct Output {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    /// Bytes that could not be written; told with the next chunk that can.
    lost: u64,
    buffer: Vec<u8>,
}

impl Output {
    fn new(folder: &Folder) -> Self {
        Self { path: folder.output(), file: None, length: 0, lost: 0, buffer: Vec::new() }
    }

    fn append(&mut self, mut chunk: OutputChunk) {
        let bytes = chunk.data.len() as u64;
        chunk.dropped += self.lost;
        self.buffer.clear();
        frame::push(&mut self.buffer, |buffer| chunk.encode_raw(buffer));
        match self.write() {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost = chunk.dropped + bytes,
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                self.length = file.metadata()?.len();
                none.insert(file)
            }
        };
        match file.write_all(&self.buffer) {
            Ok(()) => {
                self.length += self.buffer.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part of the frame may be there: cut, or a reader would stop at it for good.
                file.set_len(self.length)?;
                Err(error)
            }
        }
    }
}
