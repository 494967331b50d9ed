//! The real program in the environments that it is put into. Apart from the other tests of the program, as it is started some
//! hundred times at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "it/process/any_value.rs"]
mod any_value;
#[path = "it/process/environments.rs"]
mod environments;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "it/process/program.rs"]
mod program;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "it/process/schema.rs"]
mod schema;
#[path = "it/world.rs"]
mod world;
