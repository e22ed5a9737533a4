//! Parameters whose text is in a file beside the manifest: `template: {file: ./web.conf.hbs}`. The text is put in their
//! place while the manifest is read, so that an object never depends on a file that only one machine has.
//! Reads nothing itself.

use super::Walk;
use crate::{
    descriptor::Message,
    tree::{Content, Entry, Node, Scalar},
    violation::{Path, shown},
};

/// Reads a file beside the manifest, by its path from there; the error is a sentence.
pub type ReadFile<'m> = &'m dyn Fn(&str) -> Result<String, String>;

/// Longest file that is put into an object, in bytes.
const MAX_FILE_BYTES: usize = 512 * 1024;

impl Walk<'_, '_> {
    /// The parameters with files in place of their names; `None`: they name none.
    pub(super) fn bundled<'n>(&mut self, action: &Message, given: &Node<'n>, path: &Path<'_>) -> Option<Node<'n>> {
        let is_file = |entry: &Entry<'_>| {
            let from_file = action.field(&entry.key).is_some_and(|field| field.rules.from_file);
            from_file && matches!(entry.value.content, Content::Map(_))
        };
        if !given.entries()?.iter().any(is_file) {
            return None;
        }
        let mut bundled = given.clone();
        if let Content::Map(entries) = &mut bundled.content {
            for entry in entries.iter_mut().filter(|entry| is_file(entry)) {
                let text = self.file(&entry.value, &Path::Field(path, &entry.key)).unwrap_or_default();
                entry.value = Node { at: entry.value.at, ..Node::text(text) };
            }
        }
        Some(bundled)
    }

    fn file(&mut self, node: &Node<'_>, path: &Path<'_>) -> Option<String> {
        let (at, name) = match node.entries() {
            Some([only]) if only.key == "file" => (only.value.at, only.value.scalar()),
            _ => (node.at, None),
        };
        let Some(Scalar::Text(name)) = name else {
            self.mismatch(node, path, "text, or `{file: ./NAME}`");
            return None;
        };
        let path = Path::Field(path, "file");
        let mut refuse = |reason: &str, message: String| {
            self.violations.push(at, &path, reason, message);
            None
        };
        let outside = name.starts_with('/') || name.split('/').any(|part| part == "..");
        if outside || name.is_empty() || name.contains("${{") {
            let message = format!("{} is no file beside the manifest: write a path from its folder", shown(name));
            return refuse("InvalidPath", message);
        }
        let Some(read) = self.mode.files else {
            let message = format!(
                "there is no folder here in which {} could be: apply the manifest from a file, or write the text itself",
                shown(name)
            );
            return refuse("NeedsFolder", message);
        };
        match read(name) {
            Ok(text) if text.len() > MAX_FILE_BYTES => {
                refuse("TooLarge", format!("{} has {} bytes; at most 512 KiB are taken", shown(name), text.len()))
            }
            Ok(text) => Some(text),
            Err(message) => refuse("File", message),
        }
    }
}
