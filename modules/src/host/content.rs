//! Reads what is in files, without ever opening anything but the regular file that was seen.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{Host, HostError, Place, Seen, locked};

/// What reading a whole file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// All of it.
    Read(Vec<u8>),
    /// It is longer than the limit.
    TooLong,
    /// Something else took its place, or it changed its length meanwhile.
    Changed,
}

impl Host {
    /// Whether the file that was seen holds exactly `wanted`; `None` if it changed meanwhile.
    /// A different length is told without reading.
    pub(crate) fn holds(&self, place: &Place, seen: &Seen, wanted: &[u8]) -> Result<Option<bool>, HostError> {
        if seen.size != wanted.len() as u64 {
            return Ok(Some(false));
        }
        let Some(fd) = place.open(seen)? else { return Ok(None) };
        let mut buffer = locked(&self.buffer);
        if buffer.len() < wanted.len() {
            buffer.resize(wanted.len(), 0);
        }
        let length = fill(&fd, &mut buffer[..wanted.len()]).map_err(|errno| place.errno("read", errno))?;
        Ok((length == wanted.len()).then(|| buffer[..length] == *wanted))
    }

    /// The file that was seen, if it is at most `limit` bytes long.
    pub(crate) fn content(&self, place: &Place, seen: &Seen, limit: u64) -> Result<Content, HostError> {
        if seen.size > limit {
            return Ok(Content::TooLong);
        }
        let Some(fd) = place.open(seen)? else { return Ok(Content::Changed) };
        let mut bytes = vec![0; usize::try_from(seen.size).expect("limits fit memory")];
        let length = fill(&fd, &mut bytes).map_err(|errno| place.errno("read", errno))?;
        Ok(if length == bytes.len() { Content::Read(bytes) } else { Content::Changed })
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(fd: &OwnedFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match rustix::io::read(fd, &mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(length)
}
