//! What `lockstepd` does beside serving: making a cluster and joining one.

pub mod init;
pub mod join;
mod place;
