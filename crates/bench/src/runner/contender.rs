//! Contenders: programs that handle events, as processes. Also the services and Redis beside them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use super::load::Load;
use super::status_poll::StatusPoll;
use super::system;
use crate::services::{Figures, Ports};

/// Maximum time for a program to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between checks whether it has started.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Interval between checks whether all events are done.
const LOOK_RARELY: Duration = Duration::from_millis(250);

/// A program that can be run.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in the table.
    pub name: String,
    /// The path of the program.
    pub program: PathBuf,
    /// Its only argument, if it has one.
    pub argument: Option<&'static str>,
    /// Its own variables; they override the common ones.
    pub variables: Vec<(String, String)>,
    /// Whether its records are in Redis.
    pub has_redis: bool,
    /// Whether it is asked for its status page once a second.
    pub is_polled: bool,
}

impl Contender {
    /// Creates a contender without own variables.
    #[must_use]
    pub fn new(name: &str, program: &Path) -> Self {
        let (name, program) = (name.to_owned(), program.to_owned());
        let variables = Vec::new();
        Self { name, program, argument: None, variables, has_redis: false, is_polled: false }
    }

    /// Sets its argument.
    #[must_use]
    pub const fn argument(mut self, argument: &'static str) -> Self {
        self.argument = Some(argument);
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, load: &Load, ports: Ports, redis: Option<&Redis>) -> io::Result<Process> {
        let admin_port = free_port()?;
        let mut command = Command::new(&self.program);
        command.args(self.argument).env_clear().envs(variables(load, ports, admin_port));
        if let Some(redis) = redis {
            command.env("IDEMPOTENCY_STORE", format!("redis://127.0.0.1:{}", redis.port));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // Errors go to stderr and into the figures. The log on stdout is discarded; its cost is
        // part of the measurement.
        command.stdin(Stdio::null()).stdout(File::create("/dev/null")?);
        let mut process = Process::spawn(&mut command)?;
        process.status_poll = self.is_polled.then(|| StatusPoll::start(admin_port));
        Ok(process)
    }
}

/// Returns the variables of every contender, named as the worker's settings.
fn variables(load: &Load, ports: Ports, admin_port: u16) -> Vec<(&'static str, String)> {
    let Ports { sqs, reservations, inventory } = ports;
    vec![
        ("SQS_QUEUE_URL", format!("http://127.0.0.1:{sqs}/000000000000/events")),
        ("AWS_ENDPOINT_URL_SQS", format!("http://127.0.0.1:{sqs}")),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
        ("RESERVATION_API_BASE", format!("http://127.0.0.1:{reservations}")),
        ("INVENTORY_GRPC_ADDR", format!("127.0.0.1:{inventory}")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{inventory}")),
        ("OTEL_TRACES_SAMPLER", "traceidratio".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", "0".to_owned()),
        ("WORKER_CONCURRENCY", load.concurrency.to_string()),
        ("SERVER_PORT", admin_port.to_string()),
        ("LOG_LEVEL", "info".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ]
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A running program; it is killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// When the program was started.
    pub started_at: std::time::SystemTime,
    status_poll: Option<StatusPoll>,
}

impl Process {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        let started_at = std::time::SystemTime::now();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        Ok(Self { child, started_at, status_poll: None })
    }

    /// Returns the CPU time used so far.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        system::cpu_time(self.child.id()).ok_or_else(gone)
    }

    /// Returns the status pages answered so far; `None` if it is not asked for them.
    #[must_use]
    pub fn status_pages(&self) -> Option<u64> {
        self.status_poll.as_ref().map(StatusPoll::pages)
    }

    /// Sends SIGTERM and waits for the exit.
    ///
    /// # Errors
    /// If the exit code is not 0.
    pub fn leave(mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("it ended with {status}")))
    }

    /// Returns the current and the peak memory in kB.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn memory_kb(&self) -> io::Result<(u64, u64)> {
        system::memory_kb(self.child.id()).ok_or_else(gone)
    }
}

fn gone() -> io::Error {
    io::Error::other("a program ended that was to be measured")
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The services as a process of their own.
#[derive(Debug)]
pub struct ServicesProcess {
    /// The process.
    pub process: Process,
    /// The ports of the services.
    pub ports: Ports,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl ServicesProcess {
    /// Starts the services; `own` is the path of this program.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn start(own: &Path, load: &Load) -> io::Result<Self> {
        let mut command = Command::new(own);
        command
            .arg("services")
            .args(load.services_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let commands = process.child.stdin.take().expect("the pipe was requested");
        let mut answers =
            BufReader::new(process.child.stdout.take().expect("the pipe was requested"));
        let ports = read_line(&mut answers)?;
        Ok(Self { process, ports, commands, answers })
    }

    /// Starts a new account.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn mark(&mut self) -> io::Result<()> {
        writeln!(self.commands, "mark")?;
        read_line::<serde_json::Value>(&mut self.answers).map(|_| ())
    }

    /// Returns the account since the last mark.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn figures(&mut self) -> io::Result<Figures> {
        writeln!(self.commands, "figures")?;
        read_line(&mut self.answers)
    }

    /// Waits until this many events have taken effect, and returns the account.
    ///
    /// # Errors
    /// If they have not within `lasts`.
    pub fn all_done(&mut self, events: usize, lasts: Duration) -> io::Result<Figures> {
        let since = Instant::now();
        loop {
            let figures = self.figures()?;
            if usize::try_from(figures.effects).is_ok_and(|effects| effects >= events) {
                return Ok(figures);
            }
            if since.elapsed() > lasts {
                let text = format!("{} of {events} events took effect", figures.effects);
                return Err(io::Error::other(text));
            }
            // An account is not free, and its times do not depend on when it is asked for.
            std::thread::sleep(LOOK_RARELY);
        }
    }

    /// Waits for the first effect and returns its time in seconds since 1970.
    ///
    /// # Errors
    /// If no event takes effect in time.
    pub fn first_effect(&mut self) -> io::Result<f64> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(at) = self.figures()?.first_effect_at_s {
                return Ok(at);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(io::Error::other("no event took effect"))
    }
}

fn read_line<T: DeserializeOwned>(answers: &mut impl BufRead) -> io::Result<T> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// Debian's `redis-server` on a free port, without persistence.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub process: Process,
    port: u16,
}

impl Redis {
    /// Starts Redis and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed or does not answer in time.
    pub fn start() -> io::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--loglevel", "warning", "--port", &port.to_string()]);
        let redis = Self {
            process: Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?,
            port,
        };
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if redis.answers() {
                return Ok(redis);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(io::Error::other("redis-server does not answer"))
    }

    fn answers(&self) -> bool {
        let asked = || -> io::Result<bool> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG")
        };
        asked().unwrap_or(false)
    }
}
