//! Runs contenders in turn under a load and computes their figures.

pub mod budget;
pub mod contender;
pub mod load;
pub mod plan;
pub mod results;
pub mod round;
pub mod statistics;
pub mod status_poll;
pub(crate) mod system;
pub mod table;
