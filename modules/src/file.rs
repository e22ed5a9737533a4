//! The actions on files. Knows what a book may ask of a file; how that is done safely is the host's business.

mod absent;
mod block;
mod content;
mod directory;
mod edit;
mod line;
mod lines;
mod managed;
mod replaced;
mod state;
mod symlink;
mod validate;

use crate::action::{Done, Function};
use crate::host::{Host, HostError, Seen};
use crate::module::converge;
use crate::parameters::Parameters;

pub(crate) use absent::AbsentPath;
pub(crate) use edit::{Edit, Nothing};
pub(crate) use lines::Lines;
pub(crate) use state::{Change as FileChange, FileState, Observed as FileObserved};
pub use validate::VALIDATED_FILE;

/// `file.absent`.
pub(crate) static ABSENT: Function =
    Function { name: "file.absent", perform: |given, scope| Ok(converge(&absent::AbsentPath::read(given)?, scope)) };

/// `file.block`.
pub(crate) static BLOCK: Function =
    Function { name: "file.block", perform: |given, scope| Ok(converge(&block::read(given)?, scope)) };

/// `file.content`.
pub(crate) static CONTENT: Function =
    Function { name: "file.content", perform: |given, scope| Ok(converge(&content::read(given)?, scope)) };

/// `file.directory`.
pub(crate) static DIRECTORY: Function = Function {
    name: "file.directory",
    perform: |given, scope| Ok(converge(&directory::ManagedDirectory::read(given, scope)?, scope)),
};

/// `file.line`.
pub(crate) static LINE: Function =
    Function { name: "file.line", perform: |given, scope| Ok(converge(&line::read(given)?, scope)) };

/// `file.managed`.
pub(crate) static MANAGED: Function =
    Function { name: "file.managed", perform: |given, scope| Ok(converge(&managed::read(given, scope)?, scope)) };

/// `file.replaced`.
pub(crate) static REPLACED: Function =
    Function { name: "file.replaced", perform: |given, scope| Ok(converge(&replaced::read(given)?, scope)) };

/// `file.symlink`.
pub(crate) static SYMLINK: Function =
    Function { name: "file.symlink", perform: |given, scope| Ok(converge(&symlink::Link::read(given)?, scope)) };

/// A failure for parameters that make no sense.
fn invalid(faults: String) -> Done {
    Done::failed("InvalidParameters", faults)
}

/// Mode and owner, as far as a book says them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// Mode and owner as written, names unresolved.
pub(crate) struct RawAttributes {
    mode: Option<u32>,
    owner: Option<String>,
    group: Option<String>,
}

impl RawAttributes {
    fn read(parameters: &mut Parameters<'_>) -> RawAttributes {
        RawAttributes { mode: parameters.mode("mode"), ..RawAttributes::read_owner(parameters) }
    }

    /// Only whose it is.
    pub(crate) fn read_owner(parameters: &mut Parameters<'_>) -> RawAttributes {
        let name = |text: Option<String>| text.filter(|name| !name.is_empty());
        let (owner, group) = (name(parameters.text("owner")), name(parameters.text("group")));
        RawAttributes { mode: None, owner, group }
    }

    pub(crate) fn resolve(self, host: &Host, check: bool) -> Result<Attributes, Done> {
        let missing = |error: HostError| if check { error.unpredicted() } else { error.into() };
        Ok(Attributes {
            mode: self.mode,
            uid: self.owner.map(|name| host.uid(&name)).transpose().map_err(missing)?,
            gid: self.group.map(|name| host.gid(&name)).transpose().map_err(missing)?,
        })
    }
}

/// Mode and owner that something will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settled {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Settled {
    /// What is wanted, else what is there.
    fn over(wanted: &Attributes, seen: &Seen) -> Settled {
        Settled {
            mode: wanted.mode.unwrap_or(seen.mode),
            uid: wanted.uid.unwrap_or(seen.uid),
            gid: wanted.gid.unwrap_or(seen.gid),
        }
    }

    /// Whether what was seen has these attributes.
    fn holds(&self, seen: &Seen) -> bool {
        (self.mode, self.uid, self.gid) == (seen.mode, seen.uid, seen.gid)
    }

    /// The attributes that differ, as `mode 0644 → 0600`.
    fn changes(&self, seen: &Seen) -> Vec<String> {
        let mut changes = Vec::new();
        if self.mode != seen.mode {
            changes.push(format!("mode {:04o} → {:04o}", seen.mode, self.mode));
        }
        if self.uid != seen.uid {
            changes.push(format!("owner {} → {}", seen.uid, self.uid));
        }
        if self.gid != seen.gid {
            changes.push(format!("group {} → {}", seen.gid, self.gid));
        }
        changes
    }
}
