//! Manifests: YAML and JSON files of objects, read with every violation at once, and printed so that they read back.

use prost::Message as _;

use crate::{
    descriptor::{self, Message},
    kinds::{self, Kind},
    nearest,
    object::{self, API_VERSION, API_VERSION_TOP_LEVEL},
    tree::{At, Content, Entry, Node, Scalar},
    v1alpha::{Object, Value, Violation},
    violation::{Path, Violations, shown},
    walk::{Mode, Walk},
    wire, yaml,
};

mod print;

pub use crate::walk::ReadFile;

/// Reads the objects of a file. `source` names it in violations; a name that ends in `.json` is read as strict JSON.
///
/// `default_namespace` is given to namespaced objects that name none; without it they keep none.
/// An object with `metadata.resourceVersion` was read before: fields of the system are allowed in it (and ignored by
/// servers); in any other they are refused. Errors: all violations, in order of position; no object then.
pub fn decode(source: &str, bytes: &[u8], default_namespace: Option<&str>) -> Result<Vec<Object>, Vec<Violation>> {
    decode_beside(source, bytes, default_namespace, None)
}

/// [`decode`] for a manifest in a folder: parameters that name a file there get its text.
pub fn decode_beside(
    source: &str,
    bytes: &[u8],
    default_namespace: Option<&str>,
    files: Option<ReadFile<'_>>,
) -> Result<Vec<Object>, Vec<Violation>> {
    let mut violations = Violations::new(source);
    let mut objects = Vec::new();
    if let Some(text) = readable(source, bytes, &mut violations) {
        let documents = yaml::parse(text, &mut violations);
        let documents: Vec<_> = documents.into_iter().filter(|node| node.scalar() != Some(Scalar::Null)).collect();
        if documents.iter().flat_map(items).next().is_none() && violations.list.is_empty() {
            let message = "nothing to apply: the file holds no object";
            violations.push(At { line: 1, column: 1 }, &Path::Root, "EmptyBody", message);
        }
        let mut encoded = Vec::new();
        for node in documents.iter().flat_map(items) {
            encoded.push(encode(node, files, &mut violations));
            violations.object += 1;
        }
        // Trees are larger than objects: not both at once.
        drop(documents);
        for (index, encoded) in (0..).zip(encoded) {
            violations.object = index;
            objects.extend(encoded.and_then(|encoded| encoded.object(default_namespace, &mut violations)));
        }
    }
    match violations.list.is_empty() {
        true => Ok(objects),
        false => {
            violations.list.sort_by_key(|violation| (violation.line, violation.column));
            Err(violations.list)
        }
    }
}

/// Objects as YAML, several as several documents.
pub fn print_yaml(objects: &[Object]) -> String {
    let mut text = String::new();
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            text.push_str("---\n");
        }
        let bytes = object::encode_inner(object.inner());
        print::yaml(&tree(object, &bytes), &mut text);
    }
    text
}

/// Objects as indented JSON: one as itself, any other number as an array.
pub fn print_json(objects: &[Object]) -> String {
    let json = match objects {
        [object] => to_json(object),
        several => several.iter().map(to_json).collect(),
    };
    print::escape_unprintable(&format!("{json:#}\n"))
}

/// Objects as an indented JSON array, however many there are.
pub fn print_json_list(objects: &[Object]) -> String {
    let json: serde_json::Value = objects.iter().map(to_json).collect();
    print::escape_unprintable(&format!("{json:#}\n"))
}

/// JSON with what would move a cursor or hide text escaped, so that it may go to a terminal.
pub fn escape_json(json: &serde_json::Value) -> String {
    print::escape_unprintable(&json.to_string())
}

/// One object as JSON.
pub fn to_json(object: &Object) -> serde_json::Value {
    let bytes = object::encode_inner(object.inner());
    print::json(&tree(object, &bytes))
}

/// Any YAML (and so JSON) as a value: for files and command-line values that are no objects.
pub fn decode_value(source: &str, bytes: &[u8]) -> Result<Value, Vec<Violation>> {
    let mut violations = Violations::new(source);
    let mut body = Vec::new();
    if let Some(text) = readable(source, bytes, &mut violations) {
        let documents = yaml::parse(text, &mut violations);
        if documents.len() > 1 {
            violations.push(documents[1].at, &Path::Root, "Syntax", "one document is expected, here begins another");
        }
        if let Some(node) = documents.first() {
            Walk { violations: &mut violations, mode: Mode::default() }.free(node, &Path::Root, &mut body);
        }
    }
    if violations.list.is_empty() {
        // A file with nothing in it is null, which is what no bytes are.
        Ok(Value::decode(body.as_slice()).expect("invariant: the walk encodes a value"))
    } else {
        Err(violations.list)
    }
}

/// A value as YAML, ending in a line end.
pub fn print_value_yaml(value: &Value) -> String {
    let mut text = String::new();
    print::yaml(&Node::from(value), &mut text);
    text
}

/// Checks sizes, encoding and, for JSON files, JSON's own syntax, before anything costs memory.
fn readable<'b>(source: &str, bytes: &'b [u8], violations: &mut Violations<'_>) -> Option<&'b str> {
    if bytes.len() > yaml::MAX_FILE_BYTES {
        let message = format!("{} bytes; a file has at most 16 MiB", bytes.len());
        violations.push(At::default(), &Path::Root, "TooLarge", message);
        return None;
    }
    if let Some(line) = too_large_document(bytes) {
        let message = "the document that begins here is larger than 1 MiB";
        violations.push(At { line, column: 1 }, &Path::Root, "TooLarge", message);
        return None;
    }
    let text = yaml::text(bytes, violations)?;
    if source.ends_with(".json") && !text.trim().is_empty() {
        strict_json(text, violations)?;
    }
    Some(text)
}

/// JSON's own syntax: without YAML's comments, single quotes and several documents.
fn strict_json(text: &str, violations: &mut Violations<'_>) -> Option<()> {
    let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) else { return Some(()) };
    // Of what is too deep, that is the fault to name: the YAML reader, which is next, does.
    if deepest(text) > yaml::MAX_DEPTH {
        return Some(());
    }
    let at = At { line: count(error.line()), column: count(error.column().max(1)) };
    violations.push(at, &Path::Root, "Syntax", format!("not JSON: {error}"));
    None
}

/// How deep brackets nest, strings aside.
fn deepest(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The first line of a document over the limit. Documents begin at lines that begin with `---`, whatever is open.
fn too_large_document(bytes: &[u8]) -> Option<u32> {
    if bytes.len() <= yaml::MAX_DOCUMENT_BYTES {
        return None;
    }
    let (mut first, mut size) = (1, 0);
    for (line, text) in (1..).zip(bytes.split_inclusive(|b| *b == b'\n')) {
        if text.starts_with(b"---") {
            (first, size) = (line, 0);
        }
        size += text.len();
        if size > yaml::MAX_DOCUMENT_BYTES {
            return Some(first);
        }
    }
    None
}

/// A document is an object, or a list of them as `print_json` writes it.
fn items<'n, 't>(document: &'n Node<'t>) -> &'n [Node<'t>] {
    match &document.content {
        Content::List(items) => items,
        _ => std::slice::from_ref(document),
    }
}

/// Where an object's version and kind are written.
struct Header {
    kind: Option<&'static Kind>,
    top_level: bool,
}

/// An object that was found in order, as bytes.
pub(crate) struct Encoded {
    at: At,
    kind: &'static Kind,
    top_level: bool,
    bytes: Vec<u8>,
}

/// Checks one object; `None` if anything is wrong with it.
pub(crate) fn encode<'v>(
    node: &Node<'_>,
    files: Option<ReadFile<'v>>,
    violations: &'v mut Violations<'_>,
) -> Option<Encoded> {
    let before = violations.list.len();
    let Some(entries) = node.entries() else {
        let message = format!("expected an object: a map with `metadata` and `spec`, found {}", node.type_word());
        violations.push(node.at, &Path::Root, "TypeMismatch", message);
        return None;
    };
    let header = header(node, violations);
    let mode = Mode { system_fields: resource_version(node, violations), files, ..Mode::default() };
    // Of an unknown kind nothing is known but its metadata, which every kind has.
    let message = descriptor::table().message(header.kind.unwrap_or(&kinds::all()[0]).name);
    let mut walk = Walk { violations, mode };
    let mut bytes = Vec::new();
    for entry in entries {
        let path = Path::Field(&Path::Root, &entry.key);
        match message.field(&entry.key).filter(|_| header.kind.is_some() || entry.key == "metadata") {
            Some(field) => walk.field(field, entry.at, &entry.value, &path, &mut bytes),
            None if matches!(&*entry.key, "apiVersion" | "kind") || header.kind.is_none() => {}
            None => unknown_part(&mut walk, message, entry, &path),
        }
    }
    absent_parts(&mut walk, message, node);
    let kind = header.kind?;
    namespace(kind, node, walk.violations);
    (walk.violations.list.len() == before).then_some(Encoded { at: node.at, kind, top_level: header.top_level, bytes })
}

impl Encoded {
    fn object(self, default_namespace: Option<&str>, violations: &mut Violations<'_>) -> Option<Object> {
        let Encoded { at, kind, top_level, bytes } = self;
        let mut object = match object::decode_inner(kind, &bytes) {
            Ok(object) => object,
            Err(error) => {
                violations.push(at, &Path::Root, "TypeMismatch", error.to_string());
                return None;
            }
        };
        let metadata = object.metadata_mut();
        metadata.kind = kind.name.to_owned();
        metadata.api_version = if top_level { API_VERSION_TOP_LEVEL } else { API_VERSION }.to_owned();
        if let Some(default) = default_namespace.filter(|_| kind.namespaced && metadata.namespace.is_empty()) {
            metadata.namespace = default.to_owned();
        }
        Some(object)
    }
}

fn header(node: &Node<'_>, violations: &mut Violations<'_>) -> Header {
    let metadata = node.get("metadata");
    let inside = |name| metadata.and_then(|metadata| metadata.get(name));
    let top_level = node.get("apiVersion").is_some() || (node.get("kind").is_some() && inside("apiVersion").is_none());
    let at = if top_level { Path::Root } else { Path::Field(&Path::Root, "metadata") };
    for name in ["apiVersion", "kind"] {
        if let (Some(top), Some(inner)) = (node.get(name), inside(name))
            && top.raw() != inner.raw()
        {
            let message = format!("`{name}` is there twice and differs; leave one out");
            violations.push(inner.at, &Path::Field(&Path::Field(&Path::Root, "metadata"), name), "NoMatch", message);
        }
    }
    match node.get("apiVersion").or(inside("apiVersion")) {
        None => violations.push(
            node.at,
            &Path::Field(&at, "apiVersion"),
            "NoMatch",
            "`apiVersion` must be given: `v1alpha`",
        ),
        Some(version) if matches!(version.raw(), Some(API_VERSION | API_VERSION_TOP_LEVEL)) => {}
        Some(version) => {
            let given = shown(version.raw().unwrap_or_default());
            let message =
                format!("no API version is called {given}; there is `v1alpha` (`lockstep/v1alpha` at the top level)");
            violations.push(version.at, &Path::Field(&at, "apiVersion"), "NoMatch", message);
        }
    }
    let known = || kinds::all().iter().map(|kind| kind.name);
    let names = || known().collect::<Vec<_>>().join(", ");
    let kind = match node.get("kind").or(inside("kind")) {
        None => {
            let message = format!("`kind` must be given: one of {}", names());
            violations.push(node.at, &Path::Field(&at, "kind"), "NoMatch", message);
            None
        }
        Some(given) => {
            let word = given.raw().unwrap_or_default();
            let kind = kinds::named(word);
            if kind.is_none() {
                let hint = nearest::hint(word, known());
                let message = format!("no kind is called {}{hint}; there is {}", shown(word), names());
                violations.push(given.at, &Path::Field(&at, "kind"), "NoMatch", message.replace("?;", "? "));
            }
            kind
        }
    };
    Header { kind, top_level }
}

/// Whether the object carries a resource version, which must be one of ours: a decimal number in text.
fn resource_version(node: &Node<'_>, violations: &mut Violations<'_>) -> bool {
    let Some(version) = node.get("metadata").and_then(|metadata| metadata.get("resourceVersion")) else { return false };
    if let Some(Scalar::Text(text)) = version.scalar()
        && (!text.bytes().all(|b| b.is_ascii_digit()) || text.parse::<u64>().is_err())
        && !text.is_empty()
    {
        let path = Path::Field(&Path::Field(&Path::Root, "metadata"), "resourceVersion");
        let message =
            format!("{} is no resource version; leave it as it was read, or leave the field out", shown(text));
        violations.push(version.at, &path, "ResourceVersion", message);
    }
    !matches!(version.scalar(), Some(Scalar::Text("")))
}

fn unknown_part(walk: &mut Walk<'_, '_>, message: &'static Message, entry: &Entry<'_>, path: &Path<'_>) {
    let parts = || message.fields.iter().map(|field| field.json.as_str()).chain(["apiVersion", "kind"]);
    let hint = match nearest::hint(&entry.key, parts()) {
        hint if hint.is_empty() => format!("; a {} has {}", message.name, parts().collect::<Vec<_>>().join(", ")),
        hint => hint,
    };
    walk.violations.push(entry.at, path, "UnknownField", format!("no field is called {}{hint}", shown(&entry.key)));
}

/// What an absent part lacks: the name in metadata, the required fields of the spec.
fn absent_parts(walk: &mut Walk<'_, '_>, message: &'static Message, node: &Node<'_>) {
    for field in message.fields.iter().filter(|field| matches!(field.name.as_str(), "metadata" | "spec")) {
        if let descriptor::Type::Message(index) = field.ty
            && node.get(&field.json).is_none()
        {
            let nothing = Node { at: node.at, ..Node::map(Vec::new()) };
            let path = Path::Field(&Path::Root, &field.json);
            walk.message(&descriptor::table().messages[index], &nothing, &path, &mut Vec::new());
        }
    }
}

fn namespace(kind: &Kind, node: &Node<'_>, violations: &mut Violations<'_>) {
    if let Some(given) = node.get("metadata").and_then(|metadata| metadata.get("namespace"))
        && !kind.namespaced
    {
        let path = Path::Field(&Path::Field(&Path::Root, "metadata"), "namespace");
        let message = format!("a {} lives in no namespace; leave the field out", kind.name);
        violations.push(given.at, &path, "NotNamespaced", message);
    }
}

/// An object's text form; `bytes` are its encoded inner message.
pub(crate) fn tree<'b>(object: &Object, bytes: &'b [u8]) -> Node<'b> {
    let kind = object.kind_of();
    let top_level = object.metadata().api_version == API_VERSION_TOP_LEVEL;
    let mut root = wire::tree(descriptor::table().message(kind.name), bytes);
    let Content::Map(entries) = &mut root.content else { return root };
    if entries.first().is_none_or(|entry| entry.key != "metadata") {
        entries.insert(0, Entry::new("metadata", Node::map(Vec::new())));
    }
    if let Content::Map(metadata) = &mut entries[0].value.content {
        metadata.retain(|entry| !matches!(&*entry.key, "apiVersion" | "kind"));
        let version = if top_level { API_VERSION_TOP_LEVEL } else { API_VERSION };
        let target = if top_level { &mut *entries } else { metadata };
        target.splice(0..0, [Entry::new("apiVersion", Node::text(version)), Entry::new("kind", Node::text(kind.name))]);
    }
    root
}

#[cfg(test)]
mod tests;
