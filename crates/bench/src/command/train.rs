//! `train PROGRAM FOLDER`: runs a worker built with `-C profile-generate` under typical loads.
//!
//! The worker writes its profile to FOLDER only on an orderly exit, so it is ended with SIGTERM.
//! See `crates/bench/pgo`.

use std::path::Path;

use super::Failure;
use crate::runner::contender::{Contender, Redis, ServicesProcess};
use crate::runner::load::Load;

/// Loads, each with the share of traced events and whether the records are in Redis.
const LESSONS: [(&str, &str, bool); 5] = [
    ("saturated-20", "0", false),
    ("saturated-100", "0", false),
    ("rate-500", "0", false),
    ("saturated-20", "0.1", false),
    ("saturated-20", "0", true),
];

pub(super) fn train(words: &[&str]) -> Result<(), Failure> {
    let [program, folder] = words else {
        return Err("train PROGRAM FOLDER".into());
    };
    let own = std::env::current_exe()?;
    for (name, traced, has_redis) in LESSONS {
        let load = Load::named(name).ok_or("no such load")?;
        let mut contender = Contender::new(name, Path::new(program))
            .with("OTEL_TRACES_SAMPLER_ARG", traced)
            // %p is the process id.
            .with("LLVM_PROFILE_FILE", &format!("{folder}/%p.profraw"));
        contender.has_redis = has_redis;
        let redis = if has_redis { Some(Redis::start()?) } else { None };
        let mut services = ServicesProcess::start(&own, &load)?;
        let process = contender.start(&load, services.ports, redis.as_ref())?;
        services.first_effect()?;
        std::thread::sleep(load.warm_up + load.measured);
        process.leave()?;
    }
    Ok(())
}
