//! One attempt: executes the steps that are not done yet, one call at a time.

use std::sync::Arc;

use tokio::time::Instant;

use super::conflict::{Resolution, resolve};
use super::{AttemptOutcome, EventWait, Services, answered};
use crate::client::{
    Answered, CallContext, CallError, Class, Commit, Load, ReleaseHold, ReleaseReason, Reservation,
    ReservationStatus, TargetStatus,
};
use crate::event::{Event, Payment, Seats, Step, StepSet, idempotency_key};
use crate::idempotency::{Lost, StoreError};
use crate::inflight::{Lease, ParkedAs};
use crate::metrics::{Call, CallResult};
use crate::outage::attribution::{FailureAttribution, ServiceCharges, attribute};
use crate::outage::{BreakerSnapshot, CallOutcome, CallPermit, Dependency};
use crate::telemetry::{CallEnd, CallSpan, CallStart, EventSpan, SpanFailure};

/// URL template of the Reservation API, for spans.
const RESERVATION_PATH: &str = "/internal/reservations/{reservation_id}";

/// One attempt at an event. Its methods are the steps that a handler can take.
pub(super) struct Attempt<'a> {
    pub(super) event: &'a Event,
    pub(super) reservation: &'a mut Option<Arc<Reservation>>,
    pub(super) done: &'a mut StepSet,
    pub(super) recorded: &'a mut StepSet,
    pub(super) lease: &'a Lease,
    pub(super) span: &'a EventSpan,
    pub(super) charges: &'a mut ServiceCharges,
    pub(super) retries: &'a mut u32,
    pub(super) services: &'a Services,
}

/// A call in progress.
struct OpenCall {
    call: Call,
    span: CallSpan,
    started_at: Instant,
    key: uuid::Uuid,
    propagates_trace_context: bool,
    /// The X-Ray header, if that propagator is enabled.
    xray: Option<String>,
    dependency: Dependency,
    permit: CallPermit,
    answered: Answered,
}

impl OpenCall {
    fn context(&self) -> CallContext<'_> {
        CallContext {
            idempotency_key: self.key,
            traceparent: self.propagates_trace_context.then(|| self.span.traceparent()),
            tracestate: self.span.tracestate().filter(|_| self.propagates_trace_context),
            baggage: self.span.baggage(),
            xray: self.xray.as_deref(),
            answered: Some(&self.answered),
        }
    }
}

impl Attempt<'_> {
    /// Sets the reservation's status. An equivalent current status counts as done.
    pub(super) async fn reservation_status(
        &mut self,
        target: TargetStatus,
        payment_intent_id: Option<&str>,
    ) -> Result<(), AttemptOutcome> {
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

    /// Resolves a refused change of status by the reservation's current status.
    async fn settle_conflict(&mut self, target: TargetStatus) -> Result<(), AttemptOutcome> {
        let reservation = self.ask().await?;
        let found = reservation.status.clone();
        match resolve(target, &found) {
            Resolution::Done => {
                if self.event.lacks_hold() {
                    *self.reservation = Some(Arc::new(reservation));
                }
                Ok(())
            }
            Resolution::Superseded => Err(AttemptOutcome::Superseded { found: name(&found) }),
            Resolution::MoneyWithoutSeat => Err(AttemptOutcome::MoneyWithoutSeat {
                detail: format!("the payment was approved, the reservation is {}", name(&found)),
            }),
            Resolution::Unclear => Err(AttemptOutcome::Unclear {
                found: match found {
                    ReservationStatus::Other(status) => status,
                    ReservationStatus::Confirmed
                    | ReservationStatus::Expired
                    | ReservationStatus::Cancelled => name(&found).to_owned(),
                },
            }),
        }
    }

    /// Fetches the reservation from the Reservation API.
    async fn ask(&mut self) -> Result<Reservation, AttemptOutcome> {
        self.check_ours()?;
        let open = self.open(Call::GetReservation, Step::ReservationStatus)?;
        let api = &self.services.reservations;
        let answer = api.reservation(&open.context(), &self.event.reservation_id).await;
        self.finish(open, answer)
    }

    /// Fetches hold data that the event lacks, once; later attempts reuse the response.
    async fn complete_hold(&mut self) -> Result<(), AttemptOutcome> {
        if !self.event.lacks_hold() || self.reservation.is_some() {
            return Ok(());
        }
        let reservation = self.ask().await?;
        // Sold after the first step: its seats must not be released.
        if reservation.status == ReservationStatus::Confirmed {
            return Err(AttemptOutcome::Superseded { found: name(&reservation.status) });
        }
        *self.reservation = Some(Arc::new(reservation));
        Ok(())
    }

    /// Releases the held seats: those in the event, else those from the Reservation API.
    pub(super) async fn inventory_release(
        &mut self,
        reason: ReleaseReason,
    ) -> Result<(), AttemptOutcome> {
        let step = Step::InventoryRelease;
        if self.is_done(step).await? {
            return Ok(());
        }
        self.complete_hold().await?;
        let asked = self.reservation.clone();
        let asked = asked.as_deref();
        let reservation_id = &self.event.reservation_id;
        let show_id =
            self.event.show_id.as_ref().or(asked.and_then(|known| known.show_id.as_ref()));
        let seats = self.event.seats().or(asked.and_then(|known| known.seats.as_ref()));
        let (show_id, seats) = show_id.zip(seats).ok_or(AttemptOutcome::HoldUnknown)?;
        self.check_ours()?;
        let open = self.open(Call::ReleaseHold, step)?;
        let request = ReleaseHold { reservation_id, show_id, seats, reason };
        let answer = self.services.inventory.release_hold(&open.context(), request).await;
        self.finish(open, answer)?;
        self.done.insert(step);
        Ok(())
    }

    /// Commits the held seats as sold.
    pub(super) async fn inventory_commit(
        &mut self,
        seats: &Seats,
        payment: &Payment,
    ) -> Result<(), AttemptOutcome> {
        let step = Step::InventoryCommit;
        if self.is_done(step).await? {
            return Ok(());
        }
        let reservation_id = &self.event.reservation_id;
        let show_id = self.event.show_id.as_ref().ok_or(AttemptOutcome::HoldUnknown)?;
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

    /// Returns whether a step is done. If not, first records the completed steps in the store, so
    /// that the step may begin. The last step needs no record of its own: completing the event
    /// covers it.
    async fn is_done(&mut self, step: Step) -> Result<bool, AttemptOutcome> {
        if self.done.contains(step) {
            return Ok(true);
        }
        if *self.recorded != *self.done {
            self.check_ours()?;
            let (idempotency, token) = (&self.services.idempotency, self.lease.token());
            if let Err(error) = idempotency.record(self.event.into(), token, *self.done).await {
                if let StoreError::NotOwner(_) = error {
                    self.lease.claim_lost();
                }
                return Err(error.into());
            }
            *self.recorded = *self.done;
        }
        self.check_ours()?;
        Ok(false)
    }

    /// Checks that the message's lease is held and the event is claimed.
    fn check_ours(&self) -> Result<(), AttemptOutcome> {
        if !self.lease.is_held() {
            return Err(AttemptOutcome::LeaseLost);
        }
        if !self.lease.is_claimed() {
            return Err(AttemptOutcome::Store(StoreError::NotOwner(Lost::Claim)));
        }
        Ok(())
    }

    /// Starts a call if the circuit breaker permits it.
    fn open(&self, call: Call, step: Step) -> Result<OpenCall, AttemptOutcome> {
        let dependency = dependency(call);
        let entered = self.services.outages.enter(dependency, &self.event.reservation_id);
        let permit = entered.map_err(|not_now| AttemptOutcome::Parked {
            dependency,
            error: None,
            how: ParkedAs {
                is_fresh: not_now.is_fresh,
                is_full: !not_now.is_away,
                is_suspect: not_now.is_suspect,
            },
        })?;
        let key = idempotency_key(&self.event.id, step);
        let (span, started_at) = (self.start_span(call), Instant::now());
        let propagators = self.services.endpoints.propagators;
        Ok(OpenCall {
            call,
            xray: propagators.xray.then(|| span.xray()),
            span,
            started_at,
            key,
            propagates_trace_context: propagators.trace_context,
            dependency,
            permit,
            answered: Answered::default(),
        })
    }

    fn start_span(&self, call: Call) -> CallSpan {
        let endpoints = &self.services.endpoints;
        let (host, port) = &endpoints.reservation;
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
            let (host, port) = &endpoints.inventory;
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

    /// Returns the URL for a recorded span; empty otherwise, to save the allocation.
    fn url(&self) -> String {
        if !self.span.is_recording() {
            return String::new();
        }
        let base = &self.services.endpoints.reservation_base;
        let id = crate::client::path_segment(self.event.reservation_id.as_str());
        format!("{base}/internal/reservations/{id}")
    }

    /// Ends a call. On failure, attributes it to the service or the event, and decides how the
    /// event waits.
    fn finish<T>(
        &mut self,
        open: OpenCall,
        answer: Result<T, CallError>,
    ) -> Result<T, AttemptOutcome> {
        let dependency = open.dependency;
        let (outcome, snapshot) = self.close(open, &answer);
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if error.class == Class::MoneyWithoutSeat {
            return Err(AttemptOutcome::MoneyWithoutSeat { detail: error.to_string() });
        }
        let charges = &mut self.charges[dependency.index()];
        *self.retries = self.retries.saturating_sub(charges.refund(snapshot.outages));
        let (is_charged, is_suspect) = match attribute(outcome, snapshot) {
            FailureAttribution::Service => {
                let how = ParkedAs { is_fresh: false, is_full: false, is_suspect: false };
                return Err(AttemptOutcome::Parked { dependency, error: Some(error), how });
            }
            FailureAttribution::Final => (true, false),
            FailureAttribution::Event { is_charged, is_suspect } => (is_charged, is_suspect),
        };
        if is_charged {
            charges.add(snapshot);
        }
        let wait = EventWait {
            is_charged,
            suspect: is_suspect.then(|| dependency.service()),
            unless_suspect: snapshot.probe_wait(),
        };
        Err(AttemptOutcome::Failed { error, wait })
    }

    fn close<T>(
        &self,
        open: OpenCall,
        answer: &Result<T, CallError>,
    ) -> (CallOutcome, BreakerSnapshot) {
        let error = answer.as_ref().err();
        let (outcome, result) = error.map_or((CallOutcome::Done, CallResult::Ok), read);
        let load = error.map_or(Load::Answered, |error| error.load);
        let took = open.started_at.elapsed();
        self.services.metrics.call(open.call, result, took);
        let failure = error.map(|e| SpanFailure { error_type: &e.code, message: &e.detail });
        let status = answered::status(open.dependency, &open.answered, error);
        open.span.end(CallEnd { status, failure });
        (outcome, open.permit.report(outcome, load, took))
    }
}

/// Maps an error to its outcome for the circuit breaker and its result for metrics.
fn read(error: &CallError) -> (CallOutcome, CallResult) {
    match error.class {
        Class::Outage => (CallOutcome::Outage, CallResult::Outage),
        Class::Transient => (CallOutcome::Failing, CallResult::Transient),
        Class::Paced => (CallOutcome::Paced(error.retry_after), CallResult::Paced),
        Class::Conflict => (CallOutcome::Conflict, CallResult::Conflict),
        Class::Forbidden | Class::Permanent => (CallOutcome::Refused, CallResult::Permanent),
        Class::MoneyWithoutSeat => (CallOutcome::Done, CallResult::Permanent),
    }
}

/// Returns the dependency that a call uses.
fn dependency(call: Call) -> Dependency {
    match call {
        Call::PatchReservation => Dependency::ReservationApi,
        Call::GetReservation => Dependency::ReservationQuery,
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

fn name(found: &ReservationStatus) -> &'static str {
    match found {
        ReservationStatus::Confirmed => TargetStatus::Confirmed.as_str(),
        ReservationStatus::Expired => TargetStatus::Expired.as_str(),
        ReservationStatus::Cancelled => TargetStatus::Cancelled.as_str(),
        ReservationStatus::Other(_) => "OTHER",
    }
}
