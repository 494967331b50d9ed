//! Table operations for receipts without a job; see `state/retained`.

use tokio::time::Instant;

use super::InFlight;
use super::job::{Receipt, ReceiptKey};
use super::state::TakenBack;

impl InFlight {
    /// Keeps a receipt that could not be settled yet.
    /// Its lease is extended until it is taken back.
    pub fn keep(&self, receipt: Receipt, now: Instant) -> ReceiptKey {
        let (key, is_earlier) = self.lock().keep(receipt, now);
        if is_earlier {
            self.renewals_changed.notify_one();
        }
        key
    }

    /// Takes a kept receipt back for another attempt.
    /// A receipt with little time left is extended first, unless `urgent`.
    pub fn take_back(&self, key: ReceiptKey, now: Instant, urgent: bool) -> TakenBack {
        self.lock().take_back(key, now, urgent)
    }

    /// Makes the next receipt to extend due now. Returns `false` if there is none.
    pub fn renew_one(&self, now: Instant) -> bool {
        let is_some = self.lock().renew_one(now);
        self.renewals_changed.notify_one();
        is_some
    }

    /// Waits until a job has left the table. Cancel-safe.
    pub async fn one_left(&self) {
        self.left.notified().await;
    }
}
