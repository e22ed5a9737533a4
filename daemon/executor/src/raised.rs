//! Events that tasks raise: a file each in the segment's folder, until the agent takes them from there.
//!
//! # Guarantees
//! - A file that has its name is whole. It is on the disk only once the agent has taken it: a crash of the machine may
//!   lose what was raised just before.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use lockstep_apis::v1alpha::NodeEvent;
use prost::Message;

use crate::folder::Folder;

/// Most Events of one segment on a node: a loop over thousands would push all others out of the node's outbox.
pub(crate) const MAX_EVENTS: u32 = 100;

/// Keeps the Event of this number, counted from 0.
pub(crate) fn keep(folder: &Folder, number: u32, event: &NodeEvent) -> io::Result<()> {
    let events = folder.events();
    if number == 0 {
        DirBuilder::new().recursive(true).mode(0o700).create(&events)?;
    }
    let (making, path) = (events.join(".making"), events.join(format!("{number:04}")));
    fs::write(&making, event.encode_to_vec())?;
    fs::rename(making, path)
}

/// What waits to be taken from the segment's folder, in the order in which it was raised.
///
/// # Errors
/// The folder cannot be read; that none was raised is no error.
pub fn raised(segment: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(Folder::at(segment).events()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
