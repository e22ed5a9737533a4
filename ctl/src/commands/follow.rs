//! A Run that is made, and followed to its end: what `run`, `exec`, `retry` and `rerun` share.

use super::{lines::Lines, logs, watch::Watch};
use crate::{
    context::Session,
    error::{Error, Result},
    render::{
        alike::{self, Diffs},
        output::{Assembler, Line},
        progress::Progress,
        summary,
    },
};
use lockstep_apis::v1alpha::{
    CreateRequest, LogsRequest, Metadata, Object, Run, RunNode, RunPhase, RunRequest, RunSpec, WatchEventType,
    WatchRequest, object::Kind as Message,
};
use std::{
    process,
    time::{SystemTime, UNIX_EPOCH},
};

/// The name of the task that is a rollout group's health gate.
const GATE: &str = "health gate";

/// What is shown of a Run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// That it was made.
    Created,
    /// How it goes, and how it ended.
    Summary,
    /// The same, and what its task printed.
    Output,
}

impl Show {
    /// As `--wait` says.
    pub(crate) fn waiting(wait: bool) -> Show {
        if wait { Show::Summary } else { Show::Created }
    }
}

/// A Run that is not there yet, of this name or one that begins with the stem.
pub(crate) fn new(session: &Session, stem: &str, name: Option<&str>, spec: RunSpec) -> Run {
    let metadata = Metadata {
        api_version: "v1alpha".into(),
        kind: "Run".into(),
        name: name.map_or_else(|| generated_name(stem), str::to_owned),
        namespace: session.namespace.clone(),
        ..Metadata::default()
    };
    Run { metadata: Some(metadata), spec: Some(spec), status: None }
}

/// Makes a Run, and says how that went, or follows it.
pub(crate) async fn create(session: &Session, run: Run, show: Show) -> Result<()> {
    let asked = run.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let request = CreateRequest { object: Some(Object { kind: Some(Message::Run(run)) }), dry_run: false };
    let created = session.objects().create(request).await?.into_inner();
    // By the book's concurrency policy Join it is one that does the same already.
    let how = if created.metadata().name == asked { "created" } else { "joined: it does the same already" };
    follow(session, created, how, show).await
}

/// Says how it came to be, or follows it to its end.
pub(crate) async fn follow(session: &Session, created: Object, how: &str, show: Show) -> Result<()> {
    let metadata = created.metadata().clone();
    if show == Show::Created {
        println!("run/{} {how}", metadata.name);
        return Ok(());
    }
    let mut progress = Progress::new(&metadata.name, show != Show::Output);
    let Some(Message::Run(mut last)) = created.kind else { return Ok(()) };
    progress.show(&last);
    let request = WatchRequest {
        kind: "Run".into(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        resource_version: metadata.resource_version.clone(),
        ..WatchRequest::default()
    };
    let mut watch = Watch::new(session, request);
    let mut gates = Gates::Later;
    while !ended(&last) {
        gates.open(session, &metadata, &last, &progress);
        let event = tokio::select! {
            event = watch.next() => event?,
            look = gates.next() => {
                progress.looked(&look.node, &look.text);
                continue;
            }
        };
        if event.r#type() == WatchEventType::Deleted {
            progress.close();
            return Err(Error::Usage(format!("run/{} was deleted", metadata.name)));
        }
        if let Some(Object { kind: Some(Message::Run(run)) }) = event.object {
            progress.show(&run);
            last = run;
        }
    }
    progress.close();
    let request = RunRequest { namespace: metadata.namespace, name: metadata.name };
    let nodes = session.ask(async || session.runs().nodes(request.clone()).await).await?.nodes;
    tell(session, &last, &nodes, show).await?;
    let status = last.status.unwrap_or_default();
    match status.phase() {
        RunPhase::Succeeded if status.nodes.as_ref().is_some_and(|n| n.unreachable > 0) => Err(Error::NodesSkipped),
        RunPhase::Succeeded => Ok(()),
        _ => Err(Error::RunFailed),
    }
}

/// What the health gates of a Run tell while it goes, for somebody who looks on.
enum Gates<'s> {
    /// Its tasks are not known yet.
    Later,
    Told(Box<Lines<'s>>, Assembler, Vec<Line>),
    /// It has none, or nobody looks on.
    None,
}

impl<'s> Gates<'s> {
    fn open(&mut self, session: &'s Session, metadata: &Metadata, run: &Run, progress: &Progress) {
        let is_under_way = run.status.as_ref().is_some_and(|status| status.phase() == RunPhase::Running);
        if !matches!(self, Gates::Later) || !is_under_way {
            return;
        }
        let request = LogsRequest {
            namespace: metadata.namespace.clone(),
            run: metadata.name.clone(),
            task: GATE.into(),
            follow: true,
            ..LogsRequest::default()
        };
        *self = match progress.is_live() {
            true => Gates::Told(Box::new(Lines::new(session, request)), Assembler::default(), Vec::new()),
            false => Gates::None,
        };
    }

    /// The next look; waits for ever where there is none.
    async fn next(&mut self) -> Line {
        while let Gates::Told(pieces, assembler, lines) = self {
            if let Some(line) = lines.pop() {
                return line;
            }
            match pieces.next().await {
                Ok(Some(piece)) => {
                    *lines = assembler.take(piece);
                    lines.reverse();
                }
                // The Run has no gate; or what is only shown to pass the time cannot be had.
                Ok(None) | Err(_) => *self = Gates::None,
            }
        }
        std::future::pending().await
    }
}

/// How it ended, in the end.
async fn tell(session: &Session, run: &Run, nodes: &[RunNode], show: Show) -> Result<()> {
    let spec = run.spec.clone().unwrap_or_default();
    let name = run.metadata.as_ref().map(|own| own.name.clone()).unwrap_or_default();
    if show == Show::Output {
        logs::of_one_task(session, &name, nodes).await?;
        eprint!("{}", summary::end(run, nodes));
    } else if spec.check || spec.diff {
        let diffs = if spec.diff { logs::diffs(session, &name).await? } else { Diffs::new() };
        print!("{}", alike::nodes(nodes, &diffs, spec.check));
        print!("{}", summary::end(run, nodes));
    } else {
        print!("{}", summary::run(run, nodes));
    }
    Ok(())
}

fn ended(run: &Run) -> bool {
    let phase = run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase());
    matches!(phase, RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled)
}

/// Unique among the Runs of one admin: a name of the book, the time and this process.
pub(crate) fn generated_name(book: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut number = (now.as_micros() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(process::id());
    // Letters and digits that cannot be taken for one another; no vowels, so no words.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let suffix: String = (0..6)
        .map(|_| {
            let letter = ALPHABET[(number % ALPHABET.len() as u64) as usize];
            number /= ALPHABET.len() as u64;
            char::from(letter)
        })
        .collect();
    let book = book.get(..200).unwrap_or(book).trim_end_matches(['-', '.']);
    format!("{book}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_names() {
        let name = generated_name(&"web".repeat(90));
        assert!(name.len() <= 253);
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    }
}
