//! A real Redis for tests: Debian's `redis-server` as a process on a free port, without persistence
//! by default. It can be stopped, killed, paused and restarted, and ends with its handle.

mod cluster;
mod command;
mod sharded;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

pub use self::cluster::RedisCluster;
pub use self::command::Reply;
pub use self::sharded::ShardedProxy;

/// The default program, unless [`PROGRAM_VARIABLE`] is set.
const PROGRAM: &str = "redis-server";

/// The variable with the path of another server that speaks the Redis protocol.
const PROGRAM_VARIABLE: &str = "REDIS_SERVER";

/// Maximum time for a server to start or to end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Interval between checks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Distinguishes the folders of servers.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Returns whether the program is installed. If not, prints to stderr that `what` is skipped.
///
/// # Panics
///
/// If it is not installed and `CI` is set: in CI no test may be skipped.
#[must_use]
pub fn is_installed(what: &str) -> bool {
    if std::env::var_os(PROGRAM_VARIABLE).is_some() || is_on_path(PROGRAM) {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{what}: needs `{PROGRAM}` (apt-get install redis-server)"
    );
    // Bypasses the test harness, which hides the output of passing tests.
    let _ = writeln!(io::stderr(), "LEFT OUT: {what}: `{PROGRAM}` is not installed");
    false
}

/// Returns whether the server was built with TLS. If not, prints to stderr that `what` is skipped.
///
/// # Panics
///
/// If it was not, and is not one that [`PROGRAM_VARIABLE`] names.
pub async fn has_tls(what: &str) -> bool {
    // Without a certificate none starts. One that knows TLS says that the certificate is missing.
    let port = free_port().unwrap_or_default().to_string();
    let Err(error) = RedisOptions::default().setting("tls-port", &port).start().await else {
        return true;
    };
    if error.to_string().contains("Failed to configure TLS") {
        return true;
    }
    assert!(std::env::var_os(PROGRAM_VARIABLE).is_some(), "{what}: {error}");
    let _ = writeln!(io::stderr(), "LEFT OUT: {what}: the server knows no TLS");
    false
}

/// Returns whether a program is on the `PATH`.
#[must_use]
pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Settings of a server.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    program: Option<String>,
    password: Option<String>,
    append_only: bool,
    tls: Option<TlsFiles>,
    settings: Vec<(String, String)>,
}

/// The server's certificate in PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The certificate of the signing authority.
    pub authority: PathBuf,
}

impl RedisOptions {
    /// Sets the program.
    #[must_use]
    pub fn program(mut self, program: &str) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Sets the password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Writes every change to disk before the response, so that a kill loses nothing.
    #[must_use]
    pub const fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// Accepts only TLS.
    #[must_use]
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Adds a line of `redis.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// If it cannot be started or does not listen in time; the text has its output.
    pub async fn start(self) -> io::Result<Redis> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("sandbox-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut redis = Redis { child: None, port: free_port()?, folder, options: self };
        redis.start().await?;
        Ok(redis)
    }

    fn named_program(&self) -> OsString {
        let named = self.program.as_ref().map(OsString::from);
        named.or_else(|| std::env::var_os(PROGRAM_VARIABLE)).unwrap_or_else(|| PROGRAM.into())
    }

    fn arguments(&self, port: u16, folder: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        // Redis 6 requires the words of a value as separate arguments.
        let mut set = |name: &str, value: &str| {
            arguments.push(format!("--{name}").into());
            arguments.extend(value.split(' ').map(OsString::from));
        };
        let port = port.to_string();
        set("bind", "127.0.0.1");
        set("save", "");
        set("daemonize", "no");
        set("loglevel", "warning");
        if let Some(password) = &self.password {
            set("requirepass", password);
        }
        if self.append_only {
            set("appendonly", "yes");
            set("appendfsync", "always");
        }
        match &self.tls {
            None => set("port", &port),
            Some(files) => {
                set("port", "0");
                set("tls-port", &port);
                set("tls-cert-file", &files.certificate.to_string_lossy());
                set("tls-key-file", &files.key.to_string_lossy());
                set("tls-ca-cert-file", &files.authority.to_string_lossy());
                set("tls-auth-clients", "no");
            }
        }
        for (name, value) in &self.settings {
            set(name, value);
        }
        arguments.extend(["--dir".into(), folder.into()]);
        arguments
    }
}

/// A server, running or not.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    port: u16,
    folder: PathBuf,
    options: RedisOptions,
}

impl Redis {
    /// Starts a server without password and without persistence.
    ///
    /// # Errors
    ///
    /// As [`RedisOptions::start`].
    pub async fn plain() -> io::Result<Self> {
        RedisOptions::default().start().await
    }

    /// Returns the port, which stays the same after a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL for clients, including the password.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        let login = self.options.password.as_ref().map_or_else(String::new, |it| format!(":{it}@"));
        format!("{scheme}://{login}127.0.0.1:{}", self.port)
    }

    /// Starts the server again on the same port and folder. Does nothing if it is running.
    ///
    /// # Errors
    ///
    /// As [`RedisOptions::start`].
    pub async fn start(&mut self) -> io::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = self.folder.join("log");
        let output = std::fs::File::create(&log)?;
        let errors = output.try_clone()?;
        let child = Command::new(self.options.named_program())
            .args(self.options.arguments(self.port, &self.folder))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        let began = Instant::now();
        while !self.is_listening().await {
            let has_ended = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if has_ended || began.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let program = self.options.named_program().to_string_lossy().into_owned();
                return Err(io::Error::other(format!("{program} does not start: {said}")));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Returns whether it answers; with TLS, whether it accepts connections.
    async fn is_listening(&self) -> bool {
        if self.options.tls.is_some() {
            return tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok();
        }
        match self.command(&["PING"]).await {
            Ok(Reply::Error(text)) => !text.starts_with("LOADING"),
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// Sends a command on a new connection and reads the reply.
    ///
    /// # Errors
    ///
    /// If the server is not reachable. A refusal is a [`Reply::Error`].
    pub async fn command(&self, words: &[&str]) -> io::Result<Reply> {
        command::send(self.port, self.options.password.as_deref(), words).await
    }

    /// Sends SIGTERM and waits for the exit.
    ///
    /// # Errors
    ///
    /// If waiting fails.
    pub async fn stop(&mut self) -> io::Result<()> {
        self.end(Signal::TERM).await
    }

    /// Sends SIGKILL and waits for the exit.
    ///
    /// # Errors
    ///
    /// If waiting fails.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.end(Signal::KILL).await
    }

    /// Stops the process (SIGSTOP): connections stay open without responses.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues the process (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    async fn end(&mut self, signal: Signal) -> io::Result<()> {
        self.signal(signal);
        if let Some(mut child) = self.child.take() {
            child.wait().await?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id);
        if let Some(pid) = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // Fails only if the process has ended, which `end` and `start` detect.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Remaining files are in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Returns a free port, low enough for a cluster's second port (10,000 above).
fn free_port() -> io::Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % u32::from(COUNT);
        let offset = (u32::from(start) + step * 7) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap_or_default();
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + COUNT) {
            return Ok(port);
        }
    }
    Err(io::Error::other("no port is free"))
}

#[cfg(test)]
mod tests;
