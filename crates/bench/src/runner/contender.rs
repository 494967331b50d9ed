//! A program that handles events, as a process of its own; and what else runs for it: the services, a Redis.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::load::Load;
use super::system;
use crate::services::{Figures, Ports};

/// For a program to start, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A program that can be run.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in the table.
    pub name: String,
    /// Where it is.
    pub program: PathBuf,
    /// Its only argument, if it has one.
    pub argument: Option<&'static str>,
    /// Variables that are its own; they overrule those that every contender has.
    pub variables: Vec<(String, String)>,
    /// Whether it remembers in a Redis.
    pub has_redis: bool,
}

impl Contender {
    /// A contender without variables of its own.
    #[must_use]
    pub fn new(name: &str, program: &Path) -> Self {
        let (name, program) = (name.to_owned(), program.to_owned());
        Self { name, program, argument: None, variables: Vec::new(), has_redis: false }
    }

    /// With this argument.
    #[must_use]
    pub const fn argument(mut self, argument: &'static str) -> Self {
        self.argument = Some(argument);
        self
    }

    /// With this variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self, load: &Load, ports: Ports, redis: Option<&Redis>) -> io::Result<Process> {
        let side_port = free_port()?;
        let mut command = Command::new(&self.program);
        command.args(self.argument).env_clear().envs(variables(load, ports, side_port));
        if let Some(redis) = redis {
            command.env("IDEMPOTENCY_STORE", format!("redis://127.0.0.1:{}", redis.port));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // What goes wrong is on stderr, and in the figures; what is logged on stdout costs what it costs, unread.
        command.stdin(Stdio::null()).stdout(File::create("/dev/null")?);
        Process::spawn(&mut command)
    }
}

/// What every contender is told, in the worker's own words.
fn variables(load: &Load, ports: Ports, side_port: u16) -> Vec<(&'static str, String)> {
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
        ("SERVER_PORT", side_port.to_string()),
        ("LOG_LEVEL", "info".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ]
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// When it was told to start.
    pub started_at: std::time::SystemTime,
}

impl Process {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        let started_at = std::time::SystemTime::now();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        Ok(Self { child, started_at })
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        system::cpu_time(self.child.id()).ok_or_else(gone)
    }

    /// Tells it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// Where it ends otherwise than with exit code 0.
    pub fn leave(mut self) -> io::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("it ended with {status}")))
    }

    /// Memory in kB: now, and at most so far.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn memory_kb(&self) -> io::Result<(u64, u64)> {
        system::memory_kb(self.child.id()).ok_or_else(gone)
    }
}

fn gone() -> io::Error {
    io::Error::other("a program ended that was to be measured")
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The services, as a process of their own.
#[derive(Debug)]
pub struct ServicesProcess {
    /// The process.
    pub process: Process,
    /// Where they listen.
    pub ports: Ports,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl ServicesProcess {
    /// Starts them: `own` is this program.
    ///
    /// # Errors
    /// Where they cannot be started.
    pub fn start(own: &Path, load: &Load) -> io::Result<Self> {
        let mut command = Command::new(own);
        command
            .arg("services")
            .args(load.services_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let commands = process.child.stdin.take().expect("it was asked for");
        let mut answers = BufReader::new(process.child.stdout.take().expect("it was asked for"));
        let ports = read_line(&mut answers)?;
        Ok(Self { process, ports, commands, answers })
    }

    /// Begins the account anew.
    ///
    /// # Errors
    /// Where they have ended.
    pub fn mark(&mut self) -> io::Result<()> {
        writeln!(self.commands, "mark")?;
        read_line::<serde_json::Value>(&mut self.answers).map(|_| ())
    }

    /// The account since the last mark.
    ///
    /// # Errors
    /// Where they have ended.
    pub fn figures(&mut self) -> io::Result<Figures> {
        writeln!(self.commands, "figures")?;
        read_line(&mut self.answers)
    }

    /// Waits for the first effect of all.
    ///
    /// # Errors
    /// Where there is none within a while.
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

/// Debian's `redis-server` on a free port, with nothing on disk.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub process: Process,
    port: u16,
}

impl Redis {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// Where it is not installed, or does not answer within a while.
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
