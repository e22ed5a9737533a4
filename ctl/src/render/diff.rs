//! What is between two versions of an object, as a unified diff of their YAML.

use super::{
    path,
    screen::{Colour, Screen},
};
use lockstep_apis::{manifest, v1alpha::Object};
use similar::TextDiff;

/// Lines around each change.
const CONTEXT: usize = 3;

/// The diff; everything is new where there was nothing.
pub(crate) fn objects(old: Option<&Object>, new: &Object, screen: Screen) -> String {
    let before = old.map(text).unwrap_or_default();
    let name = path(new);
    let from = if old.is_some() { name.as_str() } else { "(not there)" };
    let diff = TextDiff::from_lines(before.as_str(), text(new))
        .unified_diff()
        .context_radius(CONTEXT)
        .header(from, &name)
        .to_string();
    diff.lines().map(|line| screen.paint(line, colour(line)) + "\n").collect()
}

/// Without what the system says of it.
fn text(object: &Object) -> String {
    let mut object = object.clone();
    object.keep_system_fields(None);
    object.metadata_mut().resource_version.clear();
    manifest::print_yaml(&[object])
}

fn colour(line: &str) -> Option<Colour> {
    match line.as_bytes().first() {
        Some(b'+') => Some(Colour::Green),
        Some(b'-') => Some(Colour::Red),
        Some(b'@') => Some(Colour::Cyan),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::{Metadata, Node, NodeSpec};

    fn node(unschedulable: bool, version: &str) -> Object {
        let metadata = Metadata { name: "n1".into(), resource_version: version.into(), ..Metadata::default() };
        Node { metadata: Some(metadata), spec: Some(NodeSpec { unschedulable }), status: None }.into()
    }

    #[test]
    fn only_what_differs_is_shown() {
        let text = objects(Some(&node(false, "1")), &node(true, "2"), Screen::plain());
        let changed: Vec<&str> = text.lines().filter(|line| line.starts_with(['+', '-'])).collect();
        assert_eq!(changed[..2], ["--- node/n1", "+++ node/n1"]);
        assert!(changed.contains(&"+  unschedulable: true"), "{text}");
        assert_eq!(objects(Some(&node(true, "1")), &node(true, "2"), Screen::plain()), "");
        assert!(objects(None, &node(true, "2"), Screen::plain()).starts_with("--- (not there)\n"));
    }
}
