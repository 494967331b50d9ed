//! A real Redis, for tests: Debian's `redis-server` as a process of its own on a free port, with nothing on disk unless asked,
//! stopped, killed, paused and started again at will, gone with its handle.

mod cluster;
mod command;

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

/// What is started, where [`PROGRAM_VARIABLE`] names nothing else.
const PROGRAM: &str = "redis-server";

/// Names another server that speaks as Redis does, by its path.
const PROGRAM_VARIABLE: &str = "REDIS_SERVER";

/// For a server to start or to end, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Names the folders apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Whether the program is there. Where it is not, says on stderr that `what` is left out.
///
/// # Panics
///
/// Where it is not there and `CI` is set: there, nothing may be left out.
#[must_use]
pub fn is_installed(what: &str) -> bool {
    if std::env::var_os(PROGRAM_VARIABLE).is_some() || is_on_path(PROGRAM) {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{what}: needs `{PROGRAM}` (apt-get install redis-server)"
    );
    // Past the test harness, which shows what a macro prints only of tests that fail.
    let _ = writeln!(io::stderr(), "LEFT OUT: {what}: `{PROGRAM}` is not installed");
    false
}

/// Whether a program of that name is on the `PATH`.
#[must_use]
pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    program: Option<String>,
    password: Option<String>,
    append_only: bool,
    tls: Option<TlsFiles>,
    settings: Vec<(String, String)>,
}

/// A certificate that the server shows, in PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority that signed it.
    pub authority: PathBuf,
}

impl RedisOptions {
    /// Starts this program.
    #[must_use]
    pub fn program(mut self, program: &str) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Asks for this password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Writes every change to disk before it answers: a kill loses nothing.
    #[must_use]
    pub const fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// Speaks TLS, and nothing else.
    #[must_use]
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Any line of `redis.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, or does not listen within a while; with its last words.
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
        // Redis 6 takes the words of a value apart only where they come apart.
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
    /// One without a password and without anything on disk.
    ///
    /// # Errors
    ///
    /// As [`RedisOptions::start`].
    pub async fn plain() -> io::Result<Self> {
        RedisOptions::default().start().await
    }

    /// The port, the same through all its lives.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How a client names it, password included.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        let login = self.options.password.as_ref().map_or_else(String::new, |it| format!(":{it}@"));
        format!("{scheme}://{login}127.0.0.1:{}", self.port)
    }

    /// Starts it again, on the same port and folder. Does nothing where it runs.
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

    /// Whether it answers; with TLS, whether it takes connections.
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

    /// Sends a command, on a connection of its own, and reads the reply.
    ///
    /// # Errors
    ///
    /// Where the server is not there. What it refuses is a [`Reply::Error`].
    pub async fn command(&self, words: &[&str]) -> io::Result<Reply> {
        command::send(self.port, self.options.password.as_deref(), words).await
    }

    /// Ends it as an operator would (SIGTERM), and waits until it is gone.
    ///
    /// # Errors
    ///
    /// Where the system cannot tell.
    pub async fn stop(&mut self) -> io::Result<()> {
        self.end(Signal::TERM).await
    }

    /// Ends it at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    ///
    /// Where the system cannot tell.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.end(Signal::KILL).await
    }

    /// Stops it in its tracks (SIGSTOP): connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
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
            // It can only fail where the process has ended, which `end` and `start` see.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // What is left behind is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A port that nobody has at this moment, low enough for a cluster's second port (10,000 above).
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
