//! The program on a pseudo-terminal, with what it writes there and what is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use sandbox::testing::program::{Env, program};
use tokio::process::{Child, Command};

/// A running program and its terminal.
pub(crate) struct OnTerminal {
    /// The process.
    pub(crate) child: Child,
    /// What it has written so far.
    pub(crate) written: Arc<Mutex<String>>,
    keyboard: File,
}

impl OnTerminal {
    /// Starts the program.
    pub(crate) fn start(arguments: &[&str], env: &Env) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let controller = openpt(flags).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let terminal = ioctl_tiocgptpeer(&controller, flags).unwrap();
        let mut command = Command::new(program());
        command.args(arguments).env_clear().envs(env).stdin(terminal.try_clone().unwrap());
        command.stdout(terminal.try_clone().unwrap()).stderr(terminal);
        let child = command.kill_on_drop(true).spawn().unwrap();
        let written = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&written);
        let controller = File::from(controller);
        let keyboard = controller.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut controller, mut buf) = (controller, [0; 4096]);
            // The read fails when no process has the terminal open any more.
            while let Ok(length @ 1..) = controller.read(&mut buf) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buf[..length]));
            }
        });
        Self { child, written, keyboard }
    }

    /// Types this.
    pub(crate) fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Whether it has written this.
    pub(crate) fn has_written(&self, words: &str) -> bool {
        self.written.lock().unwrap().contains(words)
    }
}
