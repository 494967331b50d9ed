//! A single Redis command and its reply in RESP 2.
//!
//! Tests use it to inspect the server without the client under test. Source: redis.io, "Redis
//! serialization protocol specification".

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

/// A server's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A short text, such as `OK`.
    Text(String),
    /// An error: code and message.
    Error(String),
    /// An integer.
    Number(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Null.
    Nothing,
    /// A list.
    List(Vec<Reply>),
}

impl Reply {
    /// Returns the integer.
    ///
    /// # Panics
    ///
    /// If it is not an integer.
    #[must_use]
    pub fn number(&self) -> i64 {
        let Self::Number(number) = self else { panic!("not a number: {self:?}") };
        *number
    }

    /// Returns the text of the reply; items of a list are joined with spaces. Empty for numbers and
    /// null.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Error(text) => text.clone(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::List(all) => all.iter().map(Self::text).collect::<Vec<_>>().join(" "),
            Self::Number(_) | Self::Nothing => String::new(),
        }
    }
}

pub(super) async fn send(port: u16, password: Option<&str>, words: &[&str]) -> io::Result<Reply> {
    let mut stream = BufStream::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    if let Some(password) = password {
        write(&mut stream, &["AUTH", password]).await?;
        read(&mut stream).await?;
    }
    write(&mut stream, words).await?;
    read(&mut stream).await
}

async fn write(stream: &mut BufStream<TcpStream>, words: &[&str]) -> io::Result<()> {
    stream.write_all(format!("*{}\r\n", words.len()).as_bytes()).await?;
    for word in words {
        stream.write_all(format!("${}\r\n{word}\r\n", word.len()).as_bytes()).await?;
    }
    stream.flush().await
}

async fn read(stream: &mut BufStream<TcpStream>) -> io::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let line = line.trim_end_matches("\r\n");
    let Some((kind, rest)) = line.split_at_checked(1) else { return Err(strange()) };
    Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(rest.parse().map_err(|_| strange())?),
        "$" | "*" if rest == "-1" => Reply::Nothing,
        "$" => {
            let length: usize = rest.parse().map_err(|_| strange())?;
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).await?;
            bytes.truncate(length);
            Reply::Bytes(bytes)
        }
        "*" => {
            let length: usize = rest.parse().map_err(|_| strange())?;
            let mut list = Vec::new();
            for _ in 0..length {
                list.push(Box::pin(read(stream)).await?);
            }
            Reply::List(list)
        }
        _ => return Err(strange()),
    })
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a reply of a Redis")
}
