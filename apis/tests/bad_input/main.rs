//! The catalogue of bad input, as far as no cluster is needed to know it: each row is refused for its reason, at its
//! place, and no object comes out. Rows are named after the catalogue's numbers.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing must fail")]

mod actions;
mod artifacts;
mod documents;
mod fields;
mod names;
mod repositories;
mod runs;
mod table;
mod variables;
