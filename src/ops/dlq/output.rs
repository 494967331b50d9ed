//! The work of the commands that show, count, save or discard letters.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::console::Console;
use super::delete::delete;
use super::letter::{IdHash, Letter};
use super::scan::{RunState, Work, lock};
use super::text::{brief, heading, json_line, line, page, printable, whole};

/// How letters are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// One line each.
    Lines,
    /// Everything.
    Pages,
    /// Not at all.
    Nothing,
}

/// Shows letters, and remembers which ones.
pub(super) struct Show<'a> {
    pub(super) held: &'a RunState<'a>,
    pub(super) console: &'a Console,
    pub(super) view: View,
    pub(super) now: SystemTime,
    pub(super) shown: Mutex<HashSet<IdHash>>,
}

impl<'a> Show<'a> {
    pub(super) fn new(
        held: &'a RunState<'a>,
        console: &'a Console,
        view: View,
        now: SystemTime,
    ) -> Self {
        Self { held, console, view, now, shown: Mutex::default() }
    }
}

#[async_trait]
impl Work for Show<'_> {
    async fn handle(&self, letters: Vec<Letter>) {
        for letter in letters {
            let is_first = lock(&self.shown).is_empty();
            lock(&self.shown).insert(letter.hash());
            match (self.view, self.console.is_json()) {
                (View::Nothing, _) => {}
                (View::Lines, true) => {
                    self.console.print_json(&Value::Object(brief(&letter))).await
                }
                (View::Pages, true) => self.console.print_json(&whole(&letter)).await,
                (View::Lines, false) => {
                    if is_first {
                        self.console.print(&heading()).await;
                    }
                    self.console.print(&line(&letter, self.now)).await;
                }
                (View::Pages, false) => self.console.print(&page(&letter, self.now)).await,
            }
        }
        if self.console.is_closed() {
            // As `| head` does: what was asked for was shown.
            self.held.halt.cancel();
        }
    }
}

/// A file of JSON lines, one for each letter, whole.
pub(super) struct ExportFile {
    file: Arc<Mutex<Box<dyn SyncedWrite>>>,
    /// Whether it can be waited for: a disk writes, and a pipe may never be read.
    is_disk: bool,
}

/// A file, or standard output.
trait SyncedWrite: Write + Send {
    /// Waits until what was written outlives a crash of the machine.
    fn sync(&mut self) -> io::Result<()>;
}

impl SyncedWrite for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl SyncedWrite for io::Stdout {
    fn sync(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// Ends the last line, which a full disk or a crash may have cut: the next letter, of which the
/// file may become the only copy, has a line of its own.
fn end_line(file: &mut File) -> io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != [b'\n'] { file.write_all(b"\n") } else { Ok(()) }
}

impl ExportFile {
    /// Creates the file, readable by its owner only, or appends to it.
    ///
    /// # Errors
    /// If it cannot be created or opened, or if it exists and `is_new` demands that it does not.
    pub(super) fn create(path: &Path, is_new: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(!is_new).create_new(is_new).mode(0o600);
        let mut file = options.open(path)?;
        if !is_new {
            end_line(&mut file)?;
        }
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // The name of a new file must outlive a crash too.
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Self { file: Arc::new(Mutex::new(Box::new(file))), is_disk: true })
    }

    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self { file: Arc::new(Mutex::new(Box::new(io::stdout()))), is_disk: false }
    }

    /// Writes letters in a thread of its own, waits until they are on the disk, and returns them.
    async fn write(
        &self,
        letters: Vec<Letter>,
        given_up: impl Future<Output = ()>,
    ) -> io::Result<Vec<Letter>> {
        let file = Arc::clone(&self.file);
        let writing = spawn_blocking(move || {
            let mut file = lock(&file);
            for letter in &letters {
                file.write_all(json_line(&whole(letter)).as_bytes())?;
            }
            file.sync()?;
            Ok(letters)
        });
        tokio::select! {
            biased;
            written = writing => written.unwrap_or_else(|why| Err(io::Error::other(why))),
            () = given_up, if !self.is_disk => Err(io::Error::other("its reader does not read")),
        }
    }
}

/// Saves letters, and deletes them if that is asked for.
pub(super) struct Save<'a> {
    pub(super) held: &'a RunState<'a>,
    pub(super) console: &'a Console,
    /// `None` discards without a copy.
    pub(super) file: Option<ExportFile>,
    pub(super) discards: bool,
}

#[async_trait]
impl Work for Save<'_> {
    async fn handle(&self, letters: Vec<Letter>) {
        let count = u64::try_from(letters.len()).unwrap_or(u64::MAX);
        let written = match &self.file {
            Some(file) => file.write(letters, self.console.given_up()).await,
            None => Ok(letters),
        };
        let letters = match written {
            Ok(letters) => letters,
            Err(why) => {
                self.held.fail(format!("the export cannot be written: {why}"));
                self.held.tally.change(|numbers| numbers.failed += count);
                return;
            }
        };
        if !self.discards {
            self.held.tally.change(|numbers| numbers.done += count);
            return;
        }
        // A lease that has ended is no reason to keep it: the copy is there, and SQS decides.
        let ids: Vec<IdHash> = letters.iter().map(Letter::hash).collect();
        let kept = delete(self.held, &ids).await;
        for letter in letters {
            let is_kept = kept.contains(&letter.hash());
            self.held.tally.change(|numbers| {
                numbers.done += u64::from(!is_kept);
                numbers.failed += u64::from(is_kept);
            });
            if is_kept {
                let id = printable(&letter.message.id.0);
                self.console.tell(&format!("{id}: it could not be deleted")).await;
            }
            if self.console.is_json() {
                let mut fields = brief(&letter);
                let result = if is_kept { "failed" } else { "discarded" };
                fields.insert("result".to_owned(), json!(result));
                self.console.print_json(&Value::Object(fields)).await;
            }
        }
    }
}
