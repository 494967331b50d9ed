//! Tests with valid, invalid and changed files.
#![allow(clippy::unwrap_used)]

pub(crate) mod authority;

use std::io;
use std::sync::Mutex;

use super::*;
use authority::{Authority, Folder};

fn file(path: PathBuf) -> CredentialFile {
    CredentialFile { variable: "THE_FILE", path }
}

fn wrong<T>(read: Result<T, FileError>) -> String {
    read.map(|_| "it was taken").unwrap_err().to_string()
}

/// Advances the clock so that the next use checks the files.
pub(crate) async fn look_again() {
    tokio::time::pause();
    tokio::time::advance(LOOK_INTERVAL).await;
    tokio::time::resume();
}

#[test]
fn roots_need_pem_certificates_and_faults_are_reported() {
    let folder = Folder::new();
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let both = format!("a comment\n{}\n{}", one.pem(), other.pem());
    roots(file(folder.write("both.pem", both))).unwrap();
    let damaged = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let not_a_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, what) in [
        ("", "holds no PEM certificate"),
        (&*one.signs("x").key, "holds no PEM certificate"),
        (damaged, "is damaged"),
        (not_a_certificate, "certificate 1: "),
        (&"#\n".repeat(1 << 20), "larger than 1 MiB"),
    ] {
        let said = wrong(roots(file(folder.write("wrong.pem", text))));
        assert!(said.starts_with("THE_FILE, /") && said.contains("wrong.pem: "), "{said}");
        assert!(said.contains(what), "{said}");
    }
    assert!(wrong(roots(file(folder.path("")))).contains("not a file"));
    assert!(wrong(roots(file(folder.path("gone")))).contains("No such file"));
}

#[test]
fn a_client_certificate_needs_its_own_key() {
    let folder = Folder::new();
    let authority = Authority::new("one");
    let (mine, other) = (authority.signs("me"), authority.signs("me"));
    let certificate = || file(folder.write("me.pem", &mine.certificate));
    let with = |key: &str| {
        let path = folder.write("me.key", key);
        identity(certificate(), CredentialFile { variable: "THE_KEY", path })
    };
    assert_eq!(with(&mine.key).unwrap().current().cert.len(), 1);
    for (key, what) in [
        (&*other.key, "KeyMismatch"),
        (&mine.certificate, "holds no PEM private key"),
        ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0!\n-----END PRIVATE KEY-----\n", "is damaged"),
        ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "me.key: "),
    ] {
        let said = wrong(with(key));
        assert!(said.starts_with("THE_KEY, ") && said.contains(what), "{said}");
        assert!(!said.contains("c2VjcmV0"), "{said}");
    }
}

#[test]
fn a_token_is_one_word_and_is_never_shown() {
    let folder = Folder::new();
    let with = |text: &str| token(file(folder.write("token", text)));
    let read = with(" \n s3cr3t-token== \r\n").unwrap();
    assert_eq!(*read.current(), "Bearer s3cr3t-token==");
    let shown = format!("{read:?} {:?}", read.current());
    assert!(!shown.contains("s3cr3t"), "{shown}");
    for (text, what) in [
        (" \n", "is empty"),
        ("two words", "something else than one token"),
        ("line\nline", "something else than one token"),
        ("caf\u{e9}", "something else than one token"),
        (&"x".repeat(7 * 1024 + 1), "longer than 7 KiB"),
    ] {
        assert!(wrong(with(text)).contains(what));
    }
}

#[tokio::test]
async fn a_password_is_one_line_and_is_read_again_at_each_login() {
    let folder = Folder::new();
    let with = |text: &[u8]| password(file(folder.write("password", text)));
    let read = with(" p@ss/w#rd \u{ac00}\r\n".as_bytes()).unwrap();
    assert_eq!(read.current().expose(), " p@ss/w#rd \u{ac00}");
    let shown = format!("{read:?} {:?}", read.current());
    assert!(!shown.contains("p@ss"), "{shown}");
    folder.write("password", "new");
    assert_eq!(PasswordSource::password(&read).await.unwrap().expose(), "new");
    // A file that cannot be used changes nothing.
    folder.write("password", "");
    assert_eq!(PasswordSource::password(&read).await.unwrap().expose(), "new");
    for (text, what) in [
        (&b"\r\n"[..], "is empty"),
        (b"two\nlines", "something else than one line"),
        (b"nul\0", "something else than one line"),
        (b"caf\xe9", "is not UTF-8"),
        (&[b'x'; 7 * 1024 + 1], "longer than 7 KiB"),
    ] {
        assert!(wrong(with(text)).contains(what), "{what}");
    }
}

#[tokio::test]
async fn a_changed_file_is_read_after_the_interval() {
    let folder = Folder::new();
    let path = folder.write("token", "old");
    let token = token(file(path)).unwrap();
    folder.write("token", "new");
    assert_eq!(*token.current(), "Bearer old", "the file was read again too early");
    look_again().await;
    assert_eq!(*token.current(), "Bearer new");
}

/// Captures the log output.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn an_invalid_change_is_logged_once_and_the_old_value_is_kept() {
    let log = Log::default();
    let writer = log.clone();
    // With only one subscriber, tracing caches the interest in a log line from the first thread
    // that reaches it, and other tests have no subscriber. A second subscriber prevents this.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(io::sink).finish());
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let folder = Folder::new();
    let path = folder.write("token", "s3cr3t");
    let token = token(file(path.clone())).unwrap();
    let look = async || {
        look_again().await;
        (token.current().to_str().unwrap().to_owned(), log.take())
    };
    folder.write("token", "s3cr3t and more");
    let (kept, said) = look().await;
    assert_eq!(kept, "Bearer s3cr3t");
    assert!(said.contains("WARN") && said.contains("THE_FILE"), "{said}");
    assert!(said.contains("something else than one token") && !said.contains("s3cr3t"), "{said}");
    assert_eq!(
        look().await,
        ("Bearer s3cr3t".to_owned(), String::new()),
        "the fault was logged twice"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(look().await.1.contains("No such file"), "the other fault was not logged");
    folder.write("token", "s3cr3t");
    assert_eq!(
        look().await,
        ("Bearer s3cr3t".to_owned(), String::new()),
        "the old token was logged as a change"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(look().await.1.contains("No such file"), "the new fault was not logged");
    folder.write("token", "next-s3cr3t");
    let (new, said) = look().await;
    assert_eq!(new, "Bearer next-s3cr3t");
    assert!(said.contains("INFO") && !said.contains("s3cr3t"), "{said}");
}
