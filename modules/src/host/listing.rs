//! The names in a directory.

use rustix::fs::Dir as Entries;

use super::{Host, HostError, Kind};

impl Host {
    /// The names in a directory, sorted; at most `limit`, in no choice if there are more. `None`: nothing is there.
    ///
    /// # Errors
    /// Something else is there, or it cannot be read.
    pub(crate) fn names(&self, path: &str, limit: usize) -> Result<Option<Vec<String>>, HostError> {
        let place = self.place(path, false)?;
        let Some(seen) = place.look()?.filter(|seen| seen.kind == Kind::Directory) else { return Ok(None) };
        let Some(fd) = place.open(&seen)? else { return Ok(None) };
        let failed = |errno| place.errno("list", errno);
        let mut names = Vec::new();
        for entry in Entries::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && names.len() < limit {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(Some(names))
    }
}
