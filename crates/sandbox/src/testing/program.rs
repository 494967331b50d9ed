//! Runs the program for tests, with a log folder, exactly the given environment, and an admin port.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::testing::log_schema::assert_log_fits;
use crate::testing::world::{LIMIT, World, eventually};

/// The build folder, by default `target/debug`. Test programs are in `deps` below it.
static BUILD: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).expect("a test program is in `deps`").to_owned()
});

/// Returns the path of the worker, which cargo builds before the tests of its package.
pub fn program() -> &'static str {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| BUILD.join("reservation-worker"));
    PROGRAM.to_str().expect("the path is UTF-8")
}

/// A secret that must not appear in any output.
pub const SECRET: &str = "wJalrXUtnFEMI-hunter2-secret";

/// An environment.
pub type Env = BTreeMap<&'static str, String>;

/// Returns an unused port below the range of outgoing connections.
///
/// That range starts at 32,768 by Linux's default. A port of it could be taken before the worker
/// binds it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let number = std::process::id().wrapping_mul(61).wrapping_add(step) % 10_000;
        let port = 10_000 + u16::try_from(number).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Returns the environment of a worker in this world.
pub fn env(world: &World) -> Env {
    BTreeMap::from([
        ("SQS_QUEUE_URL", world.queue.clone()),
        ("SQS_WAIT_TIME", "1".to_owned()),
        ("AWS_ENDPOINT_URL", world.sqs.endpoint_url()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIDPROCESSTEST".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("INVENTORY_GRPC_ADDR", world.inventory.addr()),
        ("INVENTORY_TIMEOUT_MS", "10000".to_owned()),
        ("RESERVATION_API_BASE", world.api.base_url()),
        ("RESERVATION_TIMEOUT_MS", "10000".to_owned()),
        ("SERVER_PORT", free_port().to_string()),
        ("OTEL_SDK_DISABLED", "true".to_owned()),
        ("BACKOFF_BASE_MS", "10".to_owned()),
        ("BACKOFF_MAX_MS", "50".to_owned()),
    ])
}

/// Creates a home folder with these AWS profiles. It is not removed.
pub fn home(profiles: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("home-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let home = BUILD.join("tmp").join(name);
    std::fs::create_dir_all(home.join(".aws")).unwrap();
    std::fs::write(home.join(".aws/config"), profiles).unwrap();
    home
}

/// Returns the environment of a worker in this world, outside AWS and with these profiles.
pub fn at_home(world: &World, profiles: &str) -> Env {
    let mut variables = env(world);
    variables.insert("HOME", home(profiles).to_string_lossy().into_owned());
    variables.insert("AWS_EC2_METADATA_DISABLED", "true".to_owned());
    variables
}

/// Returns all output.
pub fn all(output: &Output) -> String {
    format!("{}{}", stdout(output), stderr(output))
}

/// Runs the program with arguments to its end.
pub async fn run(arguments: &[&str], env: &Env) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().envs(env).stdin(Stdio::null()).kill_on_drop(true);
    timeout(LIMIT, command.output()).await.expect("the program ends in time").unwrap()
}

/// Returns the standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Returns the folder of this test program.
fn folder() -> PathBuf {
    let folder = BUILD.join("tmp").join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A running worker. Dropping it is a `kill -9`.
pub struct Running {
    /// The process.
    pub process: Process,
    port: u16,
    log: PathBuf,
    is_json: bool,
}

impl Running {
    /// Starts the worker.
    pub fn start(env: &Env) -> Self {
        Self::start_as(Path::new(program()), env)
    }

    /// Starts the worker with a shell script, whose last line must be `exec "$PROGRAM"`.
    pub fn start_by(script: &str, env: &Env) -> Self {
        let file = folder().join(format!("{}.sh", env["SERVER_PORT"]));
        std::fs::write(&file, format!("#!/bin/sh\nPROGRAM='{}'\n{script}\n", program())).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        Self::start_as(&file, env)
    }

    fn start_as(program: &Path, env: &Env) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = folder().join(format!("{number}.log"));
        let variables = env.iter().map(|(name, value)| (*name, value.clone()));
        let process = Process::start(program, variables, &log).unwrap();
        let is_json = env.get("LOG_FORMAT").is_none_or(|format| format == "json");
        Self { process, port: env["SERVER_PORT"].parse().unwrap(), log, is_json }
    }

    /// Starts the worker and waits until it logs its start.
    pub async fn started(env: &Env) -> Self {
        let running = Self::start(env);
        running.has_started().await;
        running
    }

    /// Waits until the worker has logged its start.
    pub async fn has_started(&self) {
        eventually("the worker has started", || self.log().contains("Worker started")).await;
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for the exit and returns its code; none after a signal. Checks every log line against
    /// the schema.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let status = self.process.wait_at_most(LIMIT).await.unwrap();
        let code =
            status.unwrap_or_else(|| panic!("the worker did not end:\n{}", self.log())).code();
        if self.is_json && code != Some(2) {
            assert_log_fits(&self.log(), code.is_none());
        }
        code
    }

    /// Sends SIGKILL. Does not wait for the exit.
    pub async fn kill(&self) {
        let line = format!("kill -KILL {}", self.process.pid());
        assert!(Command::new("/bin/sh").args(["-c", &line]).status().await.unwrap().success());
    }

    /// Returns status and body of a `GET` on the admin port; none without a response.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        scrape(self.port, path).await
    }

    /// Repeats a request until the response has this status, and returns the body.
    pub async fn answers(&self, path: &str, status: u16) -> String {
        let asking = async {
            loop {
                match self.get(path).await {
                    Some((code, body)) if code == status => return body,
                    Some(_) | None => tokio::task::yield_now().await,
                }
            }
        };
        timeout(LIMIT, asking)
            .await
            .unwrap_or_else(|_| panic!("{path} did not return {status} in time"))
    }
}

/// Returns status and body of a `GET` on a local port; none without a response.
pub async fn scrape(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
