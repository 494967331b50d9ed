//! Fault tests of the worker as users run it: a real process with real sockets, servers and kills.
//! Each case sends events, injects a fault, and checks the account of all messages and calls.
//!
//! A case (`cases`) has a `World` of its own: stand-ins, a proxy before each, and the environment
//! of the workers that it starts (`worker`). `account` checks the results, `progress` their times,
//! `turns` the order of a reservation's events, and `command` runs the list and prints the table.

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
pub mod turns;
pub mod worker;
pub mod world;
