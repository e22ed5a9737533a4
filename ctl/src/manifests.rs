//! Reads manifests from files, folders and standard input, and decodes them: all objects, or all violations.

use crate::{
    cli::Files,
    error::{Error, Result},
};
use lockstep_apis::{
    manifest,
    v1alpha::{Object, Violation},
};
use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// More than a server would take in one request.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Every object of the files, in order.
pub(crate) fn read(files: &Files, namespace: &str) -> Result<Vec<Object>> {
    read_paths(&files.files, files.recursive, namespace)
}

/// As [`read`], for paths that were given otherwise.
pub(crate) fn read_paths(paths: &[PathBuf], recursive: bool, namespace: &str) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    let mut violations = Vec::new();
    for path in expand(paths, recursive)? {
        let (name, bytes) = content(&path)?;
        let folder = (path != Path::new("-")).then(|| path.parent().unwrap_or(Path::new("")).to_owned());
        let read = |file: &str| beside(folder.as_deref().unwrap_or(Path::new("")), file);
        let files: Option<manifest::ReadFile<'_>> = if folder.is_some() { Some(&read) } else { None };
        match manifest::decode_beside(&name, &bytes, Some(namespace), files) {
            Ok(found) => objects.extend(found),
            // A folder may hold a file that is still empty; that is no reason to refuse the others.
            Err(found) if found.iter().all(|v| v.reason == "EmptyBody") => {}
            Err(found) => violations.extend(found),
        }
    }
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    if objects.is_empty() {
        return Err(Error::Usage("nothing to apply: the files hold no object".into()));
    }
    Ok(objects)
}

/// Prefixes the object's own path to violations that the checks of whole objects found.
pub(crate) fn located(object: &Object, mut found: Vec<Violation>) -> Vec<Violation> {
    for violation in &mut found {
        if violation.file.is_empty() {
            violation.file = format!("{}/{}", object.kind_of().name, object.metadata().name);
        }
    }
    found
}

fn content(path: &Path) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin()
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::File("standard input".into(), e))?;
        return Ok(("standard input".into(), bytes));
    }
    let file = fs::File::open(path).map_err(|e| Error::File(path.to_owned(), e))?;
    let length = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_FILE_BYTES);
    bytes.reserve(length as usize + 1);
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::File(path.to_owned(), e))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::Usage(format!("{}: more than {MAX_FILE_BYTES} bytes", path.display())));
    }
    Ok((path.display().to_string(), bytes))
}

/// A text file beside a manifest.
fn beside(folder: &Path, file: &str) -> std::result::Result<String, String> {
    let path = folder.join(file);
    let told = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    // A device or a pipe would give no end.
    let file = fs::File::open(&path).map_err(told)?;
    if !file.metadata().map_err(told)?.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(told)?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}

fn expand(paths: &[PathBuf], recursive: bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if path != Path::new("-") && path.is_dir() {
            folder(path, recursive, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn folder(path: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |e| Error::File(path.to_owned(), e);
    let mut entries =
        fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()).map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Not following links: a loop of them would never end.
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            if recursive {
                folder(&entry.path(), recursive, found)?;
            }
        } else if matches!(entry.path().extension().and_then(OsStr::to_str), Some("yaml" | "yml" | "json")) {
            found.push(entry.path());
        }
    }
    Ok(())
}
