//! One task on packages: look into the database, prepare, wait for the lock, do it in one transaction, and look again.
//! What the database says is what counts, whatever a back end said about its end.

use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::PackageBackend;

use super::backend::{Fault, Job, Prepared};
use super::database::Database;
use super::{Choice, Goal, LOCK, apt, dnf, packagekit};
use crate::action::{Diff, Done, Outcome, Scope, Stream};
use crate::host::{Stop, rest};

/// How often something is tried that another program got in the way of, or that a dying daemon left half done.
const TRIES: usize = 3;
/// The first and the longest pause while another program holds the lock.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// These hold the lock a moment longer than their transaction, and give it up when asked for another.
const OURS: [&str; 1] = ["packagekitd"];
/// How many lines of what is done a message tells.
const TOLD: usize = 5;

/// What a book asks for.
#[derive(Debug, Clone)]
pub(super) struct Task {
    goal: Goal,
    choice: Choice,
    refresh_after: Option<Duration>,
    lock_timeout: Duration,
}

impl Task {
    pub(super) fn new(
        backend: PackageBackend,
        refresh_after: Option<&prost_types::Duration>,
        lock_timeout: Option<&prost_types::Duration>,
    ) -> Task {
        Task {
            goal: Goal::Upgraded,
            choice: backend.into(),
            refresh_after: refresh_after.map(crate::parameters::duration),
            lock_timeout: lock_timeout.map_or(LOCK, crate::parameters::duration),
        }
    }

    pub(super) fn with(self, goal: Goal) -> Task {
        Task { goal, ..self }
    }

    /// Brings the node there, or says what would be done.
    pub(super) fn perform(&self, scope: &mut Scope<'_>) -> Result<Done, Done> {
        let source = self.source(scope)?;
        let texts = source.texts(scope)?;
        if self.is_reached(&Database::parse(&texts)) {
            return Ok(Done::new(Outcome::Ok, "", []));
        }
        let stop = Stop {
            cancel: scope.cancel,
            deadline: scope.timeout.map(|timeout| Instant::now() + timeout),
            grace: scope.grace,
        };
        let limit = scope.timeout;
        Attempt { task: self, source, stop, refreshed: false }.perform(scope).map_err(|fault| fault.told(limit))
    }

    /// Whose database it is. Of a root folder only dnf's is looked after.
    fn source(&self, scope: &Scope<'_>) -> Result<Source, Done> {
        match (self.choice, scope.host.root().is_some()) {
            (Choice::Dnf, _) => Ok(Source::Rpm),
            (_, true) => {
                let sentence = "packages of a root folder are looked after by `backend: Dnf` only; build other images with \
                                their own tool";
                Err(Done::failed("NotInRootFolder", sentence))
            }
            (Choice::Auto, false) if scope.host.dpkg_texts().is_none() && dnf::is_there(scope) => Ok(Source::Rpm),
            (_, false) => Ok(Source::Dpkg),
        }
    }

    /// Whether the database alone tells that there is nothing to do.
    fn is_reached(&self, database: &Database<'_>) -> bool {
        match &self.goal {
            Goal::Installed(names) => names.iter().all(|name| database.holds(name)),
            Goal::Absent { names, .. } => {
                names.iter().all(|name| database.get(name).is_none_or(|found| !found.is_present()))
            }
            Goal::Latest(_) | Goal::Upgraded => false,
        }
    }

    /// Whether a transaction came to what was asked, as far as the database tells.
    fn is_done(&self, database: &Database<'_>) -> bool {
        match &self.goal {
            Goal::Latest(names) => names.iter().all(|name| database.holds(name)),
            Goal::Upgraded => database.broken().next().is_none(),
            Goal::Installed(_) | Goal::Absent { .. } => self.is_reached(database),
        }
    }

    fn held(&self, database: &Database<'_>) -> Vec<String> {
        let names = match &self.goal {
            Goal::Installed(names) => names.iter().filter(|name| !database.holds(name)).collect::<Vec<_>>(),
            Goal::Absent { names, .. } => names.iter().collect(),
            Goal::Latest(_) | Goal::Upgraded => Vec::new(),
        };
        let held = names.into_iter().filter_map(|name| database.get(name));
        held.filter(|found| found.is_held && found.is_present()).map(|found| found.name.to_owned()).collect()
    }
}

/// Whose database says what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Dpkg,
    Rpm,
}

impl Source {
    fn texts(self, scope: &mut Scope<'_>) -> Result<Vec<String>, Done> {
        let texts = match self {
            Source::Dpkg => scope.host.dpkg_texts(),
            Source::Rpm => dnf::texts(scope)?,
        };
        let sentence = match self {
            Source::Dpkg => "this node has no dpkg database, and no dnf; package.* knows Debian, Fedora and their like",
            Source::Rpm => "this node has no program rpm; leave backend out, or install it",
        };
        texts.ok_or_else(|| Done::failed("NotSupported", sentence))
    }
}

/// Who changes packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    PackageKit,
    Apt,
    Dnf,
}

/// A task that has something to do.
struct Attempt<'t> {
    task: &'t Task,
    source: Source,
    stop: Stop<'t>,
    /// The package lists were read; in a check: would have been.
    refreshed: bool,
}

impl Attempt<'_> {
    fn perform(&mut self, scope: &mut Scope<'_>) -> Result<Done, Fault> {
        let until = Instant::now() + self.task.lock_timeout;
        let (mut nth, mut pause) = (0, PAUSES.0);
        loop {
            let fault = match self.once(nth == 0, scope) {
                // Which of the two it was is seen by looking again: at the lock, and into the database.
                Err(fault @ (Fault::Died | Fault::Locked)) => fault,
                ended => return ended,
            };
            nth += 1;
            // Nobody but dnf itself knows of dnf's lock, so it is asked again for as long as the lock may be held.
            let waits = self.source == Source::Rpm && matches!(fault, Fault::Locked) && Instant::now() < until;
            if !waits && nth >= TRIES || rest(scope.cancel, pause) {
                return Err(fault);
            }
            pause = if waits { (pause * 3 / 2).min(PAUSES.1) } else { PAUSES.0 };
        }
    }

    fn once(&mut self, is_first: bool, scope: &mut Scope<'_>) -> Result<Done, Fault> {
        // While another works, or what a dead daemon had started goes on without it, the database is in flux.
        if !scope.check && self.source == Source::Dpkg {
            self.wait_for_lock(scope)?;
        }
        let texts = self.source.texts(scope).map_err(Fault::Ended)?;
        let database = Database::parse(&texts);
        if self.task.is_reached(&database) {
            return Ok(match is_first {
                true => Done::new(Outcome::Ok, "another program did it meanwhile", []),
                false => Done::new(Outcome::Changed, "done by a transaction that did not tell its end", []),
            });
        }
        let held = self.task.held(&database);
        if !held.is_empty() {
            let text =
                format!("held, and so not changed: {}; package.held with held: false lifts that", held.join(", "));
            return Err(Fault::Failed { reason: "PackageHeld", text });
        }
        let backend = self.backend(&database, scope)?;
        let job = Job { goal: &self.task.goal, database: &database };
        let prepared = self.prepare(&job, backend, scope)?;
        let unasked = match &self.task.goal {
            Goal::Absent { dependents: true, .. } => &[][..],
            _ => &prepared.removed,
        };
        if !unasked.is_empty() {
            return Err(Fault::Failed { reason: "WouldRemoveOthers", text: others(&self.task.goal, unasked) });
        }
        // Of the others the database said that there is something to do, whatever a back end makes of it.
        let is_told_by_backend = matches!(self.task.goal, Goal::Latest(_) | Goal::Upgraded);
        if is_told_by_backend && prepared.lines.is_empty() {
            if scope.check && self.refreshed {
                return Err(unread(""));
            }
            return Ok(Done::new(Outcome::Ok, "", []));
        }
        if scope.check {
            return Ok(changed(&prepared, scope));
        }
        let applied = match backend {
            Backend::PackageKit => packagekit::apply(&job, &prepared, &self.stop, scope),
            Backend::Apt => apt::apply(&job, &self.stop, scope),
            Backend::Dnf => dnf::apply(&job, &self.stop, scope),
        };
        scope.host.forget();
        self.judge(applied, &prepared, scope)
    }

    /// Of Debian's, PackageKit, where there is one; but what is broken only apt and dpkg can mend.
    fn backend(&self, database: &Database<'_>, scope: &Scope<'_>) -> Result<Backend, Fault> {
        if self.source == Source::Rpm {
            return Ok(Backend::Dnf);
        }
        let broken: Vec<String> = database.broken().map(|found| format!("{} is {}", found.name, found.state)).collect();
        let is_broken = !broken.is_empty() || scope.host.dpkg_is_interrupted();
        match self.task.choice {
            Choice::PackageKit if is_broken => {
                let text = format!("{}; PackageKit cannot mend that: leave backend out", broken.join(", "));
                Err(Fault::Failed { reason: "PackagesBroken", text })
            }
            Choice::PackageKit => Ok(Backend::PackageKit),
            Choice::Auto if !is_broken && packagekit::is_there(&self.stop, scope)? => Ok(Backend::PackageKit),
            Choice::Auto | Choice::Apt | Choice::Dnf => Ok(Backend::Apt),
        }
    }

    /// What there is to do. Package lists that are too old, or miss a name, are read again once; not in a check.
    fn prepare(&mut self, job: &Job<'_>, backend: Backend, scope: &mut Scope<'_>) -> Result<Prepared, Fault> {
        if self.lists_are_old(job, backend, scope) {
            self.refresh(backend, scope)?;
        }
        match self.prepare_once(job, backend, scope) {
            Err(Fault::Unknown { .. }) if !self.refreshed && !scope.check => {
                self.refresh(backend, scope)?;
                self.prepare_once(job, backend, scope)
            }
            Err(fault @ Fault::Unknown { .. }) if scope.check => Err(unread(&format!(": {fault}"))),
            prepared => prepared,
        }
    }

    /// Whether they must be read again first. dnf knows by itself, and is told how old they may be.
    fn lists_are_old(&self, job: &Job<'_>, backend: Backend, scope: &Scope<'_>) -> bool {
        let is_old = |limit| scope.host.package_lists_age().is_none_or(|age| age >= limit);
        let needs_lists = matches!(job.goal, Goal::Installed(_) | Goal::Latest(_));
        backend != Backend::Dnf
            && (self.task.refresh_after.is_some_and(is_old) || needs_lists && scope.host.package_sources_changed())
    }

    fn prepare_once(&self, job: &Job<'_>, backend: Backend, scope: &mut Scope<'_>) -> Result<Prepared, Fault> {
        match backend {
            Backend::PackageKit => packagekit::prepare(job, &self.stop, scope),
            Backend::Apt => apt::prepare(job, &self.stop, scope),
            Backend::Dnf => dnf::prepare(job, self.task.refresh_after, &self.stop, scope),
        }
    }

    fn refresh(&mut self, backend: Backend, scope: &mut Scope<'_>) -> Result<(), Fault> {
        if self.refreshed || scope.check {
            return Ok(());
        }
        self.refreshed = true;
        match backend {
            Backend::PackageKit => packagekit::refresh(&self.stop, scope),
            Backend::Apt => apt::refresh(&self.stop, scope),
            Backend::Dnf => dnf::refresh(&self.stop, scope),
        }
    }

    /// Waits while another program changes packages, and says who.
    fn wait_for_lock(&self, scope: &mut Scope<'_>) -> Result<(), Fault> {
        let until = Instant::now() + self.task.lock_timeout;
        let mut pause = PAUSES.0;
        let mut told = None;
        while let Some(holder) = scope.host.dpkg_lock_holder(&OURS) {
            let name = format!("{} (process {})", holder.program, holder.pid);
            if Instant::now() >= until {
                let text = format!("{name} holds dpkg's lock; waited {} s", self.task.lock_timeout.as_secs());
                return Err(Fault::Failed { reason: "PackageLockHeld", text });
            }
            if told.replace(holder.pid) != Some(holder.pid) {
                (scope.output)(Stream::Stderr, format!("waiting for {name}, which holds dpkg's lock\n").as_bytes());
            }
            if self.stop.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Fault::Stopped(crate::host::Stopped::TimedOut));
            }
            if rest(scope.cancel, pause) {
                return Err(Fault::Stopped(crate::host::Stopped::Cancelled));
            }
            pause = (pause * 3 / 2).min(PAUSES.1);
        }
        Ok(())
    }

    /// What came of it: the database's word against the back end's. PackageKit reports another package's old trouble
    /// as the end of a transaction that did all it was asked.
    fn judge(&self, applied: Result<(), Fault>, prepared: &Prepared, scope: &mut Scope<'_>) -> Result<Done, Fault> {
        if let Err(Fault::Stopped(_) | Fault::Ended(_) | Fault::Died | Fault::Locked) = &applied {
            applied?;
            return Err(Fault::Died);
        }
        let texts = self.source.texts(scope).map_err(Fault::Ended)?;
        let database = Database::parse(&texts);
        let broken: Vec<String> = database.broken().map(|found| format!("{} is {}", found.name, found.state)).collect();
        match applied {
            Ok(()) if self.task.is_done(&database) => Ok(changed(prepared, scope)),
            Err(Fault::Failed { .. }) if self.task.is_done(&database) && broken.is_empty() => {
                Ok(changed(prepared, scope))
            }
            Err(Fault::Failed { reason, text }) if broken.is_empty() => Err(Fault::Failed { reason, text }),
            Err(Fault::Failed { text, .. }) => {
                Err(Fault::Failed { reason: "PackagesBroken", text: format!("{}: {text}", broken.join(", ")) })
            }
            Err(fault) => Err(fault),
            Ok(()) => {
                let text = format!("the back end told success, but the database says otherwise{}", listed(&broken));
                Err(Fault::Failed { reason: "NotReached", text })
            }
        }
    }
}

/// The run reads package lists that a check leaves alone.
fn unread(more: &str) -> Fault {
    let text = format!("the run reads the package lists anew first, a check does not{more}");
    Fault::Ended(Done::new(Outcome::Unpredicted, text, []))
}

fn listed(broken: &[String]) -> String {
    if broken.is_empty() { String::new() } else { format!(": {}", broken.join(", ")) }
}

fn others(goal: &Goal, unasked: &[String]) -> String {
    let names = unasked.join(", ");
    match goal {
        Goal::Absent { .. } => format!("others need it and would go, too: {names}; dependents: true lets them"),
        _ => format!("it would remove {names}; make that package.absent first if it is meant"),
    }
}

/// A task whose transaction was done, or would be.
fn changed(prepared: &Prepared, scope: &Scope<'_>) -> Done {
    let more = prepared.lines.len().saturating_sub(TOLD);
    let mut message = prepared.lines.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        message.push_str(&format!(" and {more} more"));
    }
    let changes = lockstep_apis::v1alpha::Value::list(prepared.lines.iter().map(|line| line.as_str().into()));
    let mut done = Done::new(Outcome::Changed, message, [("changes", changes)]);
    done.diff = scope.diff.then(|| {
        let text = prepared.lines.iter().map(|line| format!("{line}\n")).collect();
        Diff { path: "packages".to_owned(), text: crate::diff::bounded(text) }
    });
    done
}
