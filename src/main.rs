//! The entry point: arguments, configuration, logs, runtime, command, exit code.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use reservation_worker::cli::{self, Command, CtlArgs, Invocation};
use reservation_worker::config::{
    Config, ConfigErrors, LogFormat, QueuePart, ServerPart, StorePart,
};
use reservation_worker::ops::{self, fail};
use reservation_worker::run::{self, EXIT_USAGE};
use reservation_worker::telemetry::LogSettings;
use reservation_worker::{admin, check, telemetry};
use tokio::runtime::{Builder, Runtime};

/// The global allocator.
///
/// An event makes many small allocations: with mimalloc, it takes a tenth less CPU time than with
/// glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The maximum wait at exit for a slow reader of standard output.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// I/O events processed per tick.
///
/// Under load, twenty answers arrive at once. With tokio's default of 1024, all are read before any
/// is processed, and the first waits for the last. With 4, calls are written one by one, which uses
/// more CPU.
const IO_EVENTS_PER_TICK: usize = 8;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Run) => None,
        Ok(Invocation::Print(text)) => return print(text.as_bytes()),
        Ok(Invocation::Command(command)) => Some(command),
        Err(why) => return fail(EXIT_USAGE, &why),
    };
    match command {
        None => with_runtime(Config::from_env(), worker_threads, run_worker),
        Some(Command::Check) => {
            with_runtime(Config::from_env(), worker_threads, |config, runtime| {
                runtime.block_on(check::check(config, &mut io::stdout()))
            })
        }
        Some(Command::Health) => with_runtime(Config::from_env(), worker_threads, ask_health),
        Some(Command::Dlq(arguments)) => with_runtime(
            QueuePart::from_env(),
            |_| 1,
            |config, runtime| runtime.block_on(ops::dlq::dlq(&arguments, config)),
        ),
        Some(Command::Event(arguments)) => with_runtime(
            StorePart::from_env(),
            |_| 1,
            |config, runtime| {
                runtime.block_on(ops::event::event(&arguments, config, &mut io::stdout()))
            },
        ),
        Some(Command::Forget(arguments)) => with_runtime(
            StorePart::from_env(),
            |_| 1,
            |config, runtime| {
                runtime.block_on(ops::forget::forget(&arguments, config, &mut io::stdout()))
            },
        ),
        Some(Command::Decode(arguments)) => {
            ops::decode::decode(&arguments, &mut io::stdout().lock())
        }
        Some(Command::Ctl(arguments)) => ctl(arguments),
        Some(Command::Completions(arguments)) => print(&cli::completions(&arguments)),
        Some(Command::Man(arguments)) => match cli::man(&arguments) {
            Ok(page) => print(&page),
            Err(why) => fail(EXIT_USAGE, &why),
        },
    }
}

/// Runs a command with its part of the configuration, on a runtime of so many threads.
fn with_runtime<C>(
    config: Result<C, ConfigErrors>,
    threads: impl FnOnce(&C) -> usize,
    command: impl FnOnce(&C, &Runtime) -> ExitCode,
) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(errors) => {
            return fail(EXIT_USAGE, &format_args!("the configuration is wrong\n{errors}"));
        }
    };
    let runtime = match runtime(threads(&config)) {
        Ok(runtime) => runtime,
        Err(why) => return fail(1, &why),
    };
    // Both TLS clients and the AWS SDK use the same provider; it is set once, before any of them.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail(1, &"a TLS crypto provider is installed already");
    }
    let code = command(&config, &runtime);
    // A blocked name look-up has its own thread; a plain drop of the runtime would wait for it.
    runtime.shutdown_background();
    code
}

fn worker_threads(config: &Config) -> usize {
    config.worker.threads.map_or(1, NonZeroUsize::get)
}

fn run_worker(config: &Config, runtime: &Runtime) -> ExitCode {
    let metrics = Arc::new(run::metrics());
    let logging = telemetry::init_logging(log_settings(config), Arc::clone(&metrics));
    if let Err(why) = logging {
        return fail(1, &why);
    }
    telemetry::install_panic_hook();
    let ended = runtime.block_on(run::run(config, metrics));
    telemetry::flush_logs(LOG_FLUSH_MAX);
    ended.unwrap_or_else(|why| fail(EXIT_USAGE, &why))
}

fn ctl(arguments: CtlArgs) -> ExitCode {
    let as_json = arguments.json;
    match (ServerPart::from_env(), arguments.request()) {
        (Err(errors), _) => fail(EXIT_USAGE, &format_args!("the configuration is wrong\n{errors}")),
        (_, Err(why)) => fail(EXIT_USAGE, &why),
        (Ok(ServerPart { port }), Ok(request)) => {
            ops::ctl::ctl(port.get(), &request, as_json, &mut io::stdout())
        }
    }
}

fn ask_health(config: &Config, runtime: &Runtime) -> ExitCode {
    match runtime.block_on(admin::health_probe(config.server.port.get())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(1, &why),
    }
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        1 => Builder::new_current_thread()
            .enable_all()
            .max_io_events_per_tick(IO_EVENTS_PER_TICK)
            .build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

fn log_settings(config: &Config) -> LogSettings {
    let by_default = if io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
    LogSettings {
        level: config.log.level,
        format: config.log.format.unwrap_or(by_default),
        color: !config.log.no_color && io::stdout().is_terminal(),
    }
}

fn print(text: &[u8]) -> ExitCode {
    // A closed pipe (`| head`) is not a failure.
    let _ = io::stdout().write_all(text);
    ExitCode::SUCCESS
}
