//! A program as a separate process with exactly the given environment and its output in a file. It
//! is ended by signals and killed when its handle is dropped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A running or ended program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with only these variables; stdout and stderr go to the new file `log`.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or the program cannot be started; the message names which.
    pub fn start<'a>(
        program: &Path,
        variables: impl IntoIterator<Item = (&'a str, String)>,
        log: &Path,
    ) -> io::Result<Self> {
        let named = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
        };
        let output = File::create(log).map_err(named(log))?;
        let errors = output.try_clone().map_err(named(log))?;
        let child = Command::new(program)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(named(program))?;
        let pid = child.id().expect("a child that was not waited for has an id");
        Ok(Self { child, pid, log: log.to_owned() })
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the path of its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends SIGTERM. Does nothing if the process has ended.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP, as a closing terminal does. Does nothing if the process has ended.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGINT, as Ctrl-C does. Does nothing if the process has ended.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for the exit. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If waiting fails.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Waits for the exit for at most `limit`; `None` if it has not ended by then.
    ///
    /// # Errors
    ///
    /// If waiting fails.
    pub async fn wait_at_most(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        timeout(limit, self.child.wait()).await.ok().transpose()
    }

    /// Returns the last lines of its output, up to `count`.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        // Unreadable output counts as empty: this text only supplements an error message.
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

/// Sends SIGTERM to a child.
pub fn terminate(child: &Child) {
    send(child, Signal::TERM);
}

/// Sends SIGINT to a child.
pub fn interrupt(child: &Child) {
    send(child, Signal::INT);
}

fn send(child: &Child, signal: Signal) {
    // After the child has been waited for, its id may belong to another process.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Fails only if the process has ended, which waiting for it reports.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Runs a shell script in its own temporary folder, which is not removed.
    fn shell(name: &str, lines: &str) -> Process {
        let folder =
            std::env::temp_dir().join(format!("sandbox-process-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = folder.join("script");
        std::fs::write(&script, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Process::start(&script, [("GREETING", "hello".to_owned())], &folder.join("log")).unwrap()
    }

    #[tokio::test]
    async fn the_process_has_only_the_given_environment() {
        let mut process = shell(
            "environment",
            "echo first; echo $GREETING-$CARGO_PKG_NAME; echo oops >&2; exit 3",
        );
        let status = process.wait_at_most(LIMIT).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.last_lines(2), ["hello-", "oops"]);
        process.terminate();
    }

    #[tokio::test]
    async fn signals_end_the_process_and_waits_have_a_limit() {
        // The shell handles trapped signals between two commands. (A `wait` may miss a signal just
        // before it.)
        let lines =
            "trap 'exit 7' TERM; trap 'exit 8' INT; echo ready; while :; do sleep 0.01; done";
        for (name, code) in [("term", 7), ("int", 8)] {
            if name == "int" && interrupts_are_ignored() {
                // A shell cannot trap a signal that was ignored at its start, as in a background
                // job of another shell.
                let _ =
                    writeln!(io::stderr(), "LEFT OUT: SIGINT is ignored in all that starts here");
                continue;
            }
            let mut process = shell(name, lines);
            assert!(process.wait_at_most(Duration::from_millis(1)).await.unwrap().is_none());
            let ready = async {
                while process.last_lines(1) != ["ready"] {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, ready).await.unwrap();
            if code == 7 {
                process.terminate()
            } else {
                process.interrupt()
            }
            assert_eq!(process.wait_at_most(LIMIT).await.unwrap().unwrap().code(), Some(code));
        }
    }

    fn interrupts_are_ignored() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        mask.is_some_and(|mask| mask & 0b10 != 0)
    }

    #[test]
    fn the_error_names_a_missing_program() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let log = std::env::temp_dir().join(format!("sandbox-process-{}-none", std::process::id()));
        let error = Process::start(Path::new("/no/such/program"), [], &log).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
