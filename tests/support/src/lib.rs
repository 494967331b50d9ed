//! Development code: the servers that the tests, `make demo` and `make sandbox` run against.
//! Nothing here is part of the production image.

pub mod conformance;
pub mod sqs;
