//! YAML (and with it JSON) to trees with positions, within budgets. The only file that knows the YAML library;
//! what most manifests hold is read without it, by `plain`.
//!
//! Core schema 1.2. Every duplicate key and tag is found, not only the first; a syntax error ends the file.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

use crate::{
    tree::{At, Content, Entry, Node},
    violation::{Path, Violations, shown},
};

mod plain;

/// Most bytes of one document.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Most bytes of one file: a few hundred ordinary documents.
pub(crate) const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// Deepest nesting of lists and maps.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most nodes that all aliases of a file may stand for: real files share a few dozen.
const MAX_ALIASED_NODES: usize = 20_000;

/// The documents of a file that hold something. What is wrong goes to `violations`; documents before a syntax
/// error are still returned.
pub(crate) fn parse<'t>(text: &'t str, violations: &mut Violations<'_>) -> Vec<Node<'t>> {
    if let Some(document) = plain::parse(text) {
        return vec![document];
    }
    parse_any(text, violations)
}

/// The same, all by the library.
fn parse_any<'t>(text: &'t str, violations: &mut Violations<'_>) -> Vec<Node<'t>> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_comments: false,
        // Each of both kinds; the builder counts both together. These stop the scanner, which looks ahead.
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder::new(violations);
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => Err(syntax(&error)),
        };
        if let Err(fault) = step {
            builder.violations.push(fault.at, &Path::Root, fault.reason, fault.message);
            break;
        }
    }
    builder.documents
}

/// Bytes as text: UTF-8 without control characters; a byte order mark is dropped.
pub(crate) fn text<'b>(bytes: &'b [u8], violations: &mut Violations<'_>) -> Option<&'b str> {
    let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut refuse = |offset: usize, what: &str| {
        let message = format!("{what} at byte {offset}; files are UTF-8 text");
        violations.push(position(bytes, offset), &Path::Root, "Encoding", message);
        None
    };
    if body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff") {
        return refuse(0, "a UTF-16 byte order mark");
    }
    let skipped = bytes.len() - body.len();
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => return refuse(skipped + error.valid_up_to(), "not UTF-8"),
    };
    match control_character(body) {
        Some(offset) => refuse(skipped + offset, "a control character"),
        None => Some(text),
    }
}

/// C0 but tab and line ends, DEL, and C1.
fn control_character(body: &[u8]) -> Option<usize> {
    // All at once first: nearly every file has none, and this much the machine does sixteen bytes at a time.
    if !body.iter().fold(false, |found, byte| found | (*byte < b' ' && *byte != b'\n') | matches!(*byte, 0x7f | 0xc2)) {
        return None;
    }
    let c1 = |at: usize| body[at] == 0xc2 && body.get(at + 1).is_some_and(|next| (0x80..=0x9f).contains(next));
    (0..body.len()).find(|at| match body[*at] {
        b'\t' | b'\n' | b'\r' => false,
        0..=0x1f | 0x7f => true,
        0xc2 => c1(*at),
        _ => false,
    })
}

/// Where a byte is; columns in characters as far as the line is text.
fn position(bytes: &[u8], offset: usize) -> At {
    let before = &bytes[..offset.min(bytes.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().filter(|c| *c != '\u{feff}').count() + 1;
    At { line: number(line), column: number(column) }
}

struct Fault {
    at: At,
    reason: &'static str,
    message: String,
}

fn syntax(error: &granit_parser::ScanError) -> Fault {
    let marker = error.marker();
    let at = At { line: number(marker.line()), column: number(marker.col() + 1) };
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(at),
        _ => Fault { at, reason: "Syntax", message: format!("not YAML: {}", error.info()) },
    }
}

fn too_deep(at: At) -> Fault {
    Fault { at, reason: "TooDeep", message: format!("nested deeper than {MAX_DEPTH} levels") }
}

fn alias_fault(at: At, message: &str) -> Fault {
    Fault { at, reason: "AliasLimit", message: message.into() }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A list or map that is not closed yet.
struct Open<'t> {
    at: At,
    anchor: usize,
    content: OpenContent<'t>,
}

enum OpenContent<'t> {
    List(Vec<Node<'t>>),
    Map {
        entries: Vec<Entry<'t>>,
        /// The key whose value comes next; `None`: a key comes next.
        key: Option<(Cow<'t, str>, At, bool)>,
        /// Values of `<<`.
        merged: Vec<Node<'t>>,
    },
}

/// An anchored node and what an alias to it costs.
struct Anchored<'t> {
    node: Node<'t>,
    nodes: usize,
    depth: usize,
}

struct Builder<'t, 'v, 'f> {
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Anchored<'t>>,
    aliased_nodes: usize,
    documents: Vec<Node<'t>>,
    violations: &'v mut Violations<'f>,
}

impl<'t, 'v, 'f> Builder<'t, 'v, 'f> {
    fn new(violations: &'v mut Violations<'f>) -> Self {
        Self { open: Vec::new(), anchors: HashMap::new(), aliased_nodes: 0, documents: Vec::new(), violations }
    }

    fn take(&mut self, event: Event<'t>, span: &Span) -> Result<(), Fault> {
        let at = At { line: number(span.start.line()), column: number(span.start.col() + 1) };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                if let Some(tag) = tag.filter(|_| !text_tag) {
                    self.refuse_tag(at, &tag.to_string());
                }
                if matches!(text, Cow::Owned(_)) && text.contains('\0') {
                    self.violations.push(
                        at,
                        &Path::Root,
                        "Encoding",
                        "text holds a NUL character, which nothing on a machine can take",
                    );
                }
                let plain = style == ScalarStyle::Plain && !text_tag;
                let content = if plain { Content::Plain(text) } else { Content::Text(text) };
                self.close(Node { at, content }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                if let Some(tag) = tag {
                    self.refuse_tag(at, &tag.to_string());
                }
                self.begin(at, anchor, OpenContent::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                if let Some(tag) = tag {
                    self.refuse_tag(at, &tag.to_string());
                }
                self.begin(at, anchor, OpenContent::Map { entries: Vec::new(), key: None, merged: Vec::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("invariant: the parser balances starts and ends");
                let content = match open.content {
                    OpenContent::List(items) => Content::List(items),
                    OpenContent::Map { entries, merged, .. } => Content::Map(self.merge(entries, merged)),
                };
                self.close(Node { at: open.at, content }, open.anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: At, anchor: usize, content: OpenContent<'t>) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        if let Some(Open { content: OpenContent::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(Fault { at, reason: "TypeMismatch", message: "a key must be text, not a list or map".into() });
        }
        self.open.push(Open { at, anchor, content });
        Ok(())
    }

    /// A whole node is there: it goes to its anchor and to what is open, or is a document.
    fn close(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Fault> {
        if anchor > 0 {
            let (nodes, depth) = cost(&node);
            self.count_aliased(nodes, node.at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, depth });
        }
        self.place(node)
    }

    fn place(&mut self, node: Node<'t>) -> Result<(), Fault> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(OpenContent::List(items)) => items.push(node),
            Some(OpenContent::Map { entries, key, merged }) => match (key.take(), node.content) {
                (Some((_, _, true)), content) => merged.push(Node { at: node.at, content }),
                (Some((key, at, false)), content) => {
                    entries.push(Entry { key, at, value: Node { at: node.at, content } })
                }
                (None, Content::Plain(text)) => {
                    let merge = text == "<<";
                    *key = Some((text, node.at, merge));
                }
                (None, Content::Text(text)) => *key = Some((text, node.at, false)),
                (None, _) => {
                    let message = "a key must be text, not a list or map".into();
                    return Err(Fault { at: node.at, reason: "TypeMismatch", message });
                }
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: At) -> Result<(), Fault> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(alias_fault(at, "an alias inside its own anchor never ends"));
        };
        let mut node = anchored.node.clone();
        let (nodes, depth) = (anchored.nodes, anchored.depth);
        if self.open.len() + depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.count_aliased(nodes, at)?;
        // What is wrong with it is where it is used; its parts stay where they are written.
        node.at = at;
        self.place(node)
    }

    fn count_aliased(&mut self, nodes: usize, at: At) -> Result<(), Fault> {
        self.aliased_nodes += nodes;
        match self.aliased_nodes > MAX_ALIASED_NODES {
            true => Err(alias_fault(at, "aliases stand for too many nodes; write the file out")),
            false => Ok(()),
        }
    }

    /// Own keys win over merged ones, earlier merged maps over later ones. Own duplicates are refused.
    fn merge(&mut self, mut entries: Vec<Entry<'t>>, merged: Vec<Node<'t>>) -> Vec<Entry<'t>> {
        self.refuse_duplicates(&entries);
        for source in merged {
            let at = source.at;
            let maps = match source.content {
                Content::List(items) => items,
                content => vec![Node { at, content }],
            };
            for map in maps {
                let Content::Map(others) = map.content else {
                    self.violations.push(map.at, &Path::Root, "TypeMismatch", "`<<` merges maps; this is none");
                    continue;
                };
                for other in others {
                    if !entries.iter().any(|entry| entry.key == other.key) {
                        entries.push(other);
                    }
                }
            }
        }
        entries
    }

    fn refuse_duplicates(&mut self, entries: &[Entry<'t>]) {
        if are_unique(entries) {
            return;
        }
        let mut first: HashMap<&str, At> = HashMap::new();
        for entry in entries {
            if let Some(before) = first.get(&*entry.key) {
                let key = &entry.key;
                let message = format!("the key {} is there twice: line {} has it already", shown(key), before.line);
                let violations = &mut *self.violations;
                under(&self.open, &Path::Root, &mut |path| {
                    violations.push(entry.at, &Path::Field(path, key), "DuplicateKey", message.as_str());
                });
            } else {
                first.insert(&entry.key, entry.at);
            }
        }
    }

    fn refuse_tag(&mut self, at: At, tag: &str) {
        let message = format!("the tag {} is not allowed; write plain YAML without tags", shown(tag));
        self.violations.push(at, &Path::Root, "TagNotAllowed", message);
    }
}

/// No key is there twice. Small maps are most of all maps, and cheaper without hashing.
fn are_unique(entries: &[Entry<'_>]) -> bool {
    let mut seen = HashSet::new();
    match entries.len() {
        0..=8 => entries.iter().enumerate().all(|(at, e)| entries[..at].iter().all(|other| other.key != e.key)),
        _ => entries.iter().all(|entry| seen.insert(&*entry.key)),
    }
}

/// Calls with the path of what is being read: the open lists' next index, the open maps' present key.
fn under(open: &[Open<'_>], parent: &Path<'_>, then: &mut dyn FnMut(&Path<'_>)) {
    match open.split_first() {
        None => then(parent),
        Some((first, rest)) => match &first.content {
            OpenContent::List(items) => under(rest, &Path::Index(parent, items.len()), then),
            OpenContent::Map { key: Some((key, ..)), .. } => under(rest, &Path::Field(parent, key), then),
            OpenContent::Map { key: None, .. } => under(rest, parent, then),
        },
    }
}

/// Nodes of a subtree, and how deep it nests. Not deeper than [`MAX_DEPTH`], so recursion is bounded.
fn cost(node: &Node<'_>) -> (usize, usize) {
    let sum = |children: &mut dyn Iterator<Item = &Node<'_>>| {
        let (nodes, depth) = children.map(cost).fold((1, 0), |(n, d), (nodes, depth)| (n + nodes, d.max(depth)));
        (nodes, depth + 1)
    };
    match &node.content {
        Content::List(items) => sum(&mut items.iter()),
        Content::Map(entries) => sum(&mut entries.iter().map(|entry| &entry.value)),
        // Owned text is copied by each alias.
        Content::Plain(text) | Content::Text(text) => (1 + text.len() / 64, 0),
    }
}
