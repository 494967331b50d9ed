//! A program run as a process of its own: started with exactly the environment it is given, its output in a file,
//! asked to end by a signal, killed when its handle is dropped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A running (or ended) program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with these variables and no others; stdout and stderr go to the file `log`, made anew.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written or the program cannot be started; the message names which.
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

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends SIGTERM. Does nothing where the process has ended.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP, as a terminal that closes does. Does nothing where the process has ended.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGINT, as Ctrl-C does. Does nothing where the process has ended.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        // Once the child has been waited for its id may be another's.
        if self.child.id().is_none() {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It can only fail where the process has ended, which `wait` will tell.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the end. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// Where the system cannot tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Waits for the end, `limit` at most; `None` where it has not ended by then.
    ///
    /// # Errors
    ///
    /// Where the system cannot tell.
    pub async fn wait_at_most(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        timeout(limit, self.child.wait()).await.ok().transpose()
    }

    /// The last lines of its output, up to `count`.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        // Output that cannot be read is shown as none: this is help for a message about something worse.
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Runs a shell script, in a folder of its own that is left to the system to clean up.
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
    async fn it_has_the_environment_it_was_given_and_no_other() {
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
    async fn it_is_asked_to_end_by_signals_and_waited_for_with_a_limit() {
        // The shell looks for trapped signals between two commands. (A `wait` may sleep through one that comes just before it.)
        let lines =
            "trap 'exit 7' TERM; trap 'exit 8' INT; echo ready; while :; do sleep 0.01; done";
        for (name, code) in [("term", 7), ("int", 8)] {
            if name == "int" && interrupts_are_ignored() {
                // A shell cannot trap what was ignored when it began, as it is in what another shell runs behind its back.
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
    fn a_program_that_is_not_there_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let log = std::env::temp_dir().join(format!("sandbox-process-{}-none", std::process::id()));
        let error = Process::start(Path::new("/no/such/program"), [], &log).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
