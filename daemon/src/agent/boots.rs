//! Counts the machine's boots, so that servers can tell a session of an earlier one from one of a later: boot ids have no
//! order, and clocks jump. Knows a file; nothing of sessions.

use std::path::Path;

use crate::identity::files::{self, FileError};

/// The number of this boot: one more than that of the boot before in which an agent ran on this state folder, from 1 on.
/// On the disk when this returns. A file that says nothing sensible counts as none: then sessions of earlier boots go
/// first, when their servers no longer hear them.
pub(super) fn number(file: &Path, boot_id: &str) -> Result<u64, FileError> {
    let before = match files::read_private_text(file) {
        Err(error) if error.is_missing() => None,
        text => parse(&text?),
    };
    let number = match before {
        Some((number, id)) if id == boot_id => return Ok(number),
        Some((number, _)) => number + 1,
        None => 1,
    };
    files::write_private(file, format!("{number} {boot_id}\n").as_bytes())?;
    Ok(number)
}

fn parse(text: &str) -> Option<(u64, String)> {
    let (number, id) = text.trim_end().split_once(' ')?;
    Some((number.parse().ok()?, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_number_and_the_next_a_higher_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("boots");
        let number = |boot: &str| number(&file, boot).unwrap();
        assert_eq!([number("a"), number("a"), number("b"), number("b"), number("a")], [1, 1, 2, 2, 3]);
        files::write_private(&file, b"what?").unwrap();
        assert_eq!(number("c"), 1);
    }
}
