//! Files that hold keys: readable by us alone from the first byte on, replaced whole or not at all.
//! Knows nothing of what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What failed at which path.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// Where.
    pub path: PathBuf,
    /// What; the operating system's words or ours.
    pub problem: io::Error,
}

impl FileError {
    /// Whether the file is not there.
    pub fn is_missing(&self) -> bool {
        self.problem.kind() == io::ErrorKind::NotFound
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
    move |problem| FileError { path: path.to_owned(), problem }
}

/// Makes a folder, and those above it, for the owner alone. One that is there stays as it is.
pub fn make_private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Writes a file with mode 0600: in a temporary one beside it, synced, then renamed over it, folder synced.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_private_folder(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", crate::identity::hex(&crate::identity::random::<8>())));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|problem| {
        // What is left of a failed write would only confuse; the error that counts is the first.
        let _ = fs::remove_file(&temporary);
        FileError { path: path.to_owned(), problem }
    })
}

/// Reads a file that only its owner may read. Errors: one that others may read too.
pub fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    let metadata = fs::metadata(path).map_err(at(path))?;
    if metadata.mode() & 0o077 != 0 {
        let problem = format!(
            "others than its owner may use it (mode {:04o}); if nobody else has read it: chmod 0600",
            metadata.mode() & 0o7777
        );
        return Err(FileError { path: path.to_owned(), problem: io::Error::other(problem) });
    }
    fs::read(path).map_err(at(path))
}

/// Reads a file that others may read too.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(at(path))
}

/// Reads a file of text that only its owner may read.
pub fn read_private_text(path: &Path) -> Result<String, FileError> {
    let bytes = read_private(path)?;
    String::from_utf8(bytes)
        .map_err(|_| FileError { path: path.to_owned(), problem: io::Error::other("it is not text") })
}

/// The files of a folder by name, without the hidden ones; empty if there is no folder.
pub fn read_folder(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, FileError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at(folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            files.push((name, read_private(&entry.path())?));
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a text that came over the wire may name a file in a folder of ours.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/key");
        write_private(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read_private(&path).unwrap(), b"secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_private(&path).unwrap_err().to_string().contains("chmod 0600"));
    }

    #[test]
    fn names_from_the_wire_stay_in_the_folder() {
        for bad in ["", ".", "..", "../x", "a/b", "a\0b", ".hidden"] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
        assert!(is_plain_name("server.key"));
    }
}
