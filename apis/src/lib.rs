//! The vocabulary of Lockstep: generated types, kinds, selectors, store keys, text forms, defaults and validation.
//! Knows no network, file, clock or randomness: everything here is a function of its arguments.

pub mod commit;
pub mod cron;
pub mod defaults;
mod descriptor;
pub mod duration;
pub mod explain;
pub mod keys;
pub mod kinds;
pub mod manifest;
pub mod name;
pub mod nearest;
pub mod object;
pub mod params;
pub mod schema;
pub mod selector;
pub mod timestamp;
mod tree;
pub mod validate;
mod value;
pub mod violation;
mod walk;
mod wire;
mod yaml;

/// The messages of `proto/lockstep/v1alpha`: the source of truth for every type on the wire and in the store.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the proto files")]
pub mod v1alpha {
    include!(concat!(env!("OUT_DIR"), "/lockstep.v1alpha.rs"));
}

/// The encoded `FileDescriptorSet` of the protos, with our options and the comments.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
