//! What tasks printed, as one stream that goes on when a server goes: another one is asked, and what was told already
//! is passed over.

use super::watch::{PATIENCE, PAUSE};
use crate::{
    context::Session,
    error::{Error, Result, is_lost},
};
use lockstep_apis::v1alpha::{LogLine, LogsRequest};
use prost::Message;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};
use tonic::{Code, Status, Streaming};

/// The lines that a request names.
pub(crate) struct Lines<'s> {
    session: &'s Session,
    request: LogsRequest,
    stream: Option<Streaming<LogLine>>,
    patience: u32,
    told: Told,
}

impl Lines<'_> {
    /// All that is there; with `follow`, until the Run has ended.
    pub(crate) fn new(session: &Session, request: LogsRequest) -> Lines<'_> {
        Lines { session, request, stream: None, patience: PATIENCE, told: Told::default() }
    }

    /// The next line; nothing after the last. Errors: a request that is wrong, or output that no server has that answers.
    pub(crate) async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            match self.message().await {
                Ok(Some(line)) if self.told.is_news(&line) => {
                    self.patience = PATIENCE;
                    return Ok(Some(line));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(status) => self.again(status).await?,
            }
        }
    }

    async fn message(&mut self) -> Result<Option<LogLine>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let opened = self.session.runs().logs(self.request.clone()).await?;
                self.told.begin_anew();
                self.stream.insert(opened.into_inner())
            }
        };
        stream.message().await
    }

    async fn again(&mut self, status: Status) -> Result<()> {
        self.stream = None;
        // Who follows may wait until a server that has gone is known to be.
        let may_come = is_lost(&status) || (self.request.follow && status.code() == Code::Unavailable);
        self.patience = self.patience.saturating_sub(1);
        if !may_come {
            return Err(status.into());
        }
        if self.patience == 0 {
            return Err(Error::Unreachable(status.message().to_owned()));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// What was told: how often each line, by its hash. Servers keep output in the pieces that it came in.
#[derive(Default)]
struct Told {
    seen: HashMap<u64, u32>,
    /// Of those, the ones that the present stream has yet to repeat.
    repeats: HashMap<u64, u32>,
}

impl Told {
    /// A stream begins that tells all of it once more.
    fn begin_anew(&mut self) {
        self.repeats.clone_from(&self.seen);
    }

    fn is_news(&mut self, line: &LogLine) -> bool {
        let mut hasher = DefaultHasher::new();
        line.encode_to_vec().hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(left) = self.repeats.get_mut(&hash).filter(|left| **left > 0) {
            *left -= 1;
            return false;
        }
        *self.seen.entry(hash).or_default() += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_passed_over_once_and_what_is_new_is_not() {
        let line = |node: &str| LogLine { node: node.into(), ..LogLine::default() };
        let mut told = Told::default();
        let news = |told: &mut Told, nodes: &str| -> String {
            nodes.split(' ').filter(|node| told.is_news(&line(node))).collect::<Vec<_>>().join(" ")
        };
        told.begin_anew();
        // The same twice was printed twice.
        assert_eq!(news(&mut told, "a b b"), "a b b");
        told.begin_anew();
        assert_eq!(news(&mut told, "b a b b c"), "b c");
        told.begin_anew();
        assert_eq!(news(&mut told, "a b b b c d"), "d");
    }
}
