//! Folders for what only a check needs: gone when it ends.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Host;
use super::replace::temporary_name;

/// A folder that only we can enter; removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
    /// What was made for it in the root folder, the outermost first.
    in_root: Vec<PathBuf>,
}

impl Host {
    /// A new folder in the system's place for such.
    pub(crate) fn temporary_directory(&self) -> io::Result<TemporaryDirectory> {
        let path = std::env::temp_dir().join(temporary_name());
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(TemporaryDirectory { path, in_root: Vec::new() })
    }
}

impl TemporaryDirectory {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it.
    pub(crate) fn folder(&self, name: &str) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(self.path.join(name))
    }

    /// Makes one of the same name below the root folder, if there is one, for programs that look for it there.
    pub(crate) fn also_in_root(mut self, host: &Host) -> io::Result<TemporaryDirectory> {
        let Some(root) = host.root() else { return Ok(self) };
        let mut path = root.to_owned();
        for part in self.path.iter().skip(1) {
            path.push(part);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    self.in_root.push(path.clone());
                }
            }
        }
        Ok(self)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // In the system's folder for such things; who cleans there removes what we cannot.
        let _ = fs::remove_dir_all(&self.path);
        if let Some(outermost) = self.in_root.first() {
            let _ = fs::remove_dir_all(outermost);
        }
    }
}
