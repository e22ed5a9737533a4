//! Tells users with every answer where all servers are, so that their tool can ask another one when this is gone. Knows
//! the servers that are up; nothing of requests but who calls.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::TryFutureExt;
use futures::future::MapOk;
use lockstep_grpc::addresses::{MAX_ADDRESSES, SERVERS_HEADER};
use tonic::codegen::http::{HeaderValue, Request, Response};
use tower::{Layer, Service};

use crate::cache::Cache;
use crate::identity::Role;
use crate::identity::listener::Caller;

/// The layer. It belongs behind authorization: who is refused learns nothing.
#[derive(Clone)]
pub struct Announced(Arc<Cache>);

impl Announced {
    /// Of the servers that the cache knows.
    pub fn new(cache: Arc<Cache>) -> Self {
        Self(cache)
    }

    fn header(&self) -> Option<HeaderValue> {
        let addresses: Vec<String> = self.0.read().server_addresses().take(MAX_ADDRESSES).collect();
        // An address that is no header's text was never one that anybody could connect to.
        HeaderValue::from_str(&addresses.join(",")).ok()
    }
}

impl<S> Layer<S> for Announced {
    type Service = Announcer<S>;

    fn layer(&self, inner: S) -> Announcer<S> {
        Announcer { inner, announced: self.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Announcer<S> {
    inner: S,
    announced: Announced,
}

type Told<C> = Box<dyn FnOnce(Response<C>) -> Response<C> + Send>;

impl<S, B, C> Service<Request<B>> for Announcer<S>
where
    S: Service<Request<B>, Response = Response<C>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MapOk<S::Future, Told<C>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let identity = request.extensions().get::<Caller>().and_then(|caller| caller.identity.as_ref());
        let is_user = identity.is_some_and(|identity| identity.role == Role::User);
        let header = if is_user { self.announced.header() } else { None };
        self.inner.call(request).map_ok(Box::new(|mut response: Response<C>| {
            if let Some(header) = header {
                response.headers_mut().insert(SERVERS_HEADER, header);
            }
            response
        }))
    }
}
