//! The parts that measure the worker, each a process of its own.
//!
//! [`services`] are cheap servers in place of SQS, the Reservation API and the Inventory service;
//! [`floor`] and [`plain`] are two yardsticks; [`runner`] runs them in turn. [`pure`] is separate:
//! it has the parts of the worker that only compute. [`trials`] have services with a limit, or back
//! after an outage; [`peers`] runs the worker beside other programs, under good and bad loads.

pub mod clock;
pub mod command;
pub mod floor;
pub mod peers;
pub mod plain;
pub mod pure;
pub mod runner;
pub mod services;
pub mod trials;

/// Returns a variable of the environment.
///
/// # Errors
/// If it is not set; the text names it.
pub fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|why| format!("{name}: {why}"))
}
