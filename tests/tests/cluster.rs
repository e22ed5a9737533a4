//! A real `lockstepd` with the embedded store, spoken to over its real protocol: by an admin, by its own agent, and by
//! agents that say what a test tells them. Knows the promises of delivery; not how they are kept.

#[path = "cluster/admin.rs"]
mod admin;
#[path = "cluster/agent.rs"]
mod agent;
#[path = "cluster/delivery.rs"]
mod delivery;
#[path = "cluster/identity.rs"]
mod identity;
#[path = "cluster/meeting.rs"]
mod meeting;
#[path = "cluster/node.rs"]
mod node;
#[path = "cluster/recovery.rs"]
mod recovery;
#[path = "cluster/rollout.rs"]
mod rollout;
