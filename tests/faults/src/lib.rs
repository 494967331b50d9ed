//! Faults, injected from outside into the worker that users run: a process of its own, with real sockets, real servers and
//! real kills. Each case sends events, does harm, and then holds the account: *what goes in must come out*.

pub mod proxy;
