//! Folding entries in any order.
