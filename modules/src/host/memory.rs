//! Files in memory: what a child is to read and nobody is to find on a disk.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode};

/// A file in memory with this content, at its beginning: no pipe to feed, so no child that does not read can hang us.
pub(super) fn file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

/// A file in memory that children open by its path, as often as they like, while this is held. Only our own user can.
#[derive(Debug)]
pub(crate) struct InMemory(OwnedFd);

impl InMemory {
    /// A file with this content, mode 0600.
    pub(crate) fn new(content: &[u8]) -> io::Result<InMemory> {
        let file = file("handed", content)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600))?;
        Ok(InMemory(file))
    }

    /// Where it is, for any process: those that close what they inherit find it, too.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
