//! The daemon `lockstepd` as a library: one module per part, wired in `app`.

pub mod agent;
pub mod app;
pub mod authorization;
pub mod cache;
pub mod clock;
pub mod commands;
pub mod committer;
pub mod delivery;
pub mod election;
pub mod events;
pub mod identity;
pub mod leader;
pub mod logs;
pub mod presence;
pub mod readiness;
pub mod sealing;
pub mod server;
pub mod settings;
pub mod status;
pub mod store;
pub mod variables;
