//! The functional core: expressions, templates, checks of books, the Run compiler, and what a leader decides.
//! Depends on no async, clock, network, file or random crate: time is an argument, the world is an argument, and what
//! is to be written is a result.

pub mod check;
pub mod compile;
pub mod concurrency;
pub mod context;
pub mod course;
pub mod expression;
pub mod fence;
pub mod outcome;
mod outline;
pub mod parameters;
pub mod protocol;
pub mod recovery;
pub mod references;
pub mod standing;
pub mod step;
pub mod template;
pub mod variables;
pub mod world;

pub use outline::{Library, included_books};

#[cfg(test)]
mod fixture;
