//! The worker beside other programs that do the same ([`peer`]): under good loads with the cheap
//! services ([`good`]), and under faults with the sandbox's ([`bad`]). [`fate`] judges what became
//! of the events, [`page`] formats the result.

pub mod bad;
pub mod fate;
pub mod good;
pub mod page;
pub mod peer;
pub mod row;
pub(crate) mod scene;
