//! Development code that the tests, `make demo` and `make sandbox` share: stand-ins for everything the worker talks to.
//! Nothing here is part of the production binary.

pub mod inventory;
pub mod ledger;
pub mod proto;
pub mod reservation_api;
pub mod script;

mod course;
mod server;
