//! One task on packages: look into the database, prepare, wait for the lock, do it in one transaction, and look again.
//! What the database says is what counts, whatever a back end said about its end.

use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::PackageBackend;

use super::backend::{Fault, Job, Prepared};
use super::database::Database;
use super::{Choice, Goal, LOCK, apt, packagekit};
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
        if scope.host.root().is_some() {
            let sentence = "packages of a root folder are not looked after; build the image with its own tool";
            return Err(Done::failed("NotInRootFolder", sentence));
        }
        let texts = texts(scope)?;
        if self.is_reached(&Database::parse(&texts)) {
            return Ok(Done::new(Outcome::Ok, "", []));
        }
        let stop = Stop {
            cancel: scope.cancel,
            deadline: scope.timeout.map(|timeout| Instant::now() + timeout),
            grace: scope.grace,
        };
        let limit = scope.timeout;
        Attempt { task: self, stop, refreshed: false }.perform(scope).map_err(|fault| fault.told(limit))
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

fn texts(scope: &Scope<'_>) -> Result<Vec<String>, Done> {
    scope.host.dpkg_texts().ok_or_else(|| {
        let sentence = "this node has no dpkg database; package.* knows Debian and what is made from it, so far";
        Done::failed("NotSupported", sentence)
    })
}

/// A task that has something to do.
struct Attempt<'t> {
    task: &'t Task,
    stop: Stop<'t>,
    /// The package lists were read; in a check: would have been.
    refreshed: bool,
}

impl Attempt<'_> {
    fn perform(&mut self, scope: &mut Scope<'_>) -> Result<Done, Fault> {
        let mut last = Fault::Died;
        for nth in 0..TRIES {
            match self.once(nth == 0, scope) {
                // Which of the two it was is seen by looking again: at the lock, and into the database.
                Err(fault @ (Fault::Died | Fault::Locked)) => last = fault,
                ended => return ended,
            }
            if rest(scope.cancel, PAUSES.0) {
                break;
            }
        }
        Err(last)
    }

    fn once(&mut self, is_first: bool, scope: &mut Scope<'_>) -> Result<Done, Fault> {
        // While another works, or what a dead daemon had started goes on without it, the database is in flux.
        if !scope.check {
            self.wait_for_lock(scope)?;
        }
        let texts = texts(scope).map_err(Fault::Ended)?;
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
        let uses_packagekit = self.chooses_packagekit(&database, scope)?;
        let job = Job { goal: &self.task.goal, database: &database };
        let prepared = self.prepare(&job, uses_packagekit, scope)?;
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
        let applied = if uses_packagekit {
            packagekit::apply(&job, &prepared, &self.stop, scope)
        } else {
            apt::apply(&job, &self.stop, scope)
        };
        scope.host.forget();
        self.judge(applied, &prepared, scope)
    }

    /// PackageKit, where there is one; but what is broken only apt and dpkg can mend.
    fn chooses_packagekit(&self, database: &Database<'_>, scope: &Scope<'_>) -> Result<bool, Fault> {
        let broken: Vec<String> = database.broken().map(|found| format!("{} is {}", found.name, found.state)).collect();
        let is_broken = !broken.is_empty() || scope.host.dpkg_is_interrupted();
        match self.task.choice {
            Choice::Apt => Ok(false),
            Choice::PackageKit if is_broken => {
                let text = format!("{}; PackageKit cannot mend that: leave backend out", broken.join(", "));
                Err(Fault::Failed { reason: "PackagesBroken", text })
            }
            Choice::PackageKit => Ok(true),
            Choice::Auto => Ok(!is_broken && packagekit::is_there(&self.stop, scope)?),
        }
    }

    /// What there is to do. Package lists that are too old, or miss a name, are read again once; not in a check.
    fn prepare(&mut self, job: &Job<'_>, uses_packagekit: bool, scope: &mut Scope<'_>) -> Result<Prepared, Fault> {
        let is_old =
            self.task.refresh_after.is_some_and(|limit| scope.host.package_lists_age().is_none_or(|age| age >= limit));
        if is_old || (matches!(job.goal, Goal::Installed(_) | Goal::Latest(_)) && scope.host.package_sources_changed())
        {
            self.refresh(uses_packagekit, scope)?;
        }
        match self.prepare_once(job, uses_packagekit, scope) {
            Err(Fault::Unknown { .. }) if !self.refreshed && !scope.check => {
                self.refresh(uses_packagekit, scope)?;
                self.prepare_once(job, uses_packagekit, scope)
            }
            Err(fault @ Fault::Unknown { .. }) if scope.check => Err(unread(&format!(": {fault}"))),
            prepared => prepared,
        }
    }

    fn prepare_once(&self, job: &Job<'_>, uses_packagekit: bool, scope: &mut Scope<'_>) -> Result<Prepared, Fault> {
        if uses_packagekit { packagekit::prepare(job, &self.stop, scope) } else { apt::prepare(job, &self.stop, scope) }
    }

    fn refresh(&mut self, uses_packagekit: bool, scope: &mut Scope<'_>) -> Result<(), Fault> {
        if self.refreshed {
            return Ok(());
        }
        self.refreshed = true;
        if scope.check {
            return Ok(());
        }
        if uses_packagekit { packagekit::refresh(&self.stop, scope) } else { apt::refresh(&self.stop, scope) }
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
    fn judge(&self, applied: Result<(), Fault>, prepared: &Prepared, scope: &Scope<'_>) -> Result<Done, Fault> {
        if let Err(Fault::Stopped(_) | Fault::Ended(_) | Fault::Died | Fault::Locked) = &applied {
            applied?;
            return Err(Fault::Died);
        }
        let texts = texts(scope).map_err(Fault::Ended)?;
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
