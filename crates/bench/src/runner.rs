//! Runs contenders in turn under a load and computes their figures.

pub mod budget;
pub mod contender;
pub mod load;
pub mod plan;
pub mod results;
pub mod round;
pub mod statistics;
mod system;
pub mod table;
