//! A proxy before a Redis that behaves as one before several: it refuses scripts on two keys, as if
//! they were on different shards, and does not say that it is a cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Redis;
use crate::server::Server;

/// A script without keys that is answered with the refusal.
const REFUSAL: &[&[u8]] = &[
    b"EVAL",
    b"return redis.error_reply(\"CROSSSLOT Keys in request don't hash to the same slot\")",
    b"0",
];

/// The running proxy. It stops with its connections when it is dropped.
#[derive(Debug)]
pub struct ShardedProxy {
    server: Server,
}

impl ShardedProxy {
    /// Starts on a free port of 127.0.0.1, before this server.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn start(redis: &Redis) -> io::Result<Self> {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let port = redis.port();
        let server = Server::start(here, move |client, _| async move {
            // The end of either connection ends both.
            let _ = carry(client, port).await;
        })
        .await?;
        Ok(Self { server })
    }

    /// Returns the URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.server.addr())
    }
}

async fn carry(client: TcpStream, port: u16) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let (requests, mut replies) = client.into_split();
    let (mut answers, commands) = server.into_split();
    tokio::select! {
        ended = carry_commands(BufReader::new(requests), commands) => ended,
        ended = tokio::io::copy(&mut answers, &mut replies) => ended.map(drop),
    }
}

/// Passes commands on, each one as an array of bulk strings. A refused one is replaced.
async fn carry_commands(
    mut from: BufReader<impl AsyncRead + Unpin>,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    loop {
        let mut command = Vec::new();
        for _ in 0..length(&mut from).await? {
            let mut word = vec![0; length(&mut from).await?];
            from.read_exact(&mut word).await?;
            from.read_exact(&mut [0; 2]).await?;
            command.push(word);
        }
        let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        to.write_all(&encoded(if is_apart(&words) { REFUSAL } else { &words })).await?;
    }
}

/// Reads a line such as `*3` or `$5`.
async fn length(from: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<usize> {
    let mut line = String::new();
    if from.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.trim_start_matches(['*', '$']).trim_end().parse().map_err(io::Error::other)
}

/// Returns whether a command is a script on more than one key.
fn is_apart(words: &[&[u8]]) -> bool {
    let is_script = words
        .first()
        .is_some_and(|name| matches!(name.to_ascii_uppercase().as_slice(), b"EVAL" | b"EVALSHA"));
    is_script && words.get(2).is_some_and(|keys| !matches!(*keys, b"0" | b"1"))
}

fn encoded(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(*word);
        bytes.extend(b"\r\n");
    }
    bytes
}
