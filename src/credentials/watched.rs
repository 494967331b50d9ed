//! Something read from files that is read again when they change. A change that cannot be used is logged once, and what was there
//! before stays.
//!
//! Looking is cheap and needs no task: whoever uses the value looks, if nobody has for [`LOOK_INTERVAL`]. The files are read whole,
//! on the caller's thread: they are a few KiB, and on Kubernetes lie in memory.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};

use super::CredentialFile;
use crate::clock::millis;

/// A change is seen after this long at the latest, counted from the first use after it.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What a file may hold at most: five times a bundle of all public roots.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}, {path}: {what}", path = path.display())]
pub struct FileError {
    /// The variable that names it.
    pub variable: &'static str,
    /// Where it is.
    pub path: std::path::PathBuf,
    /// What is wrong with it; nothing of what it holds.
    pub what: String,
}

/// What is wrong with one of several files.
#[derive(Debug)]
pub(super) struct Fault {
    /// Which one.
    pub(super) file: usize,
    pub(super) what: String,
}

/// The files' contents, in their order, or what is wrong.
type Parse<T> = fn(&[Vec<u8>]) -> Result<Arc<T>, Fault>;

/// Tells contents apart without keeping them.
type ContentsDigest = [u8; 32];

/// What was read, and of which contents.
type Fresh<T> = (Arc<T>, ContentsDigest);

/// What the last look found.
struct Seen {
    digest: ContentsDigest,
    complaint: Option<FileError>,
}

/// A value of files, and when they were looked at.
pub struct Watched<T> {
    files: Vec<CredentialFile>,
    parse: Parse<T>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
    began: Instant,
    next_look_ms: AtomicU64,
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    pub(super) fn read(
        files: impl Into<Vec<CredentialFile>>,
        parse: Parse<T>,
    ) -> Result<Self, FileError> {
        let files = files.into();
        let contents = contents(&files)?;
        let value = parse(&contents).map_err(|fault| at(&files, fault))?;
        Ok(Self {
            files,
            parse,
            current: ArcSwap::new(value),
            seen: Mutex::new(Seen { digest: digest(&contents), complaint: None }),
            began: Instant::now(),
            next_look_ms: AtomicU64::new(millis(LOOK_INTERVAL)),
        })
    }

    /// The value, of the files as they were [`LOOK_INTERVAL`] ago or later.
    pub fn current(&self) -> Arc<T> {
        let now_ms = millis(self.began.elapsed());
        let due_ms = self.next_look_ms.load(Ordering::Relaxed);
        if now_ms >= due_ms {
            let next_ms = now_ms + millis(LOOK_INTERVAL);
            let mine = self.next_look_ms.compare_exchange(
                due_ms,
                next_ms,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if mine.is_ok() {
                self.look();
            }
        }
        self.current.load_full()
    }

    fn look(&self) {
        // What is behind the lock is whole at every moment.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.changed(&seen.digest) {
            Ok(None) => seen.complaint = None,
            Ok(Some((value, digest))) => {
                self.current.store(value);
                *seen = Seen { digest, complaint: None };
                let variable = self.files[0].variable;
                info!(variable, "A file has changed: what it holds now is used");
            }
            Err(error) if seen.complaint.as_ref() == Some(&error) => {}
            Err(error) => {
                warn!(error = %error, "A file cannot be used any more: what it held before still is");
                seen.complaint = Some(error);
            }
        }
    }

    /// What the files hold now, where that is something else.
    fn changed(&self, known: &ContentsDigest) -> Result<Option<Fresh<T>>, FileError> {
        let contents = contents(&self.files)?;
        let digest = digest(&contents);
        if digest == *known {
            return Ok(None);
        }
        let value = (self.parse)(&contents).map_err(|fault| at(&self.files, fault))?;
        Ok(Some((value, digest)))
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.files).finish()
    }
}

fn at(files: &[CredentialFile], fault: Fault) -> FileError {
    let CredentialFile { variable, path } = files[fault.file].clone();
    FileError { variable, path, what: fault.what }
}

fn contents(files: &[CredentialFile]) -> Result<Vec<Vec<u8>>, FileError> {
    let read = |(file, CredentialFile { path, .. }): (usize, &CredentialFile)| {
        content(path).map_err(|error| at(files, Fault { file, what: error.to_string() }))
    };
    files.iter().enumerate().map(read).collect()
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: opening a pipe waits for somebody to write.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() > usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX) {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

fn digest(contents: &[Vec<u8>]) -> ContentsDigest {
    let mut hash = Sha256::new();
    for bytes in contents {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    }
    hash.finalize().into()
}
