//! One attempt: carries out the steps that are not done yet, one call at a time.

use std::time::Duration;

use tokio::time::Instant;

use super::conflict::{Resolution, resolve};
use super::{End, Services, answered};
use crate::client::{
    Answered, CallContext, CallError, Class, Commit, Found, ReleaseHold, ReleaseReason, Target,
};
use crate::event::{Event, Payment, Seats, Step, StepSet, idempotency_key};
use crate::idempotency::Refusal;
use crate::inflight::{Blame, Lease};
use crate::metrics::{Call, CallResult};
use crate::outage::{Answer, Dependency, Pass, Sign};
use crate::sabotage::{Sabotage, on};
use crate::telemetry::{CallEnd, CallSpan, CallStart, EventSpan, Failure};

/// The path of the Reservation API with a name in place of the id.
const RESERVATION_PATH: &str = "/internal/reservations/{reservation_id}";

/// A service that names no time to speak of is left alone for this long all the same.
const PACED_MIN: Duration = Duration::from_millis(100);

/// An attempt at one event. Its methods are the steps that a handler may take.
pub(super) struct Attempt<'a> {
    pub(super) event: &'a Event,
    pub(super) done: &'a mut StepSet,
    pub(super) recorded: &'a mut StepSet,
    pub(super) lease: &'a Lease,
    pub(super) span: &'a EventSpan,
    pub(super) blame: &'a mut [Blame; Dependency::ALL.len()],
    pub(super) retries: &'a mut u32,
    pub(super) services: &'a Services,
}

/// A call that is being made.
struct OpenCall {
    call: Call,
    span: CallSpan,
    started_at: Instant,
    key: uuid::Uuid,
    propagates: bool,
    dependency: Dependency,
    pass: Pass,
    answered: Answered,
}

impl OpenCall {
    fn context(&self) -> CallContext<'_> {
        CallContext {
            idempotency_key: self.key,
            traceparent: self.propagates.then(|| self.span.traceparent()),
            tracestate: self.span.tracestate().filter(|_| self.propagates),
            answered: Some(&self.answered),
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
        if self.is_done(step).await? {
            return Ok(());
        }
        let id = &self.event.reservation_id;
        let open = self.open(Call::PatchReservation, step)?;
        let api = &self.services.reservations;
        let answer = api.set_status(&open.context(), id, target, payment_intent_id).await;
        match answer {
            Err(ref error) if error.class == Class::Conflict => {
                self.close(open, &answer);
                self.settle_conflict(target).await?;
            }
            answer => self.finish(open, answer)?,
        }
        self.done.insert(step);
        Ok(())
    }

    /// The change was refused: what the reservation's status is decides what that means.
    async fn settle_conflict(&mut self, target: Target) -> Result<(), End> {
        self.check_ours()?;
        let open = self.open(Call::GetReservation, Step::ReservationStatus)?;
        let api = &self.services.reservations;
        let answer = api.status(&open.context(), &self.event.reservation_id).await;
        let found = self.finish(open, answer)?;
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
        if self.is_done(step).await? {
            return Ok(());
        }
        let Event { reservation_id, show_id, .. } = self.event;
        let open = self.open(Call::ReleaseHold, step)?;
        let request = ReleaseHold { reservation_id, show_id, seats, reason };
        let answer = self.services.inventory.release_hold(&open.context(), request).await;
        self.finish(open, answer)?;
        self.done.insert(step);
        Ok(())
    }

    /// Sells the held seats.
    pub(super) async fn inventory_commit(
        &mut self,
        seats: &Seats,
        payment: &Payment,
    ) -> Result<(), End> {
        let step = Step::InventoryCommit;
        if self.is_done(step).await? {
            return Ok(());
        }
        let Event { reservation_id, show_id, .. } = self.event;
        let open = self.open(Call::CommitReservation, step)?;
        let request = Commit {
            reservation_id,
            show_id,
            seats,
            payment_intent_id: payment.payment_intent_id.as_deref(),
            user_id: payment.user_id.as_deref(),
        };
        let answer = self.services.inventory.commit(&open.context(), request).await;
        self.finish(open, answer)?;
        self.done.insert(step);
        Ok(())
    }

    /// Whether a step is done; if not, that it may begin: the store knows of those before it. The
    /// last one needs no record of its own: that the event is handled says it.
    async fn is_done(&mut self, step: Step) -> Result<bool, End> {
        if self.done.contains(step) {
            return Ok(true);
        }
        if *self.recorded != *self.done && !on(Sabotage::RecordSkipped) {
            self.check_ours()?;
            let (records, token) = (&self.services.records, self.lease.token());
            if let Err(refusal) = records.record(&self.event.id, token, *self.done).await {
                if refusal == Refusal::ClaimLost {
                    self.lease.claim_lost();
                }
                return Err(refusal.into());
            }
            *self.recorded = *self.done;
        }
        self.check_ours()?;
        Ok(false)
    }

    /// The message is held, and the event is claimed.
    fn check_ours(&self) -> Result<(), End> {
        if !self.lease.is_held() {
            return Err(End::LeaseLost);
        }
        if !self.lease.is_claimed() {
            return Err(End::Store(Refusal::ClaimLost));
        }
        Ok(())
    }

    /// Begins a call, if its service may be called now.
    fn open(&self, call: Call, step: Step) -> Result<OpenCall, End> {
        let dependency = dependency(call);
        let Some(pass) = self.services.outages.enter(dependency) else {
            return Err(End::Parked { dependency, error: None });
        };
        let key = idempotency_key(&self.event.id, step);
        let (span, started_at) = (self.start_span(call), Instant::now());
        let propagates = !self.services.peers.no_trace_context;
        let answered = Answered::default();
        Ok(OpenCall { call, span, started_at, key, propagates, dependency, pass, answered })
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
            | Call::GetQueueAttributes
            | Call::Claim
            | Call::Renew
            | Call::Record
            | Call::Complete
            | Call::Release => unreachable!("a handler's calls are to the services"),
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

    /// Ends a call, and reads a failure of it: whose fault it is, and what the event does next.
    fn finish<T>(&mut self, open: OpenCall, answer: Result<T, CallError>) -> Result<T, End> {
        let dependency = open.dependency;
        let booked = self.close(open, &answer);
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let parked = |error| Err(End::Parked { dependency, error: Some(error) });
        let blame = &mut self.blame[dependency.index()];
        blame.settle(booked, self.retries);
        if on(Sabotage::BreakerSpendsRetries) {
            return Err(End::Failed { error, counted: true });
        }
        match error.class {
            Class::MoneyWithoutSeat => Err(End::MoneyWithoutSeat { detail: error.to_string() }),
            Class::Paced => parked(error),
            Class::Outage | Class::Transient | Class::Forbidden if !booked.called => parked(error),
            Class::Outage => {
                let counted = blame.is_own(booked);
                Err(End::Failed { error, counted })
            }
            Class::Transient => {
                blame.charge(booked);
                Err(End::Failed { error, counted: true })
            }
            Class::Forbidden | Class::Conflict | Class::Permanent => {
                Err(End::Failed { error, counted: true })
            }
        }
    }

    fn close<T>(&self, open: OpenCall, answer: &Result<T, CallError>) -> Answer {
        let error = answer.as_ref().err();
        let (sign, result) = error.map_or((Sign::Well, CallResult::Ok), read);
        self.services.metrics.call(open.call, result, open.started_at.elapsed());
        let failure = error.map(|e| Failure { error_type: &e.code, message: &e.detail });
        let status = answered::status(open.dependency, &open.answered, error);
        open.span.end(CallEnd { status, failure });
        open.pass.report(sign, &self.event.reservation_id)
    }
}

/// What a failure says about the service, and how it is counted.
fn read(error: &CallError) -> (Sign, CallResult) {
    match error.class {
        Class::Outage => (Sign::Outage, CallResult::Outage),
        Class::Transient => (Sign::Failure, CallResult::Transient),
        Class::Paced => {
            let wait = error.retry_after.unwrap_or_default().max(PACED_MIN);
            (Sign::Paced(wait), CallResult::Paced)
        }
        Class::Conflict => (Sign::Well, CallResult::Conflict),
        Class::Forbidden => (Sign::Refusal, CallResult::Permanent),
        Class::Permanent | Class::MoneyWithoutSeat => (Sign::Well, CallResult::Permanent),
    }
}

/// Whom a call goes to.
fn dependency(call: Call) -> Dependency {
    match call {
        Call::PatchReservation | Call::GetReservation => Dependency::ReservationApi,
        Call::ReleaseHold | Call::CommitReservation => Dependency::Inventory,
        Call::ReceiveMessage
        | Call::DeleteMessageBatch
        | Call::ChangeMessageVisibilityBatch
        | Call::SendMessage
        | Call::GetQueueAttributes
        | Call::Claim
        | Call::Renew
        | Call::Record
        | Call::Complete
        | Call::Release => unreachable!("a handler's calls are to the services"),
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
