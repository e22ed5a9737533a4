//! A book's tasks on this machine alone: `lockstep run --local`. Same compiler, same tasks, same results as in a cluster;
//! no daemon, no store, no journal. Nothing is synced at the end: there is no report that could claim too much.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use lockstep_apis::v1alpha::{
    CompiledBlock, CompiledTask, Metadata, Node, NodeEvent, Outcome, OutputChunk, Run, RunSpec, Segment as Part,
    Snapshot, Targets, Task, TaskBook, TaskReport, Value, Violation, Work,
};
use lockstep_core::{
    Library,
    compile::{self, Admission, AdmissionNode, Rejection},
    course::Course,
    parameters::BookTexts,
};
use lockstep_modules::{Cancel, Host, HostError, Unsynced};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    journal::JournalError,
    masking::Masker,
    preparing::Preparation,
    sequence::{Ledger, Segment, now_ms},
    surroundings,
};

/// What to do, and where.
#[derive(Clone, Debug, Default)]
pub struct LocalRun {
    /// The book, validated.
    pub book: TaskBook,
    /// Books that it may include.
    pub library: Vec<TaskBook>,
    /// The texts of its tasks, if they are parsed already.
    pub texts: Option<BookTexts>,
    /// Values of its inputs.
    pub inputs: BTreeMap<String, Value>,
    /// Variables that win over the book's.
    pub set: BTreeMap<String, Value>,
    /// Only tasks with one of these tags, if there are any.
    pub tags: Vec<String>,
    /// No tasks with one of these.
    pub skip_tags: Vec<String>,
    /// A folder that stands for the machine's root.
    pub root: Option<PathBuf>,
    /// Change nothing, say what would change.
    pub check: bool,
    /// Give diffs, as output of the stream `DIFF`.
    pub diff: bool,
}

/// What happens meanwhile, in order.
#[derive(Clone, Copy, Debug)]
pub enum LocalEvent<'e> {
    /// The task's action begins. Tasks that are skipped have no such event.
    Started(&'e CompiledTask),
    /// A piece of what it prints.
    Output(&'e CompiledTask, &'e OutputChunk),
    /// The task has ended.
    Ended(&'e CompiledTask, &'e TaskReport),
}

/// How it all ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalOutcome {
    /// Of the tasks that were reached, in order.
    pub tasks: Vec<TaskReport>,
    /// Tasks that were not reached after the book failed.
    pub not_reached: usize,
    /// No task failed or was cancelled, or what failed was rescued.
    pub succeeded: bool,
}

impl LocalOutcome {
    /// How many tasks ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.tasks.iter().filter(|report| report.outcome() == outcome).count()
    }

    /// How many tasks failed, and were ignored.
    pub fn ignored(&self) -> usize {
        self.tasks.iter().filter(|report| report.ignored).count()
    }
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The book cannot be run, or not on one machine alone.
    #[error("{message}")]
    Refused {
        /// One CamelCase word.
        reason: String,
        /// A sentence.
        message: String,
        /// Each thing that is wrong, with its field.
        violations: Vec<Violation>,
    },
    /// The root folder cannot be used.
    #[error("the root folder cannot be used")]
    Root {
        /// What the system said.
        #[source]
        source: HostError,
    },
    /// Signals cannot be watched.
    #[error("signals cannot be watched")]
    Signals {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A switch that SIGINT and SIGTERM throw: the running task is ended as a cancelled one is.
///
/// Commands are in process groups of their own, so Ctrl-C reaches nobody else.
pub fn cancelled_by_signals() -> io::Result<Arc<Cancel>> {
    let cancel = Arc::new(Cancel::new()?);
    let (signalled, from_signal) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::low_level::pipe::register(signal, from_signal.try_clone()?)?;
    }
    let switch = Arc::clone(&cancel);
    thread::Builder::new().name("cancel".to_owned()).stack_size(64 * 1024).spawn(move || {
        let fd = signalled.as_fd();
        while poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).is_err() {}
        switch.throw();
    })?;
    Ok(cancel)
}

/// Does the book's tasks here and now. `cancel` ends it early; `events` is told what happens as it happens.
pub fn run(
    run: &LocalRun,
    cancel: &Cancel,
    events: &mut dyn FnMut(LocalEvent<'_>),
) -> Result<LocalOutcome, LocalError> {
    refuse_other_nodes(&run.book)?;
    let host = Host::open(run.root.as_deref()).map_err(|source| LocalError::Root { source })?;
    let host = Arc::new(host);
    let library = Library::whole(&run.library);
    let texts = run.texts.clone().filter(|texts| texts.fits(&run.book, &library));
    let texts = texts.unwrap_or_else(|| BookTexts::of_book(&run.book, &library));
    let snapshot = snapshot(run, &library, &texts)?;
    let grace = Duration::from_millis(snapshot.grace_ms);
    let mut work = work(snapshot);
    let variables = std::mem::take(&mut work.variables);
    let prepared = Preparation::of_parsed(&work.tasks, &texts);
    let mut segment = Segment {
        host: &host,
        cancel,
        grace,
        output_limit: u64::MAX,
        check: run.check,
        diff: run.diff,
        unsettled: false,
        context: surroundings::context(&work, &host, &prepared)
            .with_nodes([(&work.node_name[..], &work.node_labels)])
            .alone(&work.node_name)
            .with_own_variables(variables),
        masker: Masker::new(),
        unsynced: Unsynced::new(),
        // Nothing is sent anywhere: results cost only this process's memory.
        results_left: usize::MAX,
        ending: None,
        fence_token: 0,
    };
    let mut ledger = Events(events);
    let mut course = Course::new(&work.tasks, &work.blocks, &[]);
    let tasks = segment
        .run(&prepared.tasks, &mut course, &[], &mut ledger)
        .expect("invariant: without a journal nothing can fail to be noted");
    let succeeded = course.fall().is_none();
    let not_reached = if succeeded { 0 } else { not_reached(&work.tasks, &tasks) };
    Ok(LocalOutcome { tasks, not_reached, succeeded })
}

/// Tasks behind the last one that ended, and those that are together with it and have no end.
fn not_reached(tasks: &[CompiledTask], reports: &[TaskReport]) -> usize {
    let ended: BTreeSet<u32> = reports.iter().map(|report| report.task).collect();
    let last = tasks.iter().rposition(|task| ended.contains(&task.index));
    let is_left =
        |(at, task): &(usize, &CompiledTask)| Some(*at) > last || (task.together != 0 && !ended.contains(&task.index));
    tasks.iter().enumerate().filter(is_left).filter(|(_, task)| !task.handler).count()
}

/// What only other nodes could do, or only a cluster could decide.
fn refuse_other_nodes(book: &TaskBook) -> Result<(), LocalError> {
    let mut violations = Vec::new();
    elsewhere("spec.tasks", book.spec.as_ref().map_or(&[], |spec| &spec.tasks), &mut violations);
    if violations.is_empty() {
        return Ok(());
    }
    Err(LocalError::Refused {
        reason: "NeedsCluster".to_owned(),
        message: "the book has tasks that only a cluster can place".to_owned(),
        violations,
    })
}

fn elsewhere(list: &str, tasks: &[Task], violations: &mut Vec<Violation>) {
    for (index, task) in tasks.iter().enumerate() {
        let field = || format!("{list}[{index}]");
        if task.targets.as_ref().is_some_and(|targets| !targets.all || targets.exclude.is_some()) {
            violations.push(Violation {
                reason: "NeedsCluster".to_owned(),
                field: format!("{}.targets", field()),
                message: "picks among nodes, and a local run knows this machine only: run the book in a cluster, or \
                          leave the task's targets out"
                    .to_owned(),
                ..Violation::default()
            });
        }
        if compile::reboots(&task.action) {
            violations.push(Violation {
                reason: "NeedsCluster".to_owned(),
                field: format!("{}.{}", field(), task.action),
                message: "reboots the machine, and nobody would go on after it: run the book in a cluster".to_owned(),
                ..Violation::default()
            });
        }
        if task.delegate_to.is_some() {
            violations.push(Violation {
                reason: "NeedsCluster".to_owned(),
                field: format!("{}.delegateTo", field()),
                message: "is done by another node, and a local run knows this machine only: run the book in a cluster"
                    .to_owned(),
                ..Violation::default()
            });
        }
        let parts = [("block", &task.block), ("rescue", &task.rescue), ("always", &task.always)];
        for (word, inner) in parts.into_iter().filter(|(_, inner)| !inner.is_empty()) {
            elsewhere(&format!("{}.{word}", field()), inner, violations);
        }
    }
}

/// The book, compiled for one node: this machine. Its own targets say where it goes in a cluster, and do not count here.
fn snapshot(local: &LocalRun, library: &Library<'_>, texts: &BookTexts) -> Result<Snapshot, LocalError> {
    let metadata = |name: String| Some(Metadata { name, uuid: "local".to_owned(), ..Metadata::default() });
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = Node { metadata: metadata(host), ..Node::default() };
    let book_name = local.book.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let spec = RunSpec {
        task_books: vec![book_name.clone()],
        targets: Some(Targets { all: true, ..Targets::default() }),
        inputs: local.inputs.clone(),
        set: local.set.clone(),
        tags: local.tags.clone(),
        skip_tags: local.skip_tags.clone(),
        ..RunSpec::default()
    };
    let run = Run { metadata: metadata(book_name), spec: Some(spec), status: None };
    let refused = |Rejection { reason, message, violations }| LocalError::Refused {
        reason: reason.to_owned(),
        message,
        violations,
    };
    let admission = Admission {
        run: &run,
        book: Some(&local.book),
        library,
        nodes: &[AdmissionNode { node: &node, up: true }],
        groups: &[],
        picks: &BTreeMap::new(),
        config: None,
        variables: Default::default(),
        now_ms: now_ms(),
        retry: None,
    };
    compile::compile_parsed(&admission, texts).map_err(refused)
}

/// All segments, one after another: what separates them are other nodes.
fn work(snapshot: Snapshot) -> Work {
    let Snapshot { run_uid, run_name, namespace, nodes, segments, inputs, scopes, variables, grace_ms, .. } = snapshot;
    let node = nodes.into_iter().next().unwrap_or_default();
    let blocks: BTreeMap<u32, CompiledBlock> = segments.iter().flat_map(|segment| &segment.blocks).map(whole).collect();
    Work {
        run_uid,
        run_name,
        namespace,
        nodes: vec![node.clone()],
        node_uid: node.uid,
        node_name: node.name,
        node_labels: node.labels,
        tasks: once(segments),
        blocks: blocks.into_values().collect(),
        inputs,
        scopes,
        variables,
        grace_ms,
        ..Work::default()
    }
}

/// A block that is not cut.
fn whole(block: &CompiledBlock) -> (u32, CompiledBlock) {
    (block.index, CompiledBlock { begun: false, goes_on: false, ..block.clone() })
}

/// Each task once, where it is written: a block that was cut has what follows a failure in each of its segments, at last
/// in its place.
fn once(segments: Vec<Part>) -> Vec<CompiledTask> {
    let mut seen = BTreeSet::new();
    let tasks = segments.into_iter().rev().flat_map(|segment| segment.tasks.into_iter().rev());
    let mut tasks: Vec<CompiledTask> = tasks.filter(|task| seen.insert(task.index)).collect();
    tasks.reverse();
    tasks
}

/// Tells events in place of noting them.
struct Events<'e>(&'e mut dyn FnMut(LocalEvent<'_>));

impl Ledger for Events<'_> {
    fn intent(&mut self, task: &CompiledTask, _at_ms: u64) -> Result<(), JournalError> {
        (self.0)(LocalEvent::Started(task));
        Ok(())
    }

    fn output(&mut self, task: &CompiledTask, chunk: OutputChunk) {
        (self.0)(LocalEvent::Output(task, &chunk));
    }

    fn done(&mut self, task: &CompiledTask, report: &TaskReport) -> Result<(), JournalError> {
        (self.0)(LocalEvent::Ended(task, report));
        Ok(())
    }

    fn going_down(&mut self, _task: &CompiledTask, _until_ms: u64) -> Result<(), JournalError> {
        unreachable!("invariant: books that reboot are refused")
    }

    fn raise(&mut self, _event: NodeEvent) -> Result<bool, String> {
        Ok(false)
    }

    fn is_cancelled(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
