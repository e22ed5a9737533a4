//! `lockstep logs`, and what one task printed.

use super::{lines::Lines, run_name};
use crate::{
    cli::Logs,
    context::Session,
    error::Result,
    render::{
        alike::Diffs,
        output::{self, Assembler, Line},
    },
};
use lockstep_apis::v1alpha::{LogsRequest, OutputStream, RunNode};
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
};

/// Most output that is kept until all of it is there. More is printed as it comes, in order of node.
const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;

pub(crate) async fn logs(session: &Session, logs: &Logs) -> Result<()> {
    let request = LogsRequest {
        namespace: session.namespace.clone(),
        run: run_name(&logs.run).to_owned(),
        node: logs.node.clone().unwrap_or_default(),
        task: logs.task.clone().unwrap_or_default(),
        follow: logs.follow,
        local: false,
    };
    let with_node = logs.node.is_none();
    let grouped = with_node && !logs.follow && !logs.by_node;
    let wanted = |line: &Line| !logs.diff || line.stream == OutputStream::Diff;
    let print = |line: &Line| print(&line.shown(with_node));
    let kept = take(Lines::new(session, request), grouped, wanted, print).await?;
    // Whoever read us may have gone, as `head` does.
    let _ = self::print(&output::by_task(&kept));
    Ok(())
}

/// What the one task of a Run printed on its nodes. Of a single node it is as it would be there, if nobody looks on.
pub(crate) async fn of_one_task(session: &Session, run: &str, nodes: &[RunNode]) -> Result<()> {
    let request = LogsRequest { namespace: session.namespace.clone(), run: run.to_owned(), ..LogsRequest::default() };
    let lines = Lines::new(session, request);
    if nodes.len() == 1 && !io::stdout().is_terminal() {
        let bare = |line: &Line| match line.stream {
            OutputStream::Stderr => writeln!(io::stderr(), "{}", line.text),
            _ => writeln!(io::stdout(), "{}", line.text),
        };
        take(lines, false, |_| true, bare).await?;
    } else {
        let kept = take(lines, true, |_| true, |line| print(&line.shown(true))).await?;
        let _ = print(&output::of_nodes(nodes, &kept));
    }
    Ok(())
}

/// Reads all lines that are wanted. Keeps them if that is asked for and they are not too many; else prints them.
async fn take(
    mut pieces: Lines<'_>,
    keep: bool,
    wanted: impl Fn(&Line) -> bool,
    print: impl Fn(&Line) -> io::Result<()>,
) -> Result<Vec<Line>> {
    let (mut assembler, mut kept, mut bytes, mut keep) = (Assembler::default(), Vec::new(), 0, keep);
    loop {
        let (lines, ended) = match pieces.next().await? {
            Some(piece) => (assembler.take(piece), false),
            None => (std::mem::take(&mut assembler).finish(), true),
        };
        for line in lines.into_iter().filter(&wanted) {
            bytes += line.node.len() + line.task.len() + line.text.len();
            kept.push(line);
        }
        keep &= bytes <= MAX_KEPT_BYTES;
        if !keep && kept.drain(..).try_for_each(|line| print(&line)).is_err() {
            // Whoever read us has gone, as `head` does.
            return Ok(Vec::new());
        }
        if ended {
            return Ok(kept);
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
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
