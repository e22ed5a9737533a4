//! Unified diffs of texts, bounded. Knows no file.

use std::time::Duration;

use similar::TextDiff;

/// Longest diff, in bytes.
pub(crate) const DIFF_BYTES: usize = 64 << 10;
/// Longest text that is compared line by line, in bytes.
pub(crate) const COMPARED_BYTES: u64 = 1 << 20;
/// Spent on one diff at most; past it the diff is correct but longer than need be.
const TIME: Duration = Duration::from_millis(500);

/// The unified diff of two contents, `None` being a file that is not there.
pub(crate) fn unified(path: &str, old: Option<&[u8]>, new: Option<&[u8]>) -> String {
    let texts = (std::str::from_utf8(old.unwrap_or_default()), std::str::from_utf8(new.unwrap_or_default()));
    let (Ok(before), Ok(after)) = texts else {
        return format!("{path}: binary content differs\n");
    };
    if before.contains('\0') || after.contains('\0') {
        return format!("{path}: binary content differs\n");
    }
    let names = (side(path, old.is_some()), side(path, new.is_some()));
    let diff = TextDiff::configure().timeout(TIME).diff_lines(before, after);
    bounded(diff.unified_diff().context_radius(3).header(&names.0, &names.1).to_string())
}

fn side(path: &str, is_there: bool) -> String {
    if is_there { path.to_owned() } else { "/dev/null".to_owned() }
}

/// Cuts a text to what a diff may be, and says so.
pub(crate) fn bounded(mut text: String) -> String {
    const MARK: &str = "\n… the rest of the diff was cut\n";
    if text.len() > DIFF_BYTES {
        let end = text.floor_char_boundary(DIFF_BYTES - MARK.len());
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_a_diff_from_nothing() {
        let text = unified("/etc/motd", None, Some(b"hello\n"));
        assert!(text.contains("--- /dev/null\n+++ /etc/motd\n") && text.contains("+hello"), "{text}");
    }

    #[test]
    fn a_long_diff_is_cut_and_says_so() {
        let text = unified("/x", None, Some("line\n".repeat(100_000).as_bytes()));
        assert!(text.len() <= DIFF_BYTES && text.ends_with("was cut\n"));
    }

    #[test]
    fn bytes_that_are_no_text_are_not_shown() {
        assert_eq!(unified("/x", Some(b"\xff\xfe"), Some(b"a")), "/x: binary content differs\n");
    }
}
