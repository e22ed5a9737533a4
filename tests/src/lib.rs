//! The test harness as a library: isolated hosts, real components, the simulator, judges of what happened.
//! Nothing here is needed at run time.

pub mod daemon;
pub mod etcd;
pub mod hosts;
pub mod http;
pub mod intervals;
pub mod local;
pub mod process;
pub mod rig;
pub mod simulation;
pub mod told;
