//! `archive.unpacked`: what a tar archive holds is below a directory. Compares every file with the archive, so that what
//! was changed since is put right, and writes only what differs. What is not in the archive is left alone.

mod entry;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;
use lockstep_apis::v1alpha::Value;
use ring::digest::{Context, SHA256};

use crate::action::{Done, Function, Outcome, Scope};
use crate::diff;
use crate::file::{Attributes, RawAttributes};
use crate::host::{Host, HostError, Kind as Found, Place, Replacement, Seen};
use crate::module::{Module, Refusal, converge};
use crate::parameters::Parameters;
use entry::{Entry, Kind, broken};

/// `archive.unpacked`.
pub(crate) static UNPACKED: Function =
    Function { name: "archive.unpacked", perform: |given, scope| Ok(converge(&Unpacked::read(given, scope)?, scope)) };

/// Unpacked at most, if the book does not say.
const MAX_BYTES: u64 = 4 << 30;

/// Mode of the destination, if it is made.
const NEW_MODE: u32 = 0o755;

#[derive(Debug)]
struct Unpacked {
    source: String,
    path: String,
    strip: usize,
    attributes: Attributes,
    checksum: Option<String>,
    max_bytes: u64,
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
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer).map_err(|error| broken(&self.source, &error))? {
                0 => break,
                length => context.update(&buffer[..length]),
            }
        }
        let found: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if wanted.strip_prefix("sha256:").is_some_and(|wanted| wanted.eq_ignore_ascii_case(&found)) {
            return Ok(());
        }
        let message = format!("{} has sha256:{found}, not {wanted}", self.source);
        Err(Refusal::Module { reason: "ChecksumMismatch", message })
    }

    /// The archive from its beginning, unzipped if it has to be.
    fn reader<'f>(&self, file: &'f mut File) -> Result<Box<dyn Read + 'f>, Refusal> {
        let failed = |error: io::Error| broken(&self.source, &error);
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut magic = Vec::new();
        file.by_ref().take(6).read_to_end(&mut magic).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let other = match magic.as_slice() {
            [0x1f, 0x8b, ..] => return Ok(Box::new(MultiGzDecoder::new(io::BufReader::new(file)))),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
            [b'B', b'Z', b'h', ..] => "bzip2",
            [b'P', b'K', ..] => "zip",
            _ => return Ok(Box::new(io::BufReader::new(file))),
        };
        let message = format!("{} is {other}; tar and tar.gz are unpacked here", self.source);
        Err(Refusal::Module { reason: "UnknownFormat", message })
    }

    fn settled(&self, entry: &Entry, place: &Place, host: &Host) -> (u32, u32, u32) {
        let (uid, gid) = host.default_owner(&place.dir);
        (entry.mode, self.attributes.uid.unwrap_or(uid), self.attributes.gid.unwrap_or(gid))
    }

    /// Where the entry goes; never through a link, whoever made it.
    fn place(&self, entry: &Entry, host: &Host, make: bool) -> Result<Place, HostError> {
        let path = format!("{}/{}", self.path, entry.path);
        let top = host.place(&self.path, make)?.real();
        let place = host.place(&path, make)?;
        let below = entry.path.rsplit_once('/').map(|(parent, _)| format!("/{parent}")).unwrap_or_default();
        if place.dir.real != format!("{top}{below}") {
            return Err(HostError::LinkInTheWay { path, real: place.dir.real.clone() });
        }
        Ok(place)
    }

    /// What differs of one entry.
    fn compare(&self, entry: &Entry, content: &mut dyn Read, host: &Host) -> Result<Option<Task>, Refusal> {
        let place = match self.place(entry, host, false) {
            Err(HostError::ParentMissing { .. }) => return Ok(Some(Task::Make)),
            place => place?,
        };
        let Some(seen) = place.look()? else { return Ok(Some(Task::Make)) };
        let path = || format!("{}/{}", self.path, entry.path);
        let wanted = match entry.kind {
            Kind::File { .. } => Found::File,
            Kind::Directory => Found::Directory,
            Kind::Link { .. } => Found::Symlink,
        };
        if seen.kind != wanted {
            return Err(HostError::WrongKind { path: path(), found: seen.kind, wanted }.into());
        }
        let same_attributes = self.settled(entry, &place, host) == (seen.mode, seen.uid, seen.gid);
        match &entry.kind {
            Kind::Link { target } => Ok((place.link()? != *target).then_some(Task::Replace)),
            Kind::Directory => Ok((!same_attributes).then_some(Task::Attributes)),
            Kind::File { .. } if seen.links > 1 => {
                Err(HostError::HardLinked { path: path(), links: seen.links }.into())
            }
            Kind::File { size } => {
                let same = seen.size == *size && holds(&place, &seen, content)?;
                Ok(if !same { Some(Task::Replace) } else { (!same_attributes).then_some(Task::Attributes) })
            }
        }
    }

    fn unpack(&self, entry: &Entry, task: Task, content: &mut dyn Read, scope: &mut Scope<'_>) -> Result<(), Done> {
        let host = scope.host;
        let place = self.place(entry, host, true)?;
        let seen = place.look()?;
        let (mode, uid, gid) = self.settled(entry, &place, host);
        match (&entry.kind, seen) {
            (Kind::Link { target }, seen) => host.put_link(&place, target, seen.is_some(), scope.unsynced)?,
            (_, Some(seen)) if task == Task::Attributes || entry.kind == Kind::Directory => {
                host.set_attributes(&place, &seen, mode, (uid, gid), scope.unsynced)?;
            }
            (Kind::Directory, _) => host.make_directory(&place, mode, uid, gid, scope.unsynced)?,
            (Kind::File { .. }, seen) => {
                let new = Replacement { content: &[], mode, uid, gid };
                let temporary = host.pour_beside(&place, seen.as_ref(), &new, content)?;
                host.put(temporary, &place, seen.is_some(), scope.unsynced)?;
            }
        }
        Ok(())
    }
}

/// What has to be done for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Make,
    Replace,
    Attributes,
}

/// Whether the file that was seen holds the same bytes.
fn holds(place: &Place, seen: &Seen, content: &mut dyn Read) -> Result<bool, HostError> {
    let Some(fd) = place.open(seen)? else { return Ok(false) };
    let failed = |source| HostError::Failed { operation: "compare", path: place.path.clone(), source };
    let mut file = File::from(fd);
    let (mut wanted, mut found) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = content.read(&mut wanted).map_err(failed)?;
        if length == 0 {
            return Ok(true);
        }
        match file.read_exact(&mut found[..length]) {
            Ok(()) if found[..length] == wanted[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The archive, and what there is to do: entries with their numbers.
struct Plan {
    file: File,
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
        let top = host.place(&self.path, false)?;
        let makes_top = match top.look()? {
            None => true,
            Some(seen) if seen.kind == Found::Directory => false,
            Some(seen) => {
                let path = self.path.clone();
                return Err(HostError::WrongKind { path, found: seen.kind, wanted: Found::Directory }.into());
            }
        };
        let mut file = self.open(host)?;
        entry::check_limits(&self.source, self.reader(&mut file)?, self.max_bytes)?;
        let failed = |error: io::Error| broken(&self.source, &error);
        let (mut tasks, mut all) = (Vec::new(), Vec::new());
        let mut archive = tar::Archive::new(self.reader(&mut file)?);
        for (number, found) in archive.entries().map_err(failed)?.enumerate() {
            let mut found = found.map_err(failed)?;
            let Some(entry) = entry::read(&found, self.strip)? else { continue };
            all.push(entry.clone());
            if let Some(task) = self.compare(&entry, &mut found, host)? {
                tasks.push((number, entry, task));
            }
        }
        drop(archive);
        entry::check_tree(&all)?;
        if all.is_empty() {
            let message = format!("{} holds nothing that is left after strip: {}", self.source, self.strip);
            return Err(Refusal::Module { reason: "EmptyArchive", message });
        }
        Ok(Plan { file, tasks, makes_top })
    }

    fn difference(&self, _host: &Host, plan: &Plan) -> Result<Option<()>, Refusal> {
        Ok((plan.makes_top || !plan.tasks.is_empty()).then_some(()))
    }

    fn summary(&self, plan: &Plan, (): &()) -> String {
        let count = |wanted: &[Task]| plan.tasks.iter().filter(|(_, _, task)| wanted.contains(task)).count();
        let parts = [
            (count(&[Task::Make]), "made"),
            (count(&[Task::Replace]), "replaced"),
            (count(&[Task::Attributes]), "given other attributes"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
        parts.collect::<Vec<_>>().join(", ")
    }

    fn show(&self, _host: &Host, plan: &Plan, (): &(), _sensitive: bool) -> String {
        let line = |(_, entry, task): &(usize, Entry, Task)| {
            let word = match task {
                Task::Make => "made",
                Task::Replace => "replaced",
                Task::Attributes => "attributes",
            };
            format!("{}/{}: {word}\n", self.path, entry.path)
        };
        diff::bounded(plan.tasks.iter().map(line).collect())
    }

    fn apply(&self, mut plan: Plan, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        if plan.makes_top {
            let place = scope.host.place(&self.path, false)?;
            let (uid, gid) = scope.host.default_owner(&place.dir);
            let (uid, gid) = (self.attributes.uid.unwrap_or(uid), self.attributes.gid.unwrap_or(gid));
            scope.host.make_directory(&place, NEW_MODE, uid, gid, scope.unsynced)?;
        }
        let deadline = scope.timeout.map(|timeout| std::time::Instant::now() + timeout);
        let failed = |error: io::Error| Done::from(broken(&self.source, &error));
        let tasks: Vec<(usize, Entry, Task)> = std::mem::take(&mut plan.tasks);
        let numbers: BTreeSet<usize> = tasks.iter().map(|(number, ..)| *number).collect();
        let mut tasks = tasks.into_iter();
        let mut archive = tar::Archive::new(self.reader(&mut plan.file)?);
        for (number, found) in archive.entries().map_err(failed)?.enumerate() {
            let mut found = found.map_err(failed)?;
            if !numbers.contains(&number) {
                continue;
            }
            if scope.cancel.is_thrown() {
                return Err(Done::new(Outcome::Cancelled, "cancelled while it unpacked; a next run goes on", []));
            }
            if deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline) {
                return Err(Done::failed("TimedOut", "not unpacked in time; a next run goes on"));
            }
            let Some((_, entry, task)) = tasks.next() else { break };
            self.unpack(&entry, task, &mut found, scope)?;
        }
        Ok(())
    }
}
