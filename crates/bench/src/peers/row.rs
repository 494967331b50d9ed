//! The rows of the table.

use faults::failed::Failed;

use super::bad::{self, Bad};
use super::good::{self, Good};
use super::peer::{Outcome, Peer, Setting};

/// A load or a fault that every program is measured under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Services that answer.
    Good(Good),
    /// Services that do not, or not always.
    Bad(Bad),
}

impl Row {
    /// All rows, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Good(Good::AtOnce20),
        Self::Good(Good::AtOnce100),
        Self::Bad(Bad::ThrottledFifth),
        Self::Bad(Bad::SmallService),
        Self::Bad(Bad::SickTenth),
        Self::Bad(Bad::PageWith200),
        Self::Bad(Bad::OutageAndKill),
    ];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good(good) => good.name(),
            Self::Bad(bad) => bad.name(),
        }
    }

    /// Returns what is done in it, for a measurement of this length.
    #[must_use]
    pub fn about(self, seconds: u64) -> String {
        match self {
            Self::Good(good) => good.about(seconds),
            Self::Bad(bad) => bad.about(seconds),
        }
    }

    /// Runs a program in this row.
    ///
    /// # Errors
    /// If it cannot be started, or handles nothing.
    pub fn run(self, peer: &Peer, setting: &Setting<'_>) -> Result<Outcome, Failed> {
        match self {
            Self::Good(good) => good::run(good, peer, setting),
            Self::Bad(bad) => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                runtime.block_on(bad::run(bad, peer, setting))
            }
        }
    }
}
