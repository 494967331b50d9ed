//! The worker as a process of its own: started with exactly the environment that it is given, under limits where a case
//! sets some, looked at through its log, its side port and the system's account of it. Dropping it is a `kill -9`.

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

/// What nothing takes unless it hangs, on a machine that has other things to do.
pub const LIMIT: Duration = Duration::from_secs(60);

/// An environment.
pub type Variables = BTreeMap<&'static str, String>;

/// Where the worker's standard output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the file that `Worker::log` reads.
    Kept,
    /// Nowhere: it is closed from the start.
    Closed,
    /// To this file or device.
    To(PathBuf),
}

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// All of its environment.
    pub variables: Variables,
    /// Where its output goes.
    pub output: Output,
    /// Shell commands that come before it in the same process, such as `ulimit -n 64`.
    pub before: String,
}

/// A running, or ended, worker.
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
    /// With this code.
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
    /// Starts it; what it says goes to the file `log`, made anew: standard error always, standard output unless told.
    ///
    /// # Errors
    /// Where that is not possible.
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
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("an id of a process");
        let port = launch.variables.get("SERVER_PORT").and_then(|port| port.parse().ok());
        Ok(Self { child, pid, port: port.unwrap_or_default(), log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal. Does nothing where the process has ended and been waited for.
    pub fn signal(&self, signal: Signal) {
        if self.child.id().is_some() {
            // It can only fail where the process has ended, which `ended` will tell.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// Where the system cannot tell.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().await.map(|_| ())
    }

    /// Asks it to leave (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// That it has not by then, or not with code 0.
    pub async fn leave(&mut self, limit: Duration) -> Result<(), Failed> {
        self.signal(Signal::TERM);
        let ended = self.ended(limit).await?;
        ensure(ended == Ended::Code(0), || {
            format!("it left with {ended:?}:\n{}", self.last_lines(10))
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// That it has not ended by then.
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

    /// Whether it has ended.
    ///
    /// # Errors
    /// Where the system cannot tell.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// All that it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        // What cannot be read is shown as nothing, which no case takes for a success.
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How many lines of its log have this message.
    #[must_use]
    pub fn said(&self, message: &str) -> usize {
        let message = format!("\"msg\":\"{message}");
        self.log().lines().filter(|line| line.contains(&message)).count()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Waits until it has logged a message that begins so.
    ///
    /// # Errors
    /// That it has not.
    pub async fn says(&self, message: &str) -> Result<(), Failed> {
        let what = format!("the log says \"{message}\"");
        let said = eventually(&what, LIMIT, async || self.said(message) > 0).await;
        said.map_err(|failed| Failed(format!("{failed}; its last lines:\n{}", self.last_lines(5))))
    }

    /// Status and body of a `GET` on the side port; none where nobody answers.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        timeout(LIMIT, get(self.port, path)).await.ok().flatten()
    }

    /// The sum of all series of a metric whose labels contain each of `labels` (such as `state="parked"`); none where
    /// the side port does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        Some(sum(&text, name, labels))
    }

    /// Waits until a metric is at least so much.
    ///
    /// # Errors
    /// That it is not.
    pub async fn counts(&self, name: &str, labels: &[&str], least: f64) -> Result<(), Failed> {
        let what = format!("{name} {labels:?} is {least} or more");
        eventually(&what, LIMIT, async || {
            self.metric(name, labels).await.is_some_and(|value| value >= least)
        })
        .await
    }

    /// What the system says of it.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        Usage::of(self.pid)
    }
}

/// What a process has of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, kB.
    pub rss_kb: u64,
    /// Open descriptors.
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
    fn this_process_uses_something() {
        let usage = Usage::of(rustix::process::getpid()).expect("it runs");
        assert!(usage.rss_kb > 100 && usage.descriptors > 2 && usage.threads > 0, "{usage:?}");
    }
}
