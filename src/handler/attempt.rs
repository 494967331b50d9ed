//! One attempt: carries out the steps that are not done yet, one call at a time.

use tokio::time::Instant;

use super::conflict::{Resolution, resolve};
use super::{End, Services};
use crate::client::{
    CallContext, CallError, Class, Commit, Found, ReleaseHold, ReleaseReason, Target,
};
use crate::event::{Event, Payment, Seats, Step, StepSet, idempotency_key};
use crate::idempotency::Token;
use crate::inflight::Lease;
use crate::metrics::{Call, CallResult};
use crate::sabotage::{Sabotage, on};
use crate::telemetry::{CallEnd, CallSpan, CallStart, CallStatus, EventSpan, Failure};

/// The path of the Reservation API with a name in place of the id.
const RESERVATION_PATH: &str = "/internal/reservations/{reservation_id}";

/// An attempt at one event. Its methods are the steps that a handler may take.
pub(super) struct Attempt<'a> {
    pub(super) event: &'a Event,
    pub(super) done: &'a mut StepSet,
    pub(super) lease: &'a Lease,
    pub(super) span: &'a EventSpan,
    pub(super) token: Token,
    pub(super) services: &'a Services,
}

/// A call that is being made.
struct OpenCall {
    call: Call,
    span: CallSpan,
    started_at: Instant,
    key: uuid::Uuid,
}

impl OpenCall {
    fn context(&self) -> CallContext<'_> {
        CallContext {
            idempotency_key: self.key,
            traceparent: self.span.traceparent(),
            tracestate: self.span.tracestate(),
        }
    }
}

impl Attempt<'_> {
    /// Sets the reservation's status. Done, too, where the reservation turns out to be past it.
    pub(super) async fn reservation_status(
        &mut self,
        target: Target,
        payment_intent_id: Option<&str>,
    ) -> Result<(), End> {
        let step = Step::ReservationStatus;
        if self.is_done(step)? {
            return Ok(());
        }
        let id = &self.event.reservation_id;
        let open = self.open(Call::PatchReservation, step);
        let api = &self.services.reservations;
        let answer = api.set_status(&open.context(), id, target, payment_intent_id).await;
        self.close(open, &answer);
        match answer {
            Ok(()) => {}
            Err(error) if error.class == Class::Conflict => self.settle_conflict(target).await?,
            Err(error) => return Err(failed(error)),
        }
        self.record(step).await
    }

    /// The change was refused: what the reservation's status is decides what that means.
    async fn settle_conflict(&self, target: Target) -> Result<(), End> {
        if !self.lease.is_held() {
            return Err(End::LeaseLost);
        }
        let open = self.open(Call::GetReservation, Step::ReservationStatus);
        let api = &self.services.reservations;
        let answer = api.status(&open.context(), &self.event.reservation_id).await;
        self.close(open, &answer);
        let found = answer.map_err(failed)?;
        match resolve(target, &found) {
            Resolution::Done => Ok(()),
            Resolution::Superseded if on(Sabotage::SupersededIgnored) => Ok(()),
            Resolution::Superseded => Err(End::Superseded { found: name(&found) }),
            Resolution::MoneyWithoutSeat => Err(End::MoneyWithoutSeat {
                detail: format!("the payment was approved, the reservation is {}", name(&found)),
            }),
            Resolution::Unclear => Err(End::Unclear {
                found: match found {
                    Found::Other(status) => status,
                    Found::Confirmed | Found::Expired | Found::Cancelled => name(&found).to_owned(),
                },
            }),
        }
    }

    /// Gives the held seats back.
    pub(super) async fn inventory_release(
        &mut self,
        seats: &Seats,
        reason: ReleaseReason,
    ) -> Result<(), End> {
        let step = Step::InventoryRelease;
        if self.is_done(step)? {
            return Ok(());
        }
        let Event { reservation_id, show_id, .. } = self.event;
        let open = self.open(Call::ReleaseHold, step);
        let request = ReleaseHold { reservation_id, show_id, seats, reason };
        let answer = self.services.inventory.release_hold(&open.context(), request).await;
        self.close(open, &answer);
        answer.map_err(failed)?;
        self.record(step).await
    }

    /// Sells the held seats.
    pub(super) async fn inventory_commit(
        &mut self,
        seats: &Seats,
        payment: &Payment,
    ) -> Result<(), End> {
        let step = Step::InventoryCommit;
        if self.is_done(step)? {
            return Ok(());
        }
        let Event { reservation_id, show_id, .. } = self.event;
        let open = self.open(Call::CommitReservation, step);
        let request = Commit {
            reservation_id,
            show_id,
            seats,
            payment_intent_id: payment.payment_intent_id.as_deref(),
            user_id: payment.user_id.as_deref(),
        };
        let answer = self.services.inventory.commit(&open.context(), request).await;
        self.close(open, &answer);
        answer.map_err(failed)?;
        self.record(step).await
    }

    /// Whether a step is done; if not, that it may begin.
    fn is_done(&self, step: Step) -> Result<bool, End> {
        if self.done.contains(step) {
            return Ok(true);
        }
        if self.lease.is_held() { Ok(false) } else { Err(End::LeaseLost) }
    }

    async fn record(&mut self, step: Step) -> Result<(), End> {
        self.done.insert(step);
        let store = &self.services.store;
        store.record(&self.event.id, self.token, step).await.map_err(End::Store)
    }

    fn open(&self, call: Call, step: Step) -> OpenCall {
        let key = idempotency_key(&self.event.id, step);
        OpenCall { call, span: self.start_span(call), started_at: Instant::now(), key }
    }

    fn start_span(&self, call: Call) -> CallSpan {
        let peers = &self.services.peers;
        let (host, port) = &peers.reservation;
        let http = |method, url: &str| {
            self.span.start_call(CallStart::Http {
                method,
                url_template: RESERVATION_PATH,
                url,
                server_address: host,
                server_port: *port,
            })
        };
        let rpc = |method| {
            let (host, port) = &peers.inventory;
            self.span.start_call(CallStart::Rpc {
                method,
                server_address: host,
                server_port: *port,
            })
        };
        match call {
            Call::PatchReservation => http("PATCH", &self.url()),
            Call::GetReservation => http("GET", &self.url()),
            Call::ReleaseHold => rpc("reservation.v1.InventoryService/ReleaseHold"),
            Call::CommitReservation => rpc("reservation.v1.InventoryService/CommitReservation"),
            Call::ReceiveMessage
            | Call::DeleteMessageBatch
            | Call::ChangeMessageVisibilityBatch
            | Call::SendMessage
            | Call::GetQueueAttributes => unreachable!("no handler calls the queue"),
        }
    }

    /// For a span that is recorded; the others do not pay for it.
    fn url(&self) -> String {
        if !self.span.is_recording() {
            return String::new();
        }
        let base = &self.services.peers.reservation_base;
        let id = crate::client::path_segment(self.event.reservation_id.as_str());
        format!("{base}/internal/reservations/{id}")
    }

    fn close<T>(&self, open: OpenCall, answer: &Result<T, CallError>) {
        let result = match answer {
            Ok(_) => CallResult::Ok,
            Err(error) => match error.class {
                Class::Outage => CallResult::Outage,
                Class::Transient => CallResult::Transient,
                Class::Paced => CallResult::Paced,
                Class::Conflict => CallResult::Conflict,
                Class::Forbidden | Class::Permanent | Class::MoneyWithoutSeat => {
                    CallResult::Permanent
                }
            },
        };
        self.services.metrics.call(open.call, result, open.started_at.elapsed());
        let failure = answer
            .as_ref()
            .err()
            .map(|error| Failure { error_type: &error.code, message: &error.detail });
        let status = match answer {
            Ok(_) => CallStatus::None,
            Err(error) => http_status(&error.code).map_or(CallStatus::None, CallStatus::Http),
        };
        open.span.end(CallEnd { status, failure });
    }
}

fn http_status(code: &str) -> Option<u16> {
    code.strip_prefix("http_")?.parse().ok()
}

fn failed(error: CallError) -> End {
    match error.class {
        Class::MoneyWithoutSeat => End::MoneyWithoutSeat { detail: error.to_string() },
        Class::Outage
        | Class::Transient
        | Class::Paced
        | Class::Conflict
        | Class::Forbidden
        | Class::Permanent => End::Failed(error),
    }
}

fn name(found: &Found) -> &'static str {
    match found {
        Found::Confirmed => Target::Confirmed.as_str(),
        Found::Expired => Target::Expired.as_str(),
        Found::Cancelled => Target::Cancelled.as_str(),
        Found::Other(_) => "OTHER",
    }
}
