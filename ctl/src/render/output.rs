//! What tasks printed, as lines; nodes that printed the same are told once. Knows text, not where it comes from.

use super::{names::compact, plural, summary};
use lockstep_apis::v1alpha::{LogLine, OutputStream, RunNode};
use std::{collections::BTreeMap, fmt::Write};

/// A line longer than this is told in pieces.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Nodes in front of each line take at most so many columns; more of them have a line of their own.
const MAX_PREFIX: usize = 32;

/// One line that a task printed on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) node: String,
    pub(crate) task: String,
    pub(crate) stream: OutputStream,
    pub(crate) text: String,
}

impl Line {
    /// Between the task and the text.
    fn mark(&self) -> char {
        match self.stream {
            OutputStream::Stderr => '!',
            OutputStream::Diff => '~',
            _ => '|',
        }
    }

    /// `web1 install | text`; without the node if there is but one.
    pub(crate) fn shown(&self, with_node: bool) -> String {
        let node = if with_node { format!("{} ", self.node) } else { String::new() };
        format!("{node}{} {} {}\n", self.task, self.mark(), visible(&self.text))
    }
}

/// Control characters of a node must not reach the terminal of an admin.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Makes whole lines of pieces: nodes write at once, and half lines of two of them make nonsense.
#[derive(Default)]
pub(crate) struct Assembler {
    open: BTreeMap<(String, String, i32), Vec<u8>>,
}

impl Assembler {
    /// The lines that this piece completes.
    pub(crate) fn take(&mut self, piece: LogLine) -> Vec<Line> {
        let Some(chunk) = piece.chunk else { return Vec::new() };
        let key = (piece.node, piece.task, chunk.stream);
        let mut lines = Vec::new();
        if chunk.dropped > 0 {
            lines.push(line(&key, format!("… {} bytes left out …", chunk.dropped).as_bytes()));
        }
        let mut open = self.open.remove(&key).unwrap_or_default();
        open.extend_from_slice(&chunk.data);
        let mut rest = open.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            lines.push(line(&key, &rest[..end]));
            rest = &rest[end + 1..];
        }
        if rest.len() > MAX_LINE_BYTES {
            lines.push(line(&key, rest));
            rest = &[];
        }
        if !rest.is_empty() {
            self.open.insert(key, rest.to_vec());
        }
        lines
    }

    /// What did not end in a line's end.
    pub(crate) fn finish(self) -> Vec<Line> {
        self.open.into_iter().map(|(key, rest)| line(&key, &rest)).collect()
    }
}

fn line((node, task, stream): &(String, String, i32), text: &[u8]) -> Line {
    let stream = OutputStream::try_from(*stream).unwrap_or(OutputStream::Stdout);
    Line { node: node.clone(), task: task.clone(), stream, text: String::from_utf8_lossy(text).into_owned() }
}

/// Task by task, in the order in which they first printed; of each the groups of nodes that printed the same, the
/// largest first.
pub(crate) fn by_task(lines: &[Line]) -> String {
    let mut tasks: Vec<&str> = Vec::new();
    let mut printed: BTreeMap<(&str, &str), Vec<&Line>> = BTreeMap::new();
    for line in lines {
        if !tasks.contains(&line.task.as_str()) {
            tasks.push(&line.task);
        }
        printed.entry((&line.task, &line.node)).or_default().push(line);
    }
    let mut out = String::new();
    for task in tasks {
        let nodes = printed.range((task, "")..).take_while(|((own, _), _)| *own == task);
        for (names, lines) in alike(nodes.map(|((_, node), lines)| (*node, lines.as_slice()))) {
            let mut prefix = compact(&names);
            if prefix.chars().count() > MAX_PREFIX {
                let count = plural(u32::try_from(names.len()).unwrap_or(u32::MAX), "node");
                let _ = writeln!(out, "{count}: {prefix}");
                prefix = count;
            }
            for line in lines {
                let _ = write!(out, "{prefix} {}", line.shown(false));
            }
        }
    }
    out
}

/// Nodes, and the lines that each of them printed.
type Group<'l> = (Vec<&'l str>, &'l [&'l Line]);

/// Groups of nodes whose lines say the same, the largest first.
fn alike<'l>(nodes: impl Iterator<Item = (&'l str, &'l [&'l Line])>) -> Vec<Group<'l>> {
    let mut groups: BTreeMap<Vec<(char, &str)>, Group<'l>> = BTreeMap::new();
    for (node, lines) in nodes {
        let said = lines.iter().map(|line| (line.mark(), line.text.as_str())).collect();
        groups.entry(said).or_insert_with(|| (Vec::new(), lines)).0.push(node);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then(a.cmp(b)));
    groups
}

/// What one command printed on each node, and how it ended where it did not end well.
pub(crate) fn of_nodes(nodes: &[RunNode], lines: &[Line]) -> String {
    let mut printed: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        printed.entry(&line.node).or_default().push(line);
    }
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        let mut body = String::new();
        for line in printed.get(node.name.as_str()).into_iter().flatten() {
            let _ = writeln!(body, "  {} {}", line.mark(), visible(&line.text));
        }
        if !matches!(node.state.as_str(), "Ok" | "Changed") {
            let _ = writeln!(body, "  {}{}", node.state, reason(node));
        }
        groups.entry(body).or_default().push(&node.name);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then(a.cmp(b)));
    let mut out = String::new();
    for (body, names) in groups {
        let silent = if body.is_empty() { "; nothing was printed" } else { "" };
        let count = plural(u32::try_from(names.len()).unwrap_or(u32::MAX), "node");
        let _ = writeln!(out, "{count}: {}{silent}", compact(&names));
        out.push_str(&body);
    }
    out
}

fn reason(node: &RunNode) -> String {
    match summary::message(node) {
        message if message.is_empty() => String::new(),
        message => format!(": {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::OutputChunk;

    fn lines(text: &str) -> Vec<Line> {
        text.lines()
            .map(|text| {
                let mut words = text.splitn(4, ' ');
                let mut word = || words.next().unwrap_or_default().to_owned();
                let (node, task, mark, text) = (word(), word(), word(), word());
                let stream = if mark == "!" { OutputStream::Stderr } else { OutputStream::Stdout };
                Line { node, task, stream, text }
            })
            .collect()
    }

    #[test]
    fn nodes_that_printed_the_same_are_told_once_for_each_task() {
        let printed = "\
w1 a | one
w1 b | x
w2 a | one
w2 b ! x
w3 a | one
w3 b | x
w4 a | one
w4 b | x
";
        assert_eq!(by_task(&lines(printed)), "w[1-4] a | one\nw1 w3 w4 b | x\nw2 b ! x\n");
    }

    #[test]
    fn a_long_list_of_nodes_has_a_line_of_its_own() {
        let names = ["amsterdam", "berlin", "copenhagen", "dublin", "edinburgh"];
        let printed: String = names.map(|name| format!("{name} a | one\n{name} a | two\n")).concat();
        assert_eq!(
            by_task(&lines(&printed)),
            "5 nodes: amsterdam berlin copenhagen dublin edinburgh\n5 nodes a | one\n5 nodes a | two\n"
        );
    }

    #[test]
    fn pieces_become_lines_and_escapes_are_seen() {
        let piece = |node: &str, data: &str| LogLine {
            node: node.into(),
            task: "t".into(),
            chunk: Some(OutputChunk { data: data.into(), ..OutputChunk::default() }),
            ..LogLine::default()
        };
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(piece("a", "on")), []);
        assert_eq!(assembler.take(piece("b", "\x1b[2J\nha")).len(), 1);
        let shown: String = assembler.take(piece("a", "e\ntwo")).iter().map(|line| line.shown(true)).collect();
        assert_eq!(shown, "a t | one\n");
        let rest: String = assembler.finish().iter().map(|line| line.shown(true)).collect();
        assert_eq!(rest, "a t | two\nb t | ha\n");
        assert_eq!(visible("\x1b[2J\t"), "\\u{1b}[2J\t");
    }

    #[test]
    fn a_command_is_told_by_what_it_printed_and_how_it_ended() {
        let node = |name: &str, state: &str, message: &str| RunNode {
            name: name.into(),
            state: state.into(),
            message: message.into(),
            ..RunNode::default()
        };
        let nodes = [
            node("w1", "Changed", ""),
            node("w2", "Changed", ""),
            node("w3", "Unreachable", "has no session"),
            node("w4", "Ok", ""),
        ];
        assert_eq!(
            of_nodes(&nodes, &lines("w1 exec | up\nw2 exec | up\n")),
            "2 nodes: w1 w2\n  | up\n1 node: w3\n  Unreachable: has no session\n1 node: w4; nothing was printed\n"
        );
    }
}
