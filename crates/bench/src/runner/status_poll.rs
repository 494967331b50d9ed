//! Asks a contender for `/status` once a second, as an open status page does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time between two requests.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Time for one answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A thread that asks, until it is dropped.
#[derive(Debug)]
pub struct StatusPoll {
    pages: Arc<AtomicU64>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StatusPoll {
    /// Starts to ask the program with this admin port.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let pages = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = channel();
        let counted = Arc::clone(&pages);
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(POLL_EVERY) == Err(RecvTimeoutError::Timeout) {
                // A program that does not answer is found by the count.
                if ask(port).is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200")) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { pages, stop: Some(stop), thread: Some(thread) }
    }

    /// Counts the pages that were answered so far.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}

impl Drop for StatusPoll {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread does not panic, and ends within the timeout of an answer.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn ask(port: u16) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn pages_are_counted_and_other_answers_are_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let poll = StatusPoll::start(listener.local_addr().expect("it is bound").port());
        for (answer, pages) in [("200 OK", 1), ("403 Forbidden", 1), ("200 OK", 2)] {
            let (mut stream, _) = listener.accept().expect("a request");
            // All of it: a connection that is closed with bytes unread is reset.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.extend(byte);
            }
            assert!(request.starts_with(b"GET /status HTTP/1.1\r\n"));
            let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).expect("the other end reads");
            drop(stream);
            let until = Instant::now() + Duration::from_secs(30);
            while poll.pages() < pages {
                assert!(Instant::now() < until, "{answer} was not counted");
                thread::yield_now();
            }
        }
        assert_eq!(poll.pages(), 2);
    }
}
