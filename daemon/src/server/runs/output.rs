//! What tasks printed: of this server's log store, and of the other servers', as one stream. Knows names of nodes and
//! tasks; not how output is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use lockstep_apis::commit::Revision;
use lockstep_apis::keys::Attempt;
use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{LogLine, LogsRequest, OutputChunk, RunRequest};
use lockstep_apis::violation::{of_field, shown};
use lockstep_core::world::{Plan, RunState};
use lockstep_grpc::runs_client::RunsClient;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::super::Shared;
use super::{RunsApi, find};
use crate::cache::Cache;
use crate::logs::{LogStore, Part};
use crate::status::{Answer, Problem};

/// After the end of a Run, output that is still under way is waited for this long.
const LATE: Duration = Duration::from_secs(5);

/// A follower looks again after this long, whatever it was told.
const LOOK: Duration = Duration::from_secs(2);

/// To connect to another server.
const CONNECT: Duration = Duration::from_secs(5);

type Lines = Pin<Box<dyn Stream<Item = Result<LogLine, Status>> + Send>>;

impl RunsApi {
    /// The lines of a Run: all that is there, and what comes, if that is asked for.
    pub(super) async fn output_of(&self, request: LogsRequest) -> Answer<Lines> {
        self.0.cache.catch_up(&*self.0.store).await?;
        let named = RunRequest { namespace: request.namespace.clone(), name: request.run.clone() };
        let tail = {
            let state = self.0.cache.read();
            Tail::new(&self.0, find(state.world(), &named)?, &request)?
        };
        let mut sources: Vec<Lines> = vec![Box::pin(tail.into_stream())];
        if !request.local {
            let others = self.0.peers.others().into_iter();
            sources.extend(others.map(|server| elsewhere(self.0.clone(), server, request.clone())));
        }
        Ok(match request.follow {
            true => Box::pin(futures::stream::select_all(sources)),
            false => Box::pin(merged(sources)),
        })
    }
}

/// The lines that another server keeps.
fn elsewhere(shared: Arc<Shared>, server: String, request: LogsRequest) -> Lines {
    let lines = async move {
        let named = shared.cache.read().servers().get(&server).map(|record| record.name.clone());
        let name = named.unwrap_or_else(|| server.clone());
        let unreachable = |problem: String| -> Status {
            Problem::Unavailable(format!("output that the server {name} keeps is missing here: {problem}")).into()
        };
        let channel = match tokio::time::timeout(CONNECT, shared.peers.channel(&server)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(problem)) => return Err(unreachable(problem.to_string())),
            Err(_) => return Err(unreachable("it does not answer".into())),
        };
        let asked = RunsClient::new(channel).logs(LogsRequest { local: true, ..request }).await;
        asked.map(tonic::Response::into_inner).map_err(|status| unreachable(status.message().to_owned()))
    };
    let lines = futures::stream::once(lines).flat_map(|opened| -> Lines {
        match opened {
            Ok(lines) => Box::pin(lines),
            Err(status) => Box::pin(futures::stream::once(std::future::ready(Err(status)))),
        }
    });
    Box::pin(lines)
}

/// Lines of several servers, each in order of node, segment and attempt, as one in that order. What two servers have
/// (an agent changed its server and sent again) is given once. Errors come last, so that nothing is kept back by them.
fn merged(sources: Vec<Lines>) -> impl Stream<Item = Result<LogLine, Status>> + Send {
    let merge = Merge { heads: sources.iter().map(|_| None).collect(), sources, errors: VecDeque::new() };
    futures::stream::unfold(merge, |mut merge| async {
        let next = merge.next().await?;
        Some((next, merge))
    })
}

struct Merge {
    /// Emptied when it has ended.
    sources: Vec<Lines>,
    heads: Vec<Option<LogLine>>,
    errors: VecDeque<Status>,
}

impl Merge {
    async fn next(&mut self) -> Option<Result<LogLine, Status>> {
        for (source, head) in self.sources.iter_mut().zip(&mut self.heads) {
            if head.is_none() {
                match source.next().await {
                    Some(Ok(line)) => *head = Some(line),
                    Some(Err(status)) => {
                        self.errors.push_back(status);
                        *source = Box::pin(futures::stream::empty());
                    }
                    None => *source = Box::pin(futures::stream::empty()),
                }
            }
        }
        let order = |line: &LogLine| {
            let at_ms = line.chunk.as_ref().map_or(0, |chunk| chunk.at_ms);
            (line.node.clone(), line.segment, line.attempt, at_ms)
        };
        let heads = self.heads.iter().enumerate();
        let first = heads.filter_map(|(at, head)| Some((order(head.as_ref()?), at))).min();
        let Some((_, at)) = first else { return self.errors.pop_front().map(Err) };
        let line = self.heads.get_mut(at)?.take()?;
        for head in &mut self.heads {
            if head.as_ref() == Some(&line) {
                *head = None;
            }
        }
        Some(Ok(line))
    }
}

/// What is wanted of a Run's output.
struct Wanted {
    uid: String,
    /// Uid of the node.
    node: Option<String>,
    tasks: Option<BTreeSet<u32>>,
}

/// One reader of this server's log store.
struct Tail {
    cache: Arc<Cache>,
    logs: LogStore,
    changed: watch::Receiver<u64>,
    revision: watch::Receiver<Revision>,
    wanted: Wanted,
    follow: bool,
    /// How far each attempt was read, and whether its end was.
    read: BTreeMap<Attempt, (u64, bool)>,
    ready: VecDeque<LogLine>,
    /// When the Run was first seen to have ended.
    ended_at: Option<Instant>,
}

impl Tail {
    fn new(shared: &Shared, run: &RunState, request: &LogsRequest) -> Answer<Self> {
        let wanted = Wanted {
            uid: run.uid().to_owned(),
            node: node_named(run, &request.node)?,
            tasks: tasks_named(run, &request.task)?,
        };
        Ok(Self {
            cache: shared.cache.clone(),
            logs: shared.logs.clone(),
            changed: shared.logs.follow(run.uid()),
            revision: shared.cache.revision(),
            wanted,
            follow: request.follow,
            read: BTreeMap::new(),
            ready: VecDeque::new(),
            ended_at: None,
        })
    }

    fn into_stream(self) -> impl Stream<Item = Result<LogLine, Status>> + Send {
        futures::stream::unfold(Some(self), |tail| async {
            let mut tail = tail?;
            match tail.next().await {
                Ok(line) => Some((Ok(line?), Some(tail))),
                Err(problem) => Some((Err(problem.into()), None)),
            }
        })
    }

    async fn next(&mut self) -> Answer<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            self.changed.mark_unchanged();
            self.revision.mark_unchanged();
            // Before the look: what came before the end is then seen.
            let over = self.is_over();
            if self.look().await? {
                continue;
            }
            if !self.follow || over {
                return Ok(None);
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                _ = self.revision.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Whether nothing follows: the Run has ended, and every attempt's end was read or has been waited for.
    fn is_over(&mut self) -> bool {
        let state = self.cache.read();
        let gone = state.world().run(&self.wanted.uid).is_none_or(|run| run.has_ended() || run.object().is_none());
        if !gone {
            return false;
        }
        let since = self.ended_at.get_or_insert_with(Instant::now);
        since.elapsed() > LATE || (!self.read.is_empty() && self.read.values().all(|(_, last)| *last))
    }

    /// Reads on. Returns whether there was anything.
    async fn look(&mut self) -> Answer<bool> {
        let (logs, uid) = (self.logs.clone(), self.wanted.uid.clone());
        let mut attempts = blocking(move || logs.attempts(&uid)).await?;
        attempts.retain(|attempt| self.wanted.node.as_ref().is_none_or(|node| attempt.for_node == *node));
        let plan = self.cache.read().world().run(&self.wanted.uid).and_then(|run| run.plan().cloned());
        let name = |attempt: &Attempt| match &plan {
            Some(plan) => plan.node(&attempt.for_node).map_or("", |node| plan.name(node)).to_owned(),
            None => attempt.for_node.clone(),
        };
        attempts.sort_by_cached_key(|attempt| (name(attempt), attempt.segment, attempt.attempt));
        for attempt in attempts {
            let (from, last) = self.read.get(&attempt).copied().unwrap_or_default();
            if last {
                continue;
            }
            let (logs, asked) = (self.logs.clone(), attempt.clone());
            let part: Part = blocking(move || logs.read(&asked, from)).await?;
            self.read.insert(attempt.clone(), (part.next, part.last && !part.more));
            let lines = part.chunks.into_iter().filter(|(_, chunk)| self.wanted.has(chunk));
            let node = name(&attempt);
            self.ready.extend(lines.map(|(_, chunk)| line(&attempt, &node, plan.as_deref(), chunk)));
            if part.next > from {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Wanted {
    fn has(&self, chunk: &OutputChunk) -> bool {
        self.tasks.as_ref().is_none_or(|tasks| tasks.contains(&chunk.task))
    }
}

fn line(attempt: &Attempt, node: &str, plan: Option<&Plan>, chunk: OutputChunk) -> LogLine {
    let tasks = plan.and_then(|plan| plan.segment(attempt.segment)).map_or(&[][..], |segment| &segment.tasks);
    let task = tasks.iter().find(|task| task.index == chunk.task);
    LogLine {
        node: node.to_owned(),
        // A health gate has a name only.
        task: task.map_or_else(
            || chunk.task.to_string(),
            |task| if task.id.is_empty() { task.name.clone() } else { task.id.clone() },
        ),
        segment: attempt.segment,
        attempt: attempt.attempt,
        chunk: Some(chunk),
    }
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Answer<T> {
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|problem| Problem::Internal(format!("reading output ended: {problem}")))?;
    read.map_err(|problem| Problem::Internal(format!("the output that this server keeps cannot be read: {problem}")))
}

fn node_named(run: &RunState, name: &str) -> Answer<Option<String>> {
    if name.is_empty() {
        return Ok(None);
    }
    let nodes = run.plan().map_or(&[][..], |plan| &plan.snapshot.nodes);
    match nodes.iter().find(|node| node.name == name) {
        Some(node) => Ok(Some(node.uid.clone())),
        None => Err(unknown("node", name, nodes.iter().map(|node| node.name.as_str()))),
    }
}

fn tasks_named(run: &RunState, word: &str) -> Answer<Option<BTreeSet<u32>>> {
    if word.is_empty() {
        return Ok(None);
    }
    let segments = run.plan().map_or(&[][..], |plan| &plan.snapshot.segments);
    let tasks = || segments.iter().flat_map(|segment| &segment.tasks);
    let named: BTreeSet<u32> =
        tasks().filter(|task| task.id == word || task.name == word).map(|task| task.index).collect();
    match named.is_empty() {
        false => Ok(Some(named)),
        true => Err(unknown("task", word, tasks().map(|task| task.id.as_str()))),
    }
}

fn unknown<'n>(what: &str, given: &str, there: impl Iterator<Item = &'n str>) -> Problem {
    let near = nearest(given, there).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let message = format!("the run has no {what} {}{near}", shown(given));
    Problem::Violations(vec![of_field("NoMatch", what, message)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(node: &str, attempt: u32, text: &str) -> LogLine {
        let chunk = OutputChunk { data: text.as_bytes().to_vec(), ..OutputChunk::default() };
        LogLine { node: node.into(), attempt, chunk: Some(chunk), ..LogLine::default() }
    }

    fn source(lines: Vec<Result<LogLine, Status>>) -> Lines {
        Box::pin(futures::stream::iter(lines))
    }

    #[tokio::test]
    async fn what_two_servers_keep_is_one_output_in_order_and_told_once() {
        let here = vec![Ok(line("a", 1, "1")), Ok(line("a", 1, "2")), Ok(line("c", 1, "1"))];
        let there = vec![Ok(line("a", 1, "2")), Ok(line("a", 2, "1")), Ok(line("b", 1, "1"))];
        let all: Vec<_> = merged(vec![source(here), source(there)]).map(Result::unwrap).collect().await;
        let told: Vec<(&str, u32, &[u8])> = all
            .iter()
            .map(|line| (line.node.as_str(), line.attempt, line.chunk.as_ref().unwrap().data.as_slice()))
            .collect();
        let expected: [(&str, u32, &[u8]); 5] =
            [("a", 1, b"1"), ("a", 1, b"2"), ("a", 2, b"1"), ("b", 1, b"1"), ("c", 1, b"1")];
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn a_server_that_is_away_keeps_nothing_of_the_others_back() {
        let away = source(vec![Err(Status::unavailable("away"))]);
        let here = source(vec![Ok(line("a", 1, "1")), Ok(line("b", 1, "1"))]);
        let all: Vec<_> = merged(vec![away, here]).collect().await;
        assert_eq!(all.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    }
}
