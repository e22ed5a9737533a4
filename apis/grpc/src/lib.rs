//! gRPC clients and servers of the services in `apis/proto`, and how to connect. Apart from `lockstep-apis` so that
//! the functional core, which needs the messages, has no network crate in its dependency tree.

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in the proto files")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/lockstep.v1alpha.rs"));
}

pub mod addresses;
pub mod channel;
pub mod codec;
pub mod peer;

pub use generated::*;
