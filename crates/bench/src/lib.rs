//! What measures the worker, each part a process of its own: [`services`], cheap servers that stand in for SQS, the
//! Reservation API and the Inventory service; two yardsticks, [`floor`] and [`plain`]; and [`runner`], which runs them in turn.
//! [`pure`] is another matter: the parts of the worker that only compute.

pub mod clock;
pub mod command;
pub mod floor;
pub mod plain;
pub mod pure;
pub mod runner;
pub mod services;

/// A variable of the environment.
///
/// # Errors
/// Where it is not set; says which.
pub fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|why| format!("{name}: {why}"))
}
