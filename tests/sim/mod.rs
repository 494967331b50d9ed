//! A world to run the engine in: SQS, the two services, the clock, crashes and signals, all drawn
//! from one seed. The engine is the real one, started by `App::start`; only what it talks to is not.
//!
//! - `plan`: what a seed says will happen, drawn by `draw`. `rows`: the answers that services give.
//! - `world`: what all parts share. `queue` and `sqs`, `services` and `calls`: a part's state and
//!   its checks, and how calls to it travel. `turn`: what may be called, and when. `judge`: what the engine must make of an answer. `order`: who goes first.
//! - `run`: one seed. `check`: what is asked at the end. `coverage`: what was met. `crowd`: many
//!   seeds on all cores.

mod calls;
mod check;
pub(crate) mod coverage;
pub(crate) mod crowd;
mod draw;
mod expect;
mod judge;
mod order;
pub(crate) mod plan;
mod queue;
mod rows;
pub(crate) mod run;
mod services;
mod sqs;
mod tests;
mod turn;
mod world;
