//! A world to run the engine in: SQS, the two services, the clock, crashes and signals, all drawn
//! from one seed. The engine is the real one, started by `App::start`; only what it talks to is not.
//!
//! - `plan`: what a seed says will happen, drawn by `draw`. `rows`: the answers that services give.
//! - `world`: what all parts share. `queue`, `visible` and `sqs`, `services` and `calls`: a part's state and
//!   its checks, and how calls to it travel. `turn`: what may be called, and when. `judge`: what the engine must make of an answer. `order`: who goes first.
//! - `store`: the state of the store that all pods share; `shared`: how operations travel to it;
//!   `other`: who else uses it; `guard`: what it forbids; `store_plan`: what a seed says of it.
//! - `run`: one seed. `check`: what is asked at the end. `coverage`: what was met. `crowd`: many
//!   seeds on all cores.

mod calls;
mod check;
pub(crate) mod coverage;
pub(crate) mod crowd;
mod draw;
mod expect;
mod guard;
pub(crate) mod half_well;
mod judge;
mod order;
mod other;
pub(crate) mod plan;
mod queue;
mod rows;
pub(crate) mod run;
mod services;
mod shared;
mod sqs;
mod store;
mod store_plan;
mod store_tests;
mod tests;
mod turn;
mod visible;
mod world;
