//! A value parsed from files, which are read again when they change. An invalid change is logged
//! once, and the previous value stays in use.
//!
//! The check is cheap and needs no task: [`Watched::current`] checks the files if the last check
//! was at least [`LOOK_INTERVAL`] ago. It reads the whole files on the caller's thread: they have a
//! few KiB, and on Kubernetes they are in memory.

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

/// Minimum interval between checks of the files.
///
/// The files are checked when the value is used. A change is detected at most this long after the
/// first use that follows it, if the value is used again.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum file size: five times a bundle of all public root certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Error of a credential file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}, {path}: {what}", path = path.display())]
pub struct FileError {
    /// The environment variable that contains the path.
    pub variable: &'static str,
    /// The path of the file.
    pub path: std::path::PathBuf,
    /// Description of the fault, without any file contents.
    pub what: String,
}

/// Fault in one of several files.
#[derive(Debug)]
pub(super) struct FileFault {
    /// Index of the file.
    pub(super) file: usize,
    pub(super) what: String,
}

/// Parses the contents of the files, in the order of the files.
type Parse<T> = fn(&[Vec<u8>]) -> Result<Arc<T>, FileFault>;

/// Digest to detect changes without storing the contents.
type ContentsDigest = [u8; 32];

/// A new value and the digest of its contents.
type Fresh<T> = (Arc<T>, ContentsDigest);

/// Result of the last check.
struct LastCheck {
    digest: ContentsDigest,
    complaint: Option<FileError>,
}

/// A value parsed from files, with automatic reload.
pub struct Watched<T> {
    files: Vec<CredentialFile>,
    parse: Parse<T>,
    current: ArcSwap<T>,
    seen: Mutex<LastCheck>,
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
            seen: Mutex::new(LastCheck { digest: digest(&contents), complaint: None }),
            began: Instant::now(),
            next_look_ms: AtomicU64::new(millis(LOOK_INTERVAL)),
        })
    }

    /// Returns the value. Checks the files first if the last check was at least [`LOOK_INTERVAL`]
    /// ago.
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

    /// Returns the value after a check of the files, whenever the last check was.
    pub fn latest(&self) -> Arc<T> {
        self.look();
        self.current.load_full()
    }

    fn look(&self) {
        // Poisoning is ignored: no panic can leave a partial update.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.changed(&seen.digest) {
            Ok(None) => seen.complaint = None,
            Ok(Some((value, digest))) => {
                self.current.store(value);
                *seen = LastCheck { digest, complaint: None };
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

    /// Reads the files again and returns the new value, or `None` if they have not changed.
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

fn at(files: &[CredentialFile], fault: FileFault) -> FileError {
    let CredentialFile { variable, path } = files[fault.file].clone();
    FileError { variable, path, what: fault.what }
}

fn contents(files: &[CredentialFile]) -> Result<Vec<Vec<u8>>, FileError> {
    let read = |(file, CredentialFile { path, .. }): (usize, &CredentialFile)| {
        content(path).map_err(|error| at(files, FileFault { file, what: error.to_string() }))
    };
    files.iter().enumerate().map(read).collect()
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    // Checked before the file is opened: opening a named pipe blocks until a writer opens it.
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
