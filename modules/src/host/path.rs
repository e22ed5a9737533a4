//! Paths as text: which ones are accepted at all. Reads nothing of the machine.

use super::HostError;

/// Longest path, as in `limits.h`.
const PATH_BYTES: usize = 4096;
/// Longest component, as in `limits.h`.
const NAME_BYTES: usize = 255;

/// Splits an absolute path into its parent (`""` for the root) and its last name.
///
/// # Errors
/// `InvalidPath` for anything that is not the one plain spelling of a path below `/`: relative, empty, `/` itself,
/// `.` or `..`, doubled or trailing slashes, NUL, over 4,096 bytes, a name over 255 bytes.
pub(crate) fn split(path: &str) -> Result<(&str, &str), HostError> {
    check(path).map_err(|reason| HostError::InvalidPath { path: shorten(path), reason })?;
    Ok(path.rsplit_once('/').expect("an absolute path holds a slash"))
}

fn check(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty; give an absolute path");
    }
    if !path.starts_with('/') {
        return Err("is not absolute; begin it with /");
    }
    if path == "/" {
        return Err("is the root itself; name something in it");
    }
    if path.len() > PATH_BYTES {
        return Err("is longer than 4096 bytes");
    }
    if path.contains('\0') {
        return Err("holds a NUL");
    }
    if path.ends_with('/') {
        return Err("ends with a slash; leave it out");
    }
    for component in path[1..].split('/') {
        match component {
            "" => return Err("has two slashes in a row"),
            "." | ".." => return Err("holds . or ..; write the path without them"),
            name if name.len() > NAME_BYTES => return Err("has a name longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// A path that fits a message.
fn shorten(path: &str) -> String {
    match path.char_indices().nth(80) {
        None => path.to_owned(),
        Some((end, _)) => format!("{}…", &path[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_spelling_of_a_path_is_accepted() {
        let long = format!("/{}", "a/".repeat(2100));
        let wide = format!("/{}", "a".repeat(256));
        for bad in ["", "/", "etc/x", "..", "/a/../b", "/a/./b", "/a/", "//host", "/a//b", "/a\0b", &long, &wide] {
            assert!(matches!(split(bad), Err(HostError::InvalidPath { .. })), "{bad:?} was accepted");
        }
        assert_eq!(split("/etc/motd").unwrap(), ("/etc", "motd"));
        assert_eq!(split("/motd").unwrap(), ("", "motd"));
    }
}
