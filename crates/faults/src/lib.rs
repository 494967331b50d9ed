//! Faults, injected from outside into the worker that users run: a process of its own, with real sockets, real servers and
//! real kills. Each case sends events, does harm, and then holds the account: *what goes in must come out*.
//!
//! A case (`cases`) has a `World` of its own: stand-ins, a proxy before each, and the environment of the workers that it
//! starts (`worker`). `account` judges what came out, `progress` when, `command` runs the list and prints the table.

pub mod account;
pub mod case;
pub mod cases;
pub mod collector;
pub mod command;
pub mod events;
pub mod failed;
pub mod progress;
pub mod proxy;
pub mod report;
pub mod soak;
pub mod worker;
pub mod world;
