//! A watch that goes on when a server goes: another one of the channel answers, from where we were.

use crate::{
    context::Session,
    error::{Error, Result, is_lost},
};
use lockstep_apis::v1alpha::{WatchEvent, WatchEventType, WatchRequest};
use std::time::Duration;
use tonic::{Code, Status, Streaming};

/// How often a watch is opened again without anything having come of it.
pub(crate) const PATIENCE: u32 = 20;
/// Before it is opened again.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// Changes of what a request names.
pub(crate) struct Watch<'s> {
    session: &'s Session,
    request: WatchRequest,
    stream: Option<Streaming<WatchEvent>>,
    patience: u32,
}

impl Watch<'_> {
    /// From after the request's version; without one, what is there comes first, as Added.
    pub(crate) fn new(session: &Session, request: WatchRequest) -> Watch<'_> {
        Watch { session, request, stream: None, patience: PATIENCE }
    }

    /// The next change; bookmarks are kept for ourselves.
    ///
    /// If the version from which to go on is too old for the server, what is there comes once more, as Added, and
    /// deletions in between were missed. Errors: a request that is wrong, or no server for long.
    pub(crate) async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            match self.message().await {
                Ok(Some(event)) => {
                    self.patience = PATIENCE;
                    self.request.resource_version.clone_from(&event.resource_version);
                    if event.r#type() != WatchEventType::Bookmark {
                        return Ok(event);
                    }
                }
                Ok(None) => self.stream = None,
                Err(status) => {
                    self.stream = None;
                    self.again(status).await?;
                }
            }
        }
    }

    async fn message(&mut self) -> Result<Option<WatchEvent>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let opened = self.session.objects().watch(self.request.clone()).await?;
                self.stream.insert(opened.into_inner())
            }
        };
        stream.message().await
    }

    async fn again(&mut self, status: Status) -> Result<()> {
        match status.code() {
            Code::OutOfRange => self.request.resource_version.clear(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {}
            _ if is_lost(&status) => {}
            _ => return Err(status.into()),
        }
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            return Err(Error::Unreachable(status.message().to_owned()));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}
