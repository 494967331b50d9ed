//! Development code for the tests, `make demo` and `make sandbox`: stand-ins for all dependencies
//! of the worker. It is not part of the production image.

pub mod conformance;
pub mod console;
pub mod demo;
pub mod inventory;
pub mod ledger;
pub mod process;
pub mod proto;
pub mod redis;
pub mod reservation_api;
pub mod script;
pub mod server;
pub mod servers;
pub mod sqs;
pub mod testing;

mod course;
