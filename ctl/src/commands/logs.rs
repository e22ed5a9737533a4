//! `lockstep logs`.

use super::{lines::Lines, run_name};
use crate::{cli::Logs, context::Session, error::Result, render::alike::Diffs};
use lockstep_apis::v1alpha::{LogLine, LogsRequest, OutputStream};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// A line longer than this is printed in pieces.
const MAX_LINE_BYTES: usize = 64 * 1024;

pub(crate) async fn logs(session: &Session, logs: &Logs) -> Result<()> {
    let mut lines = Lines::new(
        session,
        LogsRequest {
            namespace: session.namespace.clone(),
            run: run_name(&logs.run).to_owned(),
            node: logs.node.clone().unwrap_or_default(),
            task: logs.task.clone().unwrap_or_default(),
            follow: logs.follow,
            local: false,
        },
    );
    let mut printer = Printer { one_node: logs.node.is_some(), open: BTreeMap::new() };
    while let Some(line) = lines.next().await? {
        let is_diff = line.chunk.as_ref().is_some_and(|chunk| chunk.stream() == OutputStream::Diff);
        if logs.diff && !is_diff {
            continue;
        }
        if printer.take(line).is_err() {
            // Whoever read us has gone, as `head` does.
            return Ok(());
        }
    }
    let _ = printer.finish();
    Ok(())
}

/// The diffs of a Run, by node and task.
pub(crate) async fn diffs(session: &Session, run: &str) -> Result<Diffs> {
    let request = LogsRequest { namespace: session.namespace.clone(), run: run.to_owned(), ..LogsRequest::default() };
    let mut lines = Lines::new(session, request);
    let mut diffs: BTreeMap<(String, String), Vec<u8>> = BTreeMap::new();
    while let Some(line) = lines.next().await? {
        let Some(chunk) = line.chunk.filter(|chunk| chunk.stream() == OutputStream::Diff) else { continue };
        diffs.entry((line.node, line.task)).or_default().extend_from_slice(&chunk.data);
    }
    let text = |(key, bytes): (_, Vec<u8>)| (key, String::from_utf8_lossy(&bytes).into_owned());
    Ok(diffs.into_iter().map(text).collect())
}

/// Prints whole lines: nodes write at once, and half lines of two of them make nonsense.
struct Printer {
    one_node: bool,
    open: BTreeMap<(String, String, i32), Vec<u8>>,
}

impl Printer {
    fn take(&mut self, line: LogLine) -> io::Result<()> {
        let Some(chunk) = line.chunk else { return Ok(()) };
        let key = (line.node, line.task, chunk.stream);
        if chunk.dropped > 0 {
            self.print(&key, format!("… {} bytes left out …", chunk.dropped).as_bytes())?;
        }
        let mut open = self.open.remove(&key).unwrap_or_default();
        open.extend_from_slice(&chunk.data);
        let mut rest = open.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.print(&key, &rest[..end])?;
            rest = &rest[end + 1..];
        }
        if rest.len() > MAX_LINE_BYTES {
            self.print(&key, rest)?;
            rest = &[];
        }
        if !rest.is_empty() {
            let rest = rest.to_vec();
            self.open.insert(key, rest);
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        for (key, rest) in std::mem::take(&mut self.open) {
            self.print(&key, &rest)?;
        }
        Ok(())
    }

    fn print(&self, (node, task, stream): &(String, String, i32), text: &[u8]) -> io::Result<()> {
        let mark = match OutputStream::try_from(*stream) {
            Ok(OutputStream::Stderr) => "!",
            Ok(OutputStream::Diff) => "~",
            _ => "|",
        };
        let mut out = io::stdout().lock();
        if !self.one_node {
            write!(out, "{node} ")?;
        }
        write!(out, "{task} {mark} ")?;
        // Control characters of a node must not reach the terminal of an admin.
        for c in String::from_utf8_lossy(text).chars() {
            if c.is_control() && c != '\t' {
                write!(out, "{}", c.escape_default())?;
            } else {
                write!(out, "{c}")?;
            }
        }
        writeln!(out)
    }
}
