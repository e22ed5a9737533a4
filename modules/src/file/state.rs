//! The state of a regular file: its content, owner and mode. All actions on a file's content end here, so that they
//! replace, check, back up and show it alike. Knows no parameter.

use super::edit::{EDITED_BYTES, Edit, Nothing};
use super::validate::Validation;
use super::{Attributes, Settled};
use crate::action::{Done, Scope};
use crate::diff;
use crate::host::{Content, Foreseen, Host, HostError, Kind, Place, Replacement, Seen, Temporary};
use crate::module::{Module, Refusal};

/// How often a file that changes while it is read is read again.
const READS: usize = 3;

/// Mode of a new file that the book gives none.
const NEW_MODE: u32 = 0o644;

/// What a book asks of a file.
#[derive(Debug)]
pub(crate) struct FileState {
    pub(super) path: String,
    pub(super) text: Text,
    pub(super) attributes: Attributes,
    pub(super) parents: bool,
    pub(super) follow: bool,
    pub(super) backup: bool,
    pub(super) validation: Option<Validation>,
}

/// What a file should contain.
#[derive(Debug)]
pub(super) enum Text {
    /// Whatever it does: only existence and attributes are looked after.
    Any,
    /// This.
    Whole(String),
    /// What the edit makes of what is there.
    Edited(Box<dyn Edit>),
}

/// What is at the path.
pub(crate) struct Observed {
    /// `None`: not even the parent is there.
    place: Option<Place>,
    file: Option<Found>,
    /// The wanted content, if an edit made it.
    edited: Option<Vec<u8>>,
}

/// A file that is there.
struct Found {
    seen: Seen,
    /// Whether it has the wanted content.
    same: bool,
}

/// A file, and the wanted content if an edit made it.
type Compared = (Found, Option<Vec<u8>>);

/// What has to be done.
pub(crate) struct Change {
    rewrite: bool,
    settled: Option<Settled>,
}

impl FileState {
    /// A file that has this content and is made if it is missing.
    pub(crate) fn whole(path: String, content: String) -> FileState {
        FileState::of(path, Text::Whole(content))
    }

    /// A file that is edited.
    pub(crate) fn edited(path: String, edit: impl Edit + 'static) -> FileState {
        FileState::of(path, Text::Edited(Box::new(edit)))
    }

    fn of(path: String, text: Text) -> FileState {
        let attributes = Attributes::default();
        FileState { path, text, attributes, parents: false, follow: false, backup: false, validation: None }
    }

    /// The same with mode and owner.
    pub(crate) fn with(self, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) -> FileState {
        FileState { attributes: Attributes { mode, uid, gid }, ..self }
    }

    /// What the file will contain, if that is looked after.
    fn content<'a>(&'a self, edited: Option<&'a [u8]>) -> Option<&'a [u8]> {
        match &self.text {
            Text::Any => None,
            Text::Whole(content) => Some(content.as_bytes()),
            Text::Edited(_) => edited,
        }
    }

    /// What nothing at the path means: a file is made, or there is nothing to edit.
    fn nothing(&self, place: Option<Place>) -> Result<Observed, Refusal> {
        match &self.text {
            Text::Edited(edit) => match edit.without_file() {
                Nothing::Missing => Err(HostError::FileMissing { path: self.path.clone() }.into()),
                Nothing::Done => Ok(Observed { place, file: None, edited: None }),
                Nothing::Empty => Ok(Observed { place, file: None, edited: Some(edit.edit(&self.path, b"")?) }),
            },
            Text::Any | Text::Whole(_) => Ok(Observed { place, file: None, edited: None }),
        }
    }

    /// What an edit makes of this content.
    #[cfg(test)]
    pub(crate) fn edit(&self, old: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Text::Edited(edit) = &self.text else { panic!("{self:?} is no edit") };
        edit.edit(&self.path, old)
    }

    fn is_done_without_file(&self) -> bool {
        matches!(&self.text, Text::Edited(edit) if edit.without_file() == Nothing::Done)
    }

    fn place(&self, host: &Host, make_parents: bool) -> Result<Place, HostError> {
        if self.follow { host.place_followed(&self.path, make_parents) } else { host.place(&self.path, make_parents) }
    }

    /// The file at the place and whether its content is as wanted; `None` if it changed meanwhile.
    fn compare(&self, host: &Host, place: &Place, seen: Seen) -> Result<Option<Compared>, Refusal> {
        let path = || self.path.clone();
        match seen.kind {
            Kind::File => {}
            Kind::Symlink => return Err(HostError::Symlink { path: path(), target: place.link()? }.into()),
            found => return Err(HostError::WrongKind { path: path(), found, wanted: Kind::File }.into()),
        }
        let same = match &self.text {
            Text::Any => Some(true),
            Text::Whole(content) => host.holds(place, &seen, content.as_bytes())?,
            Text::Edited(edit) => {
                let old = match host.content(place, &seen, EDITED_BYTES)? {
                    Content::Read(old) => old,
                    Content::TooLong => return Err(HostError::TooLong { path: path(), limit: EDITED_BYTES }.into()),
                    Content::Changed => return Ok(None),
                };
                let new = edit.edit(&self.path, &old)?;
                return Ok(Some((Found { seen, same: new == old }, Some(new))));
            }
        };
        Ok(same.map(|same| (Found { seen, same }, None)))
    }

    fn write(
        &self,
        place: Place,
        (seen, edited): (Option<Seen>, Option<Vec<u8>>),
        settled: Settled,
        scope: &mut Scope<'_>,
    ) -> Result<(), Done> {
        let Settled { mode, uid, gid } = settled;
        let content = self.content(edited.as_deref()).unwrap_or_default();
        let new = Replacement { content, mode, uid, gid };
        let temporary = scope.host.write_beside(&place, seen.as_ref(), &new)?;
        if let Some(validation) = self.validation.as_ref().filter(|validation| !validation.placed) {
            validation.run(&temporary.real(), scope)?;
        }
        let backup = match &seen {
            Some(seen) if self.backup => Some(scope.host.back_up(&place, seen, scope.unsynced)?),
            _ => None,
        };
        let former = match (&seen, &self.validation) {
            (Some(_), Some(validation)) if validation.placed => Some(scope.host.keep(&place)?),
            _ => None,
        };
        let put = scope.host.put(temporary, &place, seen.is_some(), scope.unsynced).map_err(Done::from);
        let ended = put.and_then(|()| self.validate_placed(&place, former, scope));
        if let (Err(_), Some(name)) = (&ended, backup) {
            scope.host.take_back(&place.dir, &name);
        }
        ended
    }

    /// The check on the placed file; if it fails, what was there before is there again.
    fn validate_placed(&self, place: &Place, former: Option<Temporary>, scope: &mut Scope<'_>) -> Result<(), Done> {
        let Some(validation) = self.validation.as_ref().filter(|validation| validation.placed) else {
            return Ok(());
        };
        let Err(done) = validation.run(&place.real(), scope) else { return Ok(()) };
        match former {
            Some(former) => scope.host.put(former, place, true, scope.unsynced)?,
            None => scope.host.take_back(&place.dir, &place.name),
        }
        Err(done)
    }
}

impl Module for FileState {
    type Observed = Observed;
    type Change = Change;

    fn path(&self) -> &str {
        &self.path
    }

    fn observe(&self, host: &Host) -> Result<Observed, Refusal> {
        let place = match self.place(host, false) {
            Err(HostError::ParentMissing { .. }) if self.parents || host.parent_is_foreseen(&self.path) => {
                return self.nothing(None);
            }
            Err(HostError::ParentMissing { .. } | HostError::ParentNotDirectory { .. })
                if self.is_done_without_file() =>
            {
                return self.nothing(None);
            }
            place => place?,
        };
        for _ in 0..READS {
            let Some(seen) = place.look()? else { return self.nothing(Some(place)) };
            if let Some((found, edited)) = self.compare(host, &place, seen)? {
                return Ok(Observed { place: Some(place), file: Some(found), edited });
            }
        }
        Err(HostError::Unsteady { path: self.path.clone() }.into())
    }

    fn difference(&self, _host: &Host, observed: &Observed) -> Result<Option<Change>, Refusal> {
        let Some(Found { seen, same, .. }) = &observed.file else {
            let makes = !self.is_done_without_file();
            return Ok(makes.then_some(Change { rewrite: true, settled: None }));
        };
        let settled = Settled::over(&self.attributes, seen);
        if *same && settled.holds(seen) {
            return Ok(None);
        }
        if seen.links > 1 {
            return Err(HostError::HardLinked { path: self.path.clone(), links: seen.links }.into());
        }
        // A former owner may hold the file open for writing: a file of another's is made anew.
        let disowned = settled.uid != seen.uid && !matches!(self.text, Text::Any);
        Ok(Some(Change { rewrite: !same || disowned, settled: Some(settled) }))
    }

    fn summary(&self, observed: &Observed, change: &Change) -> String {
        let Some((Found { seen, .. }, settled)) = observed.file.as_ref().zip(change.settled) else {
            return "created".to_owned();
        };
        let mut parts = settled.changes(seen);
        if change.rewrite {
            parts.insert(0, "content".to_owned());
        }
        parts.join(", ")
    }

    fn show(&self, host: &Host, observed: &Observed, change: &Change, sensitive: bool) -> String {
        let mut text = String::new();
        if let Some((Found { seen, .. }, settled)) = observed.file.as_ref().zip(change.settled) {
            for line in settled.changes(seen) {
                text.push_str(&format!("{}: {line}\n", self.path));
            }
        }
        match self.content(observed.edited.as_deref()) {
            Some(content) if change.rewrite => text.push_str(&self.show_content(host, observed, content, sensitive)),
            _ => {}
        }
        diff::bounded(text)
    }

    fn foresee(&self, host: &Host) {
        host.foresee(&self.path, Foreseen::Other);
    }

    fn apply(&self, observed: Observed, change: Change, scope: &mut Scope<'_>) -> Result<(), Done> {
        let place = match observed.place {
            Some(place) => place,
            None => self.place(scope.host, true)?,
        };
        let (uid, gid) = scope.host.default_owner(&place.dir);
        let settled = change.settled.unwrap_or(Settled {
            mode: self.attributes.mode.unwrap_or(NEW_MODE),
            uid: self.attributes.uid.unwrap_or(uid),
            gid: self.attributes.gid.unwrap_or(gid),
        });
        match observed.file {
            Some(Found { seen, .. }) if !change.rewrite => {
                let Settled { mode, uid, gid } = settled;
                Ok(scope.host.set_attributes(&place, &seen, mode, (uid, gid), scope.unsynced)?)
            }
            found => self.write(place, (found.map(|found| found.seen), observed.edited), settled, scope),
        }
    }
}

impl FileState {
    fn show_content(&self, host: &Host, observed: &Observed, new: &[u8], sensitive: bool) -> String {
        if sensitive {
            return format!("{}: content differs; it is sensitive, so not shown\n", self.path);
        }
        let old = match (&observed.place, &observed.file) {
            (Some(place), Some(Found { seen, .. })) => match host.content(place, seen, diff::COMPARED_BYTES) {
                Ok(Content::Read(bytes)) => Some(bytes),
                _ => return format!("{}: content differs; it is too long to compare, or changes\n", self.path),
            },
            _ => None,
        };
        if new.len() as u64 > diff::COMPARED_BYTES {
            return format!("{}: content differs; it is too long to compare\n", self.path);
        }
        diff::unified(&self.path, old.as_deref(), Some(new))
    }
}
