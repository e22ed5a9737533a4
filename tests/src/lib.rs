//! The test harness as a library: isolated hosts, real components, the simulator, judges of what happened.
//! Nothing here is needed at run time.

pub mod etcd;
pub mod hosts;
pub mod intervals;
