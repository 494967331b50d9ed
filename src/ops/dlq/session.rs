//! A command on its queues: counts and asks where it must, does its work, and reports.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::console::Console;
use super::letter::IdHash;
use super::output::{ExportFile, Save, Show, View};
use super::redrive::{Pacer, RedriveWork, send_permits};
use super::scan::{RunState, Scan, Work, lock};
use super::tally::Numbers;
use super::{FAILED, INTERRUPTED, SUCCESS, USAGE};
use crate::cli::{Copies, DlqCommand, Selection};
use crate::queue::{OperatorQueue, QueueError};
use crate::settle::DeadLetterReason;

/// Intervals of the progress, on a terminal and elsewhere.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
const PROGRESS_EVERY_ELSEWHERE: Duration = Duration::from_secs(10);

/// One command on its queues.
pub(super) struct Session<'a> {
    pub(super) command: &'a DlqCommand,
    pub(super) selection: &'a Selection,
    pub(super) console: &'a Console,
    pub(super) source: &'a dyn OperatorQueue,
    /// The name of the source queue.
    pub(super) queue_name: &'a str,
    pub(super) dlq: &'a dyn OperatorQueue,
    pub(super) stop: &'a CancellationToken,
    /// Whether it was told that visibility may not be changed.
    pub(super) is_denial_told: AtomicBool,
}

impl Session<'_> {
    pub(super) async fn run(&self) -> u8 {
        let began_at = SystemTime::now();
        // Before anybody is asked, so that what was confirmed can be done.
        let file = match self.export_file() {
            Ok(file) => file,
            Err(why) => {
                self.console
                    .tell(&format!("reservation-worker: the file cannot be written: {why}"))
                    .await;
                return USAGE;
            }
        };
        let mut confirmed = None;
        if let Some(consent) = self.command.consent().filter(|one| !one.yes || one.dry_run) {
            let shows = self.console.is_json() && consent.dry_run;
            let view = if shows { View::Lines } else { View::Nothing };
            let (state, counted) = self.count(view, began_at).await;
            if consent.dry_run || state.halt.is_cancelled() || counted.is_empty() {
                return self.end(&state, consent.dry_run).await;
            }
            match self.is_confirmed(&state.tally.now()).await {
                Some(true) => confirmed = Some(counted),
                Some(false) => return FAILED,
                None => return INTERRUPTED,
            }
        }
        let state = RunState::new(self.dlq, self.stop.child_token());
        let scan = self.scan(&state, confirmed, began_at);
        let work: Box<dyn Work + '_> = match self.command {
            DlqCommand::List => Box::new(Show::new(&state, self.console, View::Lines, began_at)),
            DlqCommand::Show => Box::new(Show::new(&state, self.console, View::Pages, began_at)),
            DlqCommand::Redrive { rate, consent: _ } => Box::new(RedriveWork {
                held: &state,
                source: self.source,
                console: self.console,
                pacer: Pacer::new(*rate),
                send_permits: send_permits(),
                rate: *rate,
            }),
            DlqCommand::Discard { .. } | DlqCommand::Export(_) => {
                let discards = matches!(self.command, DlqCommand::Discard { .. });
                Box::new(Save { held: &state, console: self.console, file, discards })
            }
        };
        self.pass(&scan, &*work).await;
        drop(work);
        self.end(&state, false).await
    }

    /// Opens the file that the command writes, if there is one.
    fn export_file(&self) -> io::Result<Option<ExportFile>> {
        match self.command {
            DlqCommand::Export(path) if path.as_os_str() == "-" => Ok(Some(ExportFile::stdout())),
            DlqCommand::Export(path) => ExportFile::create(path, true).map(Some),
            DlqCommand::Discard { copies: Copies::File(path), consent } if !consent.dry_run => {
                ExportFile::create(path, false).map(Some)
            }
            DlqCommand::Discard { .. }
            | DlqCommand::List
            | DlqCommand::Show
            | DlqCommand::Redrive { .. } => Ok(None),
        }
    }

    /// Counts what the command is about; shows all of it again.
    async fn count(&self, view: View, began_at: SystemTime) -> (RunState<'_>, HashSet<IdHash>) {
        let held = RunState::new(self.dlq, self.stop.child_token());
        let counted = {
            let work = Show::new(&held, self.console, view, began_at);
            self.pass(&self.scan(&held, None, began_at), &work).await;
            work.shown.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        (held, counted)
    }

    fn scan<'s>(
        &'s self,
        held: &'s RunState<'s>,
        only: Option<HashSet<IdHash>>,
        began_at: SystemTime,
    ) -> Scan<'s> {
        let filter = &self.selection.filter;
        let money = DeadLetterReason::MoneyWithoutSeat.as_str();
        let redrives = matches!(self.command, DlqCommand::Redrive { .. });
        Scan {
            held,
            filter,
            limit: self.selection.limit.unwrap_or_else(|| self.command.default_limit(filter)),
            only,
            began_at,
            leaves_newer: self.command.consent().is_some(),
            leaves_money: redrives && !filter.names_reason(money),
            only_of: (!self.selection.from_any_source).then_some(self.queue_name),
        }
    }

    /// Runs a pass, with its progress.
    async fn pass(&self, scan: &Scan<'_>, work: &dyn Work) {
        let mut denial = scan.held.leases.denial();
        tokio::select! {
            () = scan.run(work) => {}
            () = self.progress(scan.held) => {}
            () = self.tell_denial(denial.clone()) => {}
        }
        let denied = denial.borrow_and_update().clone();
        if let Some(why) = denied {
            self.tell_denied(&why).await;
        }
    }

    /// Tells as soon as it is known that visibility may not be changed; never ends.
    async fn tell_denial(&self, mut denial: watch::Receiver<Option<QueueError>>) {
        // A clone: while the value is borrowed, whoever notes the next denial blocks the thread.
        let denied = denial.wait_for(Option::is_some).await.ok().and_then(|why| (*why).clone());
        if let Some(why) = denied {
            self.tell_denied(&why).await;
        }
        std::future::pending().await
    }

    async fn tell_denied(&self, why: &QueueError) {
        if !self.is_denial_told.swap(true, Ordering::Relaxed) {
            self.console.tell(&format!(
                "What is looked at stays hidden from others for 1 to 5 minutes, and what takes longer than that is shown to them meanwhile: {why}"
            )).await;
        }
    }

    /// Shows the progress; never ends.
    async fn progress(&self, held: &RunState<'_>) {
        let every =
            if self.console.can_replace() { PROGRESS_EVERY } else { PROGRESS_EVERY_ELSEWHERE };
        loop {
            sleep(every).await;
            let numbers = held.tally.now();
            let verb = self.command.verb();
            let done = match verb {
                "" => String::new(),
                _ => format!(", {} {verb}, {} failed", numbers.done, numbers.failed),
            };
            let what = if held.halt.is_cancelled() { "ending: " } else { "" };
            self.console
                .progress(&format!(
                    "{what}{} looked at, {} match{done}",
                    numbers.seen,
                    numbers.matches()
                ))
                .await;
        }
    }

    /// Asks for the number of letters. `None`: interrupted.
    async fn is_confirmed(&self, numbers: &Numbers) -> Option<bool> {
        let (name, count) = (self.command.name(), numbers.matches());
        self.console.tell(&numbers.table()).await;
        self.tell_rest(numbers).await;
        let question =
            format!("Type {count} to {name} {}: ", if count == 1 { "it" } else { "them" });
        let answer = self.console.ask(&question).await;
        if self.stop.is_cancelled() {
            return None;
        }
        let is_right = answer.is_some_and(|answer| answer.trim() == count.to_string());
        if !is_right {
            self.console.tell("Nothing was changed.").await;
        }
        Some(is_right)
    }

    /// Tells what the command leaves alone, and why.
    async fn tell_rest(&self, numbers: &Numbers) {
        let Numbers { money, others, newer, hidden, held_by_others, unseen, .. } = numbers;
        if *money > 0 {
            self.console
                .tell(&format!(
                    "{money} left alone: money_without_seat; --reason money_without_seat names them"
                ))
                .await;
        }
        if *others > 0 {
            let hint = if self.command.consent().is_some() {
                "they go back with their own queue's variables"
            } else {
                "--from-any-source takes them along"
            };
            self.console.tell(&format!("{others} of other queues left alone: {hint}")).await;
        }
        if *newer > 0 {
            self.console
                .tell(&format!(
                    "{newer} left alone: sent after this run began, by this machine's clock"
                ))
                .await;
        }
        if *hidden > 0 {
            self.console
                .tell(&format!(
                    "{hidden} could not be shown again: SQS shows them within 5 minutes"
                ))
                .await;
        }
        if *held_by_others > 0 {
            self.console.tell(&format!(
                "About {held_by_others} could not be looked at: another command or consumer holds them. Run it again later"
            )).await;
        }
        if let Some(unseen) = unseen {
            self.console.tell(&format!("Not all was looked at: {unseen}")).await;
        }
    }

    /// Reports the end and returns the exit code.
    async fn end(&self, held: &RunState<'_>, is_dry: bool) -> u8 {
        let numbers = held.tally.now();
        let error = lock(&held.fatal).clone();
        self.tell_rest(&numbers).await;
        if let Some(error) = &error {
            self.console.tell(&format!("reservation-worker: {error}")).await;
        }
        if self.console.is_json() {
            let (name, verb) = (self.command.name(), self.command.verb());
            if !matches!(self.command, DlqCommand::Export(_)) {
                self.console.print_json(&numbers.json(name, verb, error.as_deref())).await;
            }
        } else {
            self.summarize(&numbers, is_dry).await;
        }
        if self.stop.is_cancelled() {
            return INTERRUPTED;
        }
        let is_unfinished = !is_dry && self.command.is_about_all() && !numbers.is_complete();
        if error.is_some() || numbers.failed > 0 || is_unfinished { FAILED } else { SUCCESS }
    }

    async fn summarize(&self, numbers: &Numbers, is_dry: bool) {
        let (matching, seen) = (numbers.matches(), numbers.seen);
        let summary = match self.command {
            DlqCommand::List => {
                format!("\n{}{matching} of {seen} messages match.\n", table(numbers))
            }
            DlqCommand::Show if matching > 0 => return self.console.end_progress().await,
            DlqCommand::Show => format!("None of {seen} messages match.\n"),
            DlqCommand::Redrive { .. } | DlqCommand::Discard { .. } if is_dry => {
                format!(
                    "{}{matching} of {seen} messages match. Nothing was changed (--dry-run).\n",
                    table(numbers)
                )
            }
            DlqCommand::Redrive { .. } | DlqCommand::Discard { .. } => {
                let Numbers { done, failed, .. } = numbers;
                format!("{done} of {matching} {}, {failed} failed.\n", self.command.verb())
            }
            // Standard output may be the export.
            DlqCommand::Export(_) => {
                let done = numbers.done;
                return self.console.tell(&format!("{done} of {seen} messages exported.")).await;
            }
        };
        self.console.print(&summary).await;
    }
}

fn table(numbers: &Numbers) -> String {
    if numbers.matching.is_empty() { String::new() } else { numbers.table() + "\n" }
}
