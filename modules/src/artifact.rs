//! `artifact.installed`: a version of a program, fetched into a directory of its own beside the others, and a link that
//! says which is in use. Fetches, unpacks, switches, in this order: what fails leaves the version in use as it was.

use std::time::Instant;

use hyper::Uri;
use hyper::header::CONTENT_LENGTH;
use lockstep_apis::v1alpha::{ArtifactInstalled, HttpRequest, Value};
use ring::digest::{Context, SHA256};

use crate::action::{Done, Function, Outcome, Scope};
use crate::archive::{self, Unpacked};
use crate::checksum;
use crate::diff;
use crate::file::Attributes;
use crate::host::{
    Host, HostError, HttpFault, Kind as Found, Place, Replacement, Seen, Stop, Stopped, Temporary, Unfinished, ask,
};
use crate::http;
use crate::module::{Module, Refusal, converge};
use crate::parameters::decoded;
use crate::tree::Below;

/// `artifact.installed`.
pub(crate) static INSTALLED: Function = Function {
    name: "artifact.installed",
    perform: |given, scope| {
        let artifact = Artifact::read(given, scope)?;
        Ok(converge(&artifact, scope).with("version", artifact.version.as_str()))
    },
};

/// The link's name.
const CURRENT: &str = "current";

/// How names of archives end that are unpacked here.
const ARCHIVES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".zip"];

/// Mode of a file that is not unpacked.
const FILE_MODE: u32 = 0o755;
/// Mode of an archive that is kept: it may hold what only some may read.
const ARCHIVE_MODE: u32 = 0o600;

/// What a book asks for.
#[derive(Debug)]
struct Artifact {
    asked: HttpRequest,
    /// Who is asked, for messages: no path or query, which may hold what is secret.
    origin: String,
    checksum: String,
    path: String,
    version: String,
    kept: Kept,
    attributes: Attributes,
    current: bool,
    max_bytes: u64,
}

/// How the version is kept.
#[derive(Debug)]
enum Kept {
    /// In a file of this name.
    File(String),
    /// Unpacked.
    Archive(Unpacked),
}

impl Artifact {
    fn read(given: &Value, scope: &Scope<'_>) -> Result<Artifact, Done> {
        let wanted: ArtifactInstalled = decoded("artifact.installed", given)?;
        let invalid = |fault: &str| Done::failed("InvalidParameters", fault);
        if wanted.version == CURRENT {
            return Err(invalid("version: `current` is the name of the link"));
        }
        let uri: Uri = wanted.url.parse().map_err(|error| invalid(&format!("url: {error}")))?;
        let last = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let unpacks = wanted.unpack.unwrap_or_else(|| ARCHIVES.iter().any(|end| last.ends_with(end)));
        if unpacks && !(wanted.name.is_empty() && wanted.mode.is_empty()) {
            return Err(invalid(
                "name and mode are of a file that is not unpacked; say `unpack: false` if that is meant",
            ));
        }
        let named = |text: &String| (!text.is_empty()).then(|| text.clone());
        let missing = |error: HostError| if scope.check { error.unpredicted() } else { error.into() };
        let attributes = Attributes {
            mode: None,
            uid: named(&wanted.owner).map(|name| scope.host.uid(&name)).transpose().map_err(missing)?,
            gid: named(&wanted.group).map(|name| scope.host.gid(&name)).transpose().map_err(missing)?,
        };
        let max_bytes = wanted.max_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(archive::MAX_BYTES);
        let kept = if unpacks {
            Kept::Archive(Unpacked {
                source: format!("{}/.{}.archive", wanted.path, wanted.version),
                path: format!("{}/{}", wanted.path, wanted.version),
                strip: usize::try_from(wanted.strip).unwrap_or(0),
                attributes: attributes.clone(),
                checksum: Some(wanted.checksum.clone()),
                max_bytes,
            })
        } else {
            let name = named(&wanted.name).unwrap_or(last);
            if name.is_empty() || name.starts_with('.') || name.contains('%') {
                return Err(invalid("url: its last part is no name for a file; give a `name`"));
            }
            Kept::File(name)
        };
        let mode = if wanted.mode.is_empty() { FILE_MODE } else { u32::from_str_radix(&wanted.mode, 8).unwrap_or(0) };
        let attributes = Attributes { mode: Some(mode), ..attributes };
        let origin = uri.authority().map(ToString::to_string).unwrap_or_default();
        let asked =
            HttpRequest { url: wanted.url, headers: wanted.headers, ca_file: wanted.ca_file, ..HttpRequest::default() };
        Ok(Artifact {
            asked,
            origin,
            checksum: wanted.checksum,
            path: wanted.path,
            version: wanted.version,
            kept,
            attributes,
            current: wanted.current.unwrap_or(true),
            max_bytes,
        })
    }

    fn directory(&self) -> String {
        format!("{}/{}", self.path, self.version)
    }

    /// Where the download is kept.
    fn download(&self) -> String {
        match &self.kept {
            Kept::File(name) => format!("{}/{name}", self.directory()),
            Kept::Archive(unpacked) => unpacked.source.clone(),
        }
    }

    fn link(&self) -> String {
        format!("{}/{CURRENT}", self.path)
    }

    /// Mode, owner and group that the download has in its place.
    fn settled(&self, place: &Place, host: &Host) -> (u32, u32, u32) {
        let (uid, gid) = host.default_owner(&place.dir);
        match &self.kept {
            Kept::File(_) => (
                self.attributes.mode.unwrap_or(FILE_MODE),
                self.attributes.uid.unwrap_or(uid),
                self.attributes.gid.unwrap_or(gid),
            ),
            Kept::Archive(_) => (ARCHIVE_MODE, uid, gid),
        }
    }

    fn look_at_download(&self, host: &Host) -> Result<Download, Refusal> {
        let path = self.download();
        let place = match host.place(&path, false) {
            Err(HostError::ParentMissing { .. }) => return Ok(Download::Missing),
            place => place?,
        };
        let Some(seen) = place.look()? else { return Ok(Download::Missing) };
        if seen.kind != Found::File {
            return Err(HostError::WrongKind { path, found: seen.kind, wanted: Found::File }.into());
        }
        if seen.links > 1 {
            return Err(HostError::HardLinked { path, links: seen.links }.into());
        }
        let Some(fd) = place.open(&seen)? else { return Err(HostError::Unsteady { path }.into()) };
        let failed = |source| HostError::Failed { operation: "read", path: path.clone(), source };
        let found = checksum::of(&mut std::fs::File::from(fd)).map_err(failed)?;
        if !checksum::is_same(&self.checksum, &found) {
            return Ok(Download::Other);
        }
        let same = self.settled(&place, host) == (seen.mode, seen.uid, seen.gid);
        Ok(if same { Download::Same } else { Download::OtherAttributes(place, seen) })
    }

    /// Where the link points; `None`: there is none.
    fn look_at_link(&self, host: &Host) -> Result<Option<String>, Refusal> {
        let path = self.link();
        let place = match host.place(&path, false) {
            Err(HostError::ParentMissing { .. }) => return Ok(None),
            place => place?,
        };
        match place.look()? {
            None => Ok(None),
            Some(seen) if seen.kind == Found::Symlink => Ok(Some(place.link()?)),
            Some(seen) => Err(HostError::WrongKind { path, found: seen.kind, wanted: Found::Symlink }.into()),
        }
    }

    /// Fetches into a file beside its place; nothing else is changed.
    fn fetch(&self, place: &Place, scope: &mut Scope<'_>) -> Result<Temporary, Done> {
        let failed = |fault: HttpFault| Done::failed(fault.reason(), fault);
        let (asked, trust) = http::read(&self.asked).map_err(|fault| Done::failed("InvalidParameters", fault))?;
        let tls = scope.host.tls(&trust).map_err(failed)?;
        let deadline = scope.timeout.map(|timeout| Instant::now() + timeout);
        let stop = Stop { cancel: scope.cancel, deadline, grace: scope.grace };
        let seen = place.look()?;
        let temporary = scope.host.begin_beside(place, seen.as_ref())?;
        let (mut context, mut length) = (Context::new(&SHA256), 0u64);
        let mut sink = |bytes: &[u8]| {
            length += bytes.len() as u64;
            if length > self.max_bytes {
                return Err(HttpFault::TooLong { limit: self.max_bytes, parameter: "maxBytes" });
            }
            context.update(bytes);
            temporary.write(place, bytes).map_err(HttpFault::NotKept)
        };
        let answer = match scope.host.wait(&stop, ask(&asked, &tls, &mut sink)) {
            Ok(answer) => answer.map_err(failed)?,
            Err(Unfinished::Stopped(Stopped::Cancelled)) => {
                return Err(Done::new(Outcome::Cancelled, "cancelled while it was fetched", []));
            }
            Err(Unfinished::Stopped(Stopped::TimedOut)) => {
                let limit = lockstep_apis::duration::format(scope.timeout.unwrap_or_default().as_millis() as u64);
                let message = format!("{} did not send all of it within {limit}", self.origin);
                return Err(Done::failed("TimedOut", message));
            }
            Err(Unfinished::Failed(error)) => return Err(Done::failed("Failed", error)),
        };
        if answer.status.as_u16() != 200 {
            let message = format!("{} answered {}", self.origin, answer.status);
            return Err(Done::failed("UnexpectedStatus", message));
        }
        let found = checksum::shown(&context.finish());
        if !checksum::is_same(&self.checksum, &found) {
            let said = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).unwrap_or("?");
            let message = format!("{} sent {length} bytes of {said} with {found}, not what checksum says", self.origin);
            return Err(Done::failed("ChecksumMismatch", message));
        }
        let (mode, uid, gid) = self.settled(place, scope.host);
        let new = Replacement { content: &[], mode, uid, gid };
        Ok(scope.host.finish_beside(temporary, place, seen.is_some(), &new)?)
    }

    /// Makes a directory that is missing; whether it was.
    fn make(&self, path: &str, scope: &mut Scope<'_>) -> Result<bool, HostError> {
        let below = Below { path, attributes: &self.attributes };
        let missing = below.is_missing(scope.host)?;
        if missing {
            below.make(scope)?;
        }
        Ok(missing)
    }

    /// Fetches what is missing and gives it its name. Directories that were made for it are gone again if it fails.
    fn bring(&self, scope: &mut Scope<'_>) -> Result<(), Done> {
        let mut directories = vec![self.path.clone()];
        if matches!(self.kept, Kept::File(_)) {
            directories.push(self.directory());
        }
        let mut made = Vec::new();
        let brought = directories.iter().try_for_each(|path| -> Result<(), Done> {
            if self.make(path, scope)? {
                made.push(path);
            }
            Ok(())
        });
        let brought = brought.and_then(|()| {
            let place = scope.host.place(&self.download(), false)?;
            let temporary = self.fetch(&place, scope)?;
            let replaces = place.look()?.is_some();
            Ok(scope.host.put(temporary, &place, replaces, scope.unsynced)?)
        });
        if brought.is_err() {
            for path in made.iter().rev() {
                // What cannot be taken back is empty and in nobody's way; the error is what to report.
                let _ = scope.host.place(path, false).and_then(|place| match place.look()? {
                    Some(seen) => scope.host.remove(&place, &seen, false, scope.unsynced),
                    None => Ok(()),
                });
            }
        }
        brought
    }
}

/// What is where the download is kept.
#[derive(Debug)]
enum Download {
    Same,
    OtherAttributes(Place, Seen),
    /// Something with another checksum.
    Other,
    Missing,
}

/// What is there.
struct Observed {
    download: Download,
    /// What differs from the archive that is there.
    unpacking: Option<(<Unpacked as Module>::Observed, bool)>,
    current: Option<String>,
}

impl Observed {
    fn fetches(&self) -> bool {
        matches!(self.download, Download::Missing | Download::Other)
    }
}

impl Module for Artifact {
    type Observed = Observed;
    type Change = ();

    fn path(&self) -> &str {
        &self.path
    }

    fn observe(&self, host: &Host) -> Result<Observed, Refusal> {
        let below = Below { path: &self.path, attributes: &self.attributes };
        below.is_missing(host)?;
        let download = self.look_at_download(host)?;
        let has_download = !matches!(download, Download::Missing | Download::Other);
        let unpacking = match &self.kept {
            Kept::Archive(unpacked) if has_download => {
                let plan = unpacked.observe(host)?;
                let differs = unpacked.difference(host, &plan)?.is_some();
                Some((plan, differs))
            }
            _ => None,
        };
        Ok(Observed { download, unpacking, current: self.look_at_link(host)? })
    }

    fn difference(&self, _host: &Host, observed: &Observed) -> Result<Option<()>, Refusal> {
        let unpacks = observed.unpacking.as_ref().is_some_and(|(_, differs)| *differs);
        let switches = self.current && observed.current.as_ref() != Some(&self.version);
        let differs = !matches!(observed.download, Download::Same) || unpacks || switches;
        Ok(differs.then_some(()))
    }

    fn summary(&self, observed: &Observed, (): &()) -> String {
        let mut parts = Vec::new();
        if observed.fetches() {
            parts.push(format!("{} fetched from {}", self.version, self.origin));
        }
        if let Download::OtherAttributes(..) = observed.download {
            parts.push(format!("{} given other attributes", self.version));
        }
        if let (Some((plan, true)), Kept::Archive(unpacked)) = (&observed.unpacking, &self.kept) {
            parts.push(format!("{}: {}", self.version, unpacked.summary(plan, &())));
        }
        match &observed.current {
            _ if !self.current => {}
            Some(target) if *target == self.version => {}
            Some(target) => parts.push(format!("{CURRENT} {target} → {}", self.version)),
            None => parts.push(format!("{CURRENT} → {}", self.version)),
        }
        parts.join("; ")
    }

    fn show(&self, host: &Host, observed: &Observed, (): &(), sensitive: bool) -> String {
        let mut text = format!("{}: {}\n", self.path, self.summary(observed, &()));
        if let (Some((plan, true)), Kept::Archive(unpacked)) = (&observed.unpacking, &self.kept) {
            text.push_str(&unpacked.show(host, plan, &(), sensitive));
        }
        diff::bounded(text)
    }

    fn apply(&self, observed: Observed, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        if observed.fetches() {
            self.bring(scope)?;
        } else if let Download::OtherAttributes(place, seen) = &observed.download {
            let (mode, uid, gid) = self.settled(place, scope.host);
            scope.host.set_attributes(place, seen, mode, (uid, gid), scope.unsynced)?;
        }
        if let Kept::Archive(unpacked) = &self.kept {
            let plan = match observed.unpacking {
                Some((plan, _)) => plan,
                None => unpacked.observe(scope.host)?,
            };
            unpacked.apply(plan, (), scope)?;
        }
        if self.current && observed.current.as_ref() != Some(&self.version) {
            let place = scope.host.place(&self.link(), false)?;
            scope.host.put_link(&place, &self.version, observed.current.is_some(), scope.unsynced)?;
        }
        Ok(())
    }
}
