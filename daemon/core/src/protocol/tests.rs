//! What claims, reports and releases may not do.
