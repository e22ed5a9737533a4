//! The way of every request to a server and of its answer. Notes where the servers are, as answers say it, and keeps that
//! in the context's file; knows nothing of what is asked.

use crate::context;
use lockstep_grpc::addresses::{Addresses, SERVERS_HEADER};
use std::{
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task,
};
use tonic::{
    body::Body,
    codegen::http::{HeaderMap, Request, Response},
    transport::{self, Channel},
};

/// A channel that learns. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    channel: Channel,
    learnt: Option<Arc<Learnt>>,
}

struct Learnt {
    addresses: Addresses,
    /// The context's.
    file: Box<Path>,
    ca: String,
    /// What the file holds, as far as we know; or what could not be written to it.
    noted: Mutex<Vec<String>>,
}

impl Link {
    /// Over a channel that shares these addresses. `noted` are those of the context's file, `ca` is its cluster's.
    pub(crate) fn new(channel: Channel, addresses: Addresses, file: &Path, ca: &str, noted: &[String]) -> Link {
        let noted = Mutex::new(noted.to_vec());
        let learnt = Learnt { addresses, file: file.into(), ca: ca.to_owned(), noted };
        Link { channel, learnt: Some(Arc::new(learnt)) }
    }

    /// One that learns nothing.
    pub(crate) fn deaf(channel: Channel) -> Link {
        Link { channel, learnt: None }
    }
}

impl Learnt {
    fn note(&self, headers: &HeaderMap) {
        if let Some(named) = headers.get(SERVERS_HEADER).and_then(|value| value.to_str().ok()) {
            let named = named.split(',').map(str::trim).filter(|address| !address.is_empty());
            self.addresses.learn(&named.map(str::to_owned).collect::<Vec<_>>());
        }
        let now = self.addresses.list();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted != now {
            // A file that cannot be written is no reason to fail, nor to say so each time: `lockstep doctor` does.
            let _ = context::note_servers(&self.file, &self.ca, &now);
            *noted = now;
        }
    }
}

impl tower::Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, transport::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), transport::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, learnt) = (self.channel.call(request), self.learnt.clone());
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(learnt) = learnt {
                learnt.note(answer.headers());
            }
            Ok(answer)
        })
    }
}
