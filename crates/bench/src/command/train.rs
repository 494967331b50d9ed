//! `train PROGRAM FOLDER`: puts a worker that was built to be profiled (`-C profile-generate`) through what workers do most, and ends
//! it in order, as only then it writes its profile, into FOLDER. See `crates/bench/profile`.

use std::path::Path;

use super::Failure;
use crate::runner::contender::{Contender, Redis, ServicesProcess};
use crate::runner::load::Load;

/// Loads, with the share of events that are traced, and whether events are remembered in a Redis.
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
            // %p: the process's id.
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
