//! The worker as a separate process, with exactly the given environment and limits.
//!
//! It is observed through its log, its admin port and `/proc`. Dropping it is a `kill -9`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::failed::{Failed, ensure, eventually};

/// A time limit that only a hanging process exceeds, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// An environment.
pub type Variables = BTreeMap<&'static str, String>;

/// The target of the worker's standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The file that `Worker::log` reads.
    Kept,
    /// Closed from the start.
    Closed,
    /// This file or device.
    To(PathBuf),
}

/// Settings for starting a worker.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// The complete environment.
    pub variables: Variables,
    /// The target of its output.
    pub output: Output,
    /// Shell commands that run first in the same process, such as `ulimit -n 64`.
    pub before: String,
}

/// A running or ended worker.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    pid: Pid,
    port: u16,
    log: PathBuf,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By a signal.
    Killed,
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        status.code().map_or(Self::Killed, Self::Code)
    }
}

impl Worker {
    /// Starts the worker. The new file `log` gets its standard error, and its standard output
    /// unless redirected.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(launch: &Launch, log: &Path) -> io::Result<Self> {
        let kept = File::create(log)?;
        let errors = kept.try_clone()?;
        let (output, closing) = match &launch.output {
            Output::Kept => (Stdio::from(kept), ""),
            Output::Closed => (Stdio::null(), " >&-"),
            Output::To(path) => {
                (Stdio::from(File::options().append(true).create(true).open(path)?), "")
            }
        };
        let script = format!("{}\nexec \"$0\"{closing}", launch.before);
        let child = Command::new("/bin/sh")
            .args([OsString::from("-c"), script.into(), launch.program.clone().into()])
            .env_clear()
            .envs(&launch.variables)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().expect("a child that was not waited for has an id");
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id is not zero");
        let port = launch.variables.get("SERVER_PORT").and_then(|port| port.parse().ok());
        Ok(Self { child, pid, port: port.unwrap_or_default(), log: log.to_owned() })
    }

    /// Returns the process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal. Does nothing if the process has ended and been waited for.
    pub fn signal(&self, signal: Signal) {
        if self.child.id().is_some() {
            // Fails only if the process has ended, which `ended` reports.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// If waiting fails.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().await.map(|_| ())
    }

    /// Sends SIGTERM and waits for the exit.
    ///
    /// # Errors
    /// If it does not exit in time or not with code 0.
    pub async fn leave(&mut self, limit: Duration) -> Result<(), Failed> {
        self.signal(Signal::TERM);
        let ended = self.ended(limit).await?;
        ensure(ended == Ended::Code(0), || {
            format!("it left with {ended:?}:\n{}", self.last_lines(10))
        })
    }

    /// Waits for the exit.
    ///
    /// # Errors
    /// If it does not exit in time.
    pub async fn ended(&mut self, limit: Duration) -> Result<Ended, Failed> {
        match timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?.into()),
            Err(_) => Err(Failed(format!(
                "it did not end within {} s:\n{}",
                limit.as_secs(),
                self.last_lines(10)
            ))),
        }
    }

    /// Returns whether it has ended.
    ///
    /// # Errors
    /// If the system call fails.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Returns the log so far.
    #[must_use]
    pub fn log(&self) -> String {
        // An unreadable file counts as empty, which no case takes for success.
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Counts the log lines with this message.
    #[must_use]
    pub fn said(&self, message: &str) -> usize {
        let message = format!("\"msg\":\"{message}");
        self.log().lines().filter(|line| line.contains(&message)).count()
    }

    /// Returns the last lines of the log.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Waits for a log message that begins with this text.
    ///
    /// # Errors
    /// If it is not logged in time.
    pub async fn says(&self, message: &str) -> Result<(), Failed> {
        let what = format!("the log says \"{message}\"");
        let said = eventually(&what, LIMIT, async || self.said(message) > 0).await;
        said.map_err(|failed| Failed(format!("{failed}; its last lines:\n{}", self.last_lines(5))))
    }

    /// Returns status and body of a `GET` on the admin port; none without a response.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        timeout(LIMIT, get(self.port, path)).await.ok().flatten()
    }

    /// Returns the sum of all series of a metric that have these labels.
    ///
    /// Labels are texts such as `state="parked"`. None if the admin port does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        Some(sum(&text, name, labels))
    }

    /// Waits until a metric has at least this value.
    ///
    /// # Errors
    /// If it stays below.
    pub async fn counts(&self, name: &str, labels: &[&str], least: f64) -> Result<(), Failed> {
        let what = format!("{name} {labels:?} is {least} or more");
        eventually(&what, LIMIT, async || {
            self.metric(name, labels).await.is_some_and(|value| value >= least)
        })
        .await
    }

    /// Returns the resources that the process uses.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        Usage::of(self.pid)
    }
}

/// Resources of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in kB.
    pub rss_kb: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    fn of(pid: Pid) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            rss_kb: number("VmRSS:")?,
            descriptors: u64::try_from(std::fs::read_dir(folder.join("fd")).ok()?.count()).ok()?,
            threads: number("Threads:")?,
        })
    }
}

async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    text.lines().filter(of_it).filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\na_total 100\nb 7\n";
        for (name, labels, expected) in [
            ("a", &["x=\"1\""][..], 7.0),
            ("a", &["y=\"3\""], 4.0),
            ("b", &[], 7.0),
            ("c", &[], 0.0),
        ] {
            assert!((sum(text, name, labels) - expected).abs() < f64::EPSILON, "{name}");
        }
    }

    #[test]
    fn usage_of_this_process_is_not_zero() {
        let usage = Usage::of(rustix::process::getpid()).expect("this process is running");
        assert!(usage.rss_kb > 100 && usage.descriptors > 2 && usage.threads > 0, "{usage:?}");
    }
}
