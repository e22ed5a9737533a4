//! Does one segment on one node: conditions, rendering, actions, journal, output, masking. The daemon runs it in a
//! process of its own, `lockstep run --local` in the tool's. Knows no server and no store; of the machine it touches
//! only the segment's folder and its own children; everything else goes through `lockstep_modules`.

mod folder;
pub mod frame;
mod gate;
pub mod guard;
pub mod journal;
mod leftovers;
pub mod local;
mod looping;
pub mod masking;
pub mod output;
mod preparing;
mod raised;
mod rebooting;
mod results;
pub mod segment;
mod sequence;
mod surroundings;
mod together;
mod tries;
