//! `archive.unpacked`: what an archive holds is below a directory. Compares every file with the archive, so that what
//! was changed since is put right, and writes only what differs. What is not in the archive is left alone.

mod entry;
mod format;

use std::fs::File;
use std::io::Read;
use std::time::Instant;

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Function, Outcome, Scope};
use crate::checksum;
use crate::diff;
use crate::file::{Attributes, RawAttributes};
use crate::host::{Host, HostError, Kind as Found};
use crate::module::{Module, Refusal, converge};
use crate::parameters::Parameters;
use crate::tree::{self, Below, Entry, Task};
use entry::broken;
use format::Format;

/// `archive.unpacked`.
pub(crate) static UNPACKED: Function =
    Function { name: "archive.unpacked", perform: |given, scope| Ok(converge(&Unpacked::read(given, scope)?, scope)) };

/// Unpacked at most, if the book does not say.
pub(crate) const MAX_BYTES: u64 = 4 << 30;

/// An archive of the node, and where what it holds should be.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) source: String,
    pub(crate) path: String,
    /// Leading parts of names that are left out.
    pub(crate) strip: usize,
    pub(crate) attributes: Attributes,
    pub(crate) checksum: Option<String>,
    /// Refused if it holds more.
    pub(crate) max_bytes: u64,
}

impl Unpacked {
    fn read(parameters: &Value, scope: &Scope<'_>) -> Result<Unpacked, Done> {
        let mut from = Parameters::new(parameters, None);
        let (source, path) = (from.required("source"), from.required("path"));
        let raw = RawAttributes::read_owner(&mut from);
        let checksum = from.text("checksum").filter(|checksum| !checksum.is_empty());
        let mut number = |name: &str, fallback: u64| match from.integers(name).first() {
            None => fallback,
            Some(number) => u64::try_from(*number).unwrap_or_else(|_| {
                from.fault(format!("{name} is below 0"));
                fallback
            }),
        };
        let (strip, max_bytes) = (number("strip", 0) as usize, number("maxBytes", MAX_BYTES));
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        let attributes = raw.resolve(scope.host, scope.check)?;
        Ok(Unpacked { source, path, strip, attributes, checksum, max_bytes })
    }

    fn below(&self) -> Below<'_> {
        Below { path: &self.path, attributes: &self.attributes }
    }

    fn open(&self, host: &Host) -> Result<File, Refusal> {
        let path = || self.source.clone();
        let place = host.place_followed(&self.source, false)?;
        let seen = place.look()?.ok_or_else(|| HostError::FileMissing { path: path() })?;
        if seen.kind != Found::File {
            return Err(HostError::WrongKind { path: path(), found: seen.kind, wanted: Found::File }.into());
        }
        let fd = place.open(&seen)?.ok_or_else(|| HostError::Unsteady { path: path() })?;
        let mut file = File::from(fd);
        self.check_sum(&mut file)?;
        Ok(file)
    }

    fn check_sum(&self, file: &mut File) -> Result<(), Refusal> {
        let Some(wanted) = &self.checksum else { return Ok(()) };
        let found = checksum::of(file).map_err(|error| broken(&self.source, &error))?;
        if checksum::is_same(wanted, &found) {
            return Ok(());
        }
        let message = format!("{} has {found}, not {wanted}", self.source);
        Err(Refusal::Module { reason: "ChecksumMismatch", message })
    }
}

/// The archive, and what there is to do: entries with their numbers.
pub(crate) struct Plan {
    file: File,
    format: Format,
    tasks: Vec<(usize, Entry, Task)>,
    makes_top: bool,
}

impl Module for Unpacked {
    type Observed = Plan;
    type Change = ();

    fn path(&self) -> &str {
        &self.path
    }

    fn observe(&self, host: &Host) -> Result<Plan, Refusal> {
        let makes_top = self.below().is_missing(host)?;
        let mut file = self.open(host)?;
        let format = Format::of(&self.source, &mut file)?;
        format.check_limits(self, &mut file)?;
        let (mut tasks, mut all) = (Vec::new(), Vec::new());
        format.each(self, &mut file, &mut |number, entry, content| {
            all.push(entry.clone());
            let same = &mut |found: &mut File| tree::are_same(content, found);
            if let Some(task) = self.below().compare(&entry, host, same)? {
                tasks.push((number, entry, task));
            }
            Ok::<_, Refusal>(())
        })?;
        tree::check_tree(&all)?;
        if all.is_empty() {
            let message = format!("{} holds nothing that is left after strip: {}", self.source, self.strip);
            return Err(Refusal::Module { reason: "EmptyArchive", message });
        }
        Ok(Plan { file, format, tasks, makes_top })
    }

    fn difference(&self, _host: &Host, plan: &Plan) -> Result<Option<()>, Refusal> {
        Ok((plan.makes_top || !plan.tasks.is_empty()).then_some(()))
    }

    fn summary(&self, plan: &Plan, (): &()) -> String {
        tree::counted(plan.tasks.iter().map(|(_, _, task)| *task))
    }

    fn show(&self, _host: &Host, plan: &Plan, (): &(), _sensitive: bool) -> String {
        let line = |(_, entry, task): &(usize, Entry, Task)| {
            format!("{}: {}\n", self.below().path_of(&entry.path), task.word())
        };
        diff::bounded(plan.tasks.iter().map(line).collect())
    }

    fn apply(&self, plan: Plan, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        let Plan { mut file, format, tasks, makes_top } = plan;
        if makes_top {
            self.below().make(scope)?;
        }
        let deadline = scope.timeout.map(|timeout| Instant::now() + timeout);
        let mut tasks = tasks.into_iter().peekable();
        format.each(self, &mut file, &mut |number, entry, content: &mut dyn Read| {
            let Some((_, _, task)) = tasks.next_if(|(next, ..)| *next == number) else { return Ok(()) };
            if scope.cancel.is_thrown() {
                return Err(Done::new(Outcome::Cancelled, "cancelled while it unpacked; a next run goes on", []));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Done::failed("TimedOut", "not unpacked in time; a next run goes on"));
            }
            self.below().put(&entry, task, content, scope)
        })
    }
}
