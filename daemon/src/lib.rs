//! The daemon `lockstepd` as a library: one module per part, wired in `app`.

pub mod store;
pub mod identity;
pub mod sealing;
pub mod settings;
pub mod commands;
pub mod agent;
