//! Actions on a real machine: folders, mounts and processes of this one. Needs root, as the agent does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod archives;
mod artifacts;
mod commands;
mod convergence;
mod dnf;
mod edits;
mod faults;
mod files;
mod git;
mod http;
mod kernel;
mod owners;
mod races;
mod removals;
mod stage;
