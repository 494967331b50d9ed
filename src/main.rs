//! Arguments, configuration, logs, runtime, command, exit code; nothing else.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use reservation_worker::cli::{self, Command};
use reservation_worker::config::{Config, LogFormat};
use reservation_worker::run::{self, EXIT_USAGE};
use reservation_worker::telemetry::LogSettings;
use reservation_worker::{admin, check, telemetry};
use tokio::runtime::{Builder, Runtime};

/// An event's way is paved with small allocations: this allocator takes a tenth off its CPU time beside glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end waits for a reader of standard output that is slow.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// How many sockets that are ready one thread looks at before it goes on with what they let go on. In a rush twenty answers come at
/// once; with tokio's 1024 all are read before any is acted upon, and the first waits for the last. With 4, calls are written one by
/// one, which takes more CPU.
const IO_EVENTS_PER_TICK: usize = 8;

fn main() -> ExitCode {
    match Command::parse(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()))
    {
        Ok(Command::Help) => print(&cli::help_text()),
        Ok(Command::Version) => print(&cli::version_text()),
        Ok(command @ (Command::Run | Command::Check | Command::Health)) => {
            match Config::from_env() {
                Ok(config) => execute(command, &config),
                Err(errors) => {
                    fail(EXIT_USAGE, &format_args!("the configuration is wrong\n{errors}"))
                }
            }
        }
        Err(unknown) => fail(EXIT_USAGE, &unknown),
    }
}

fn execute(command: Command, config: &Config) -> ExitCode {
    let runtime = match runtime(config) {
        Ok(runtime) => runtime,
        Err(why) => return fail(1, &why),
    };
    // Both TLS clients and the AWS SDK use the same provider; it is set once, before any of them.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail(1, &"a TLS crypto provider is installed already");
    }
    let code = run_command(command, config, &runtime);
    // A name look-up that hangs has a thread of its own, for which a plain drop would wait.
    runtime.shutdown_background();
    code
}

fn run_command(command: Command, config: &Config, runtime: &Runtime) -> ExitCode {
    match command {
        Command::Check => runtime.block_on(check::check(config, &mut io::stdout())),
        Command::Health => match runtime.block_on(admin::health_probe(config.server.port.get())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(1, &why),
        },
        Command::Run => {
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
        Command::Help | Command::Version => unreachable!("answered without a configuration"),
    }
}

fn runtime(config: &Config) -> io::Result<Runtime> {
    match config.worker.threads.map_or(1, std::num::NonZeroUsize::get) {
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

fn print(text: &str) -> ExitCode {
    // A reader that has gone (`| head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(code: u8, why: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "reservation-worker: {why}");
    ExitCode::from(code)
}
