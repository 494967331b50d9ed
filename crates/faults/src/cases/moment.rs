//! Moments in a message's life at which a fault can be injected. Each is detected from outside:
//! calls to a stand-in, bytes that a proxy holds back, deliveries and deletes of the queue, and for
//! waits the worker's metrics.

use std::time::Duration;

use sandbox::inventory::Reply as RpcReply;
use sandbox::ledger::{Call, Service};
use sandbox::reservation_api::Reply;
use sandbox::script::Scripted;
use sandbox::sqs::{Action, Entry, Outcome};

use crate::account::Sent;
use crate::events::{Event, Kind, crowd};
use crate::failed::{Failed, came, ensure, eventually};
use crate::proxy::{Course, Proxy, Way};
use crate::worker::{LIMIT, Worker};
use crate::world::{Store, World};

/// How long a stand-in delays a call or response, so that the fault comes first.
const HELD_BACK: Duration = Duration::from_millis(800);

/// A moment in the life of one message, the *marked* one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The queue has delivered it, and the worker has not received the response.
    Received,
    /// It waits in the worker's buffer.
    Buffered,
    /// The first call is in transit.
    StatusSent,
    /// The first call has arrived.
    StatusBegun,
    /// The first call has taken effect, and its response is in transit.
    StatusDone,
    /// The first call is answered, and the second is in transit.
    SeatsSent,
    /// The second call has arrived.
    SeatsBegun,
    /// The second call has taken effect, and its response is in transit.
    SeatsDone,
    /// Its delete is in transit.
    DeleteSent,
    /// Its delete has arrived.
    DeleteBegun,
    /// It is deleted, and the response is in transit.
    DeleteDone,
    /// It is deleted, and the worker has the response.
    Deleted,
    /// It waits for its next attempt.
    Waiting,
    /// It waits for a service that is down.
    Parked,
    /// Its claim in the shared store is in transit.
    ClaimSent,
    /// It is claimed, and the response is in transit.
    ClaimDone,
    /// The first step has taken effect, and its record is in transit.
    RecordSent,
    /// The first step is recorded, and the response is in transit.
    RecordDone,
    /// Both steps have taken effect, and the record of completion is in transit.
    CompleteSent,
    /// It is recorded as complete, and the response is in transit.
    CompleteDone,
}

impl Moment {
    /// The moments of every worker.
    pub(crate) const PLAIN: [Self; 14] = [
        Self::Received,
        Self::Buffered,
        Self::StatusSent,
        Self::StatusBegun,
        Self::StatusDone,
        Self::SeatsSent,
        Self::SeatsBegun,
        Self::SeatsDone,
        Self::DeleteSent,
        Self::DeleteBegun,
        Self::DeleteDone,
        Self::Deleted,
        Self::Waiting,
        Self::Parked,
    ];

    /// The moments of a worker with a shared store.
    pub(crate) const STORE: [Self; 6] = [
        Self::ClaimSent,
        Self::ClaimDone,
        Self::RecordSent,
        Self::RecordDone,
        Self::CompleteSent,
        Self::CompleteDone,
    ];

    /// Returns whether the moment needs a shared store.
    pub(crate) fn needs_store(self) -> bool {
        Self::STORE.contains(&self)
    }

    /// Returns whether the message is already deleted from the queue.
    pub(crate) fn is_deleted(self) -> bool {
        matches!(self, Self::DeleteDone | Self::Deleted)
    }

    /// Returns which calls the next process may repeat after a kill at this moment.
    ///
    /// None if that depends on timing.
    pub(crate) fn again(self, has_store: bool) -> Option<[bool; 2]> {
        Some(match self {
            Self::Waiting | Self::Parked => return None,
            Self::Received | Self::Buffered | Self::StatusSent => [false, false],
            Self::ClaimSent | Self::ClaimDone | Self::DeleteDone | Self::Deleted => [false, false],
            Self::RecordDone | Self::CompleteDone => [false, false],
            Self::StatusBegun | Self::StatusDone | Self::RecordSent => [true, false],
            // Earlier steps are known if a store recorded them.
            Self::SeatsSent => [!has_store, false],
            Self::SeatsBegun | Self::SeatsDone | Self::CompleteSent => [!has_store, true],
            Self::DeleteSent | Self::DeleteBegun => [!has_store, !has_store],
        })
    }

    /// Sends the marked message among others and waits for this moment. Held bytes stay held until
    /// the world lets them pass or drops them.
    ///
    /// # Errors
    /// The condition that was not met.
    pub(crate) async fn reach(
        self,
        world: &mut World,
        worker: &Worker,
        number: usize,
    ) -> Result<Event, Failed> {
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let marked = Event::new(&format!("marked_{number}"), kind);
        if self.needs_store() {
            // A new server does not know the store's scripts: each is sent twice the first time.
            world.send(Event::new("first", kind));
            let emptied = world.sqs.wait_until(&world.queue, |it| it.total() == 0, LIMIT).await;
            came(emptied, "the first event is handled")?;
        }
        self.prepare(world, &marked).await?;
        // Other messages, before and behind the marked one, at any moment of theirs.
        let others = if self.needs_store() { 0 } else { 3 };
        world.send_all(crowd("before", others));
        world.send(marked.clone());
        world.send_all(crowd("behind", others));
        self.wait(world, worker, &marked).await.map_err(|failed| failed.at(format!("{self:?}")))?;
        if !self.is_deleted() {
            let left = world.sqs.peek_all(&world.queue);
            let body = marked.body();
            ensure(left.iter().any(|message| message.body == body), || {
                format!("{self:?}: the message is not in the queue any more")
            })?;
        }
        Ok(marked)
    }

    async fn prepare(self, world: &mut World, marked: &Event) -> Result<(), Failed> {
        let reservation = &marked.reservation;
        let late = Scripted::<Reply>::normal().answering_after(HELD_BACK);
        let rpc_late = Scripted::<RpcReply>::normal().answering_after(HELD_BACK);
        match self {
            Self::Received => world.to_sqs.set(Way::ToClient, Course::Hold),
            Self::Buffered => {
                let slow = Scripted::<Reply>::normal().delayed(HELD_BACK * 2);
                world.api.script_for("rsv_before_0", [slow]);
            }
            Self::StatusSent => world.to_api.set(Way::ToServer, Course::Hold),
            Self::StatusBegun => {
                let slow = Scripted::<Reply>::normal().delayed(HELD_BACK);
                world.api.script_for(reservation, [slow]);
            }
            Self::StatusDone | Self::RecordSent | Self::RecordDone => {
                world.api.script_for(reservation, [late]);
            }
            Self::SeatsSent => world.to_inventory.set(Way::ToServer, Course::Hold),
            Self::SeatsBegun => {
                let slow = Scripted::<RpcReply>::normal().delayed(HELD_BACK);
                world.inventory.script_for(reservation, [slow]);
            }
            Self::SeatsDone
            | Self::DeleteSent
            | Self::DeleteBegun
            | Self::DeleteDone
            | Self::Deleted
            | Self::CompleteSent
            | Self::CompleteDone => world.inventory.script_for(reservation, [rpc_late]),
            Self::Waiting => {
                let error = || Scripted::<Reply>::status(500);
                world.api.script_for(reservation, [error(), error(), error()]);
            }
            Self::Parked => world.to_api.refuse().await?,
            Self::ClaimSent | Self::ClaimDone => store(world).set(Way::ToServer, Course::Hold),
        }
        Ok(())
    }

    async fn wait(self, world: &World, worker: &Worker, marked: &Event) -> Result<(), Failed> {
        match self {
            Self::Received => delivered(world, marked).await,
            Self::Buffered => {
                let held = ["state=\"buffered\""];
                worker.counts("worker_messages_in_flight", &held, 1.0).await
            }
            Self::StatusSent => holds(&world.to_api, &marked.reservation).await,
            Self::StatusBegun => begun(world, marked, Service::ReservationApi).await,
            Self::StatusDone => effects(world, marked, 1).await,
            Self::SeatsSent => holds(&world.to_inventory, &marked.reservation).await,
            Self::SeatsBegun => begun(world, marked, Service::Inventory).await,
            Self::SeatsDone => effects(world, marked, 2).await,
            Self::DeleteSent => delete_sent(world, marked).await,
            Self::DeleteBegun => delete_begun(world, marked).await,
            Self::DeleteDone => delete_done(world, marked).await,
            Self::Deleted => {
                effects(world, marked, 2).await?;
                deleted(world, marked).await?;
                let settled = ["type=\"", "outcome=\"success\""];
                worker.counts("worker_settlements_total", &["kind=\"delete\""], 1.0).await?;
                worker.counts("worker_events_total", &settled, 1.0).await
            }
            Self::Waiting => {
                let held = ["state=\"waiting\""];
                worker.counts("worker_messages_in_flight", &held, 1.0).await
            }
            Self::Parked => {
                let held = ["state=\"parked\""];
                worker.counts("worker_messages_in_flight", &held, 1.0).await
            }
            Self::ClaimSent => holds(store(world), &marked.id).await,
            Self::ClaimDone => store_done(world, marked, 0).await,
            Self::RecordSent => store_sent(world, marked, 1).await,
            Self::RecordDone => store_done(world, marked, 1).await,
            Self::CompleteSent => store_sent(world, marked, 2).await,
            Self::CompleteDone => store_done(world, marked, 2).await,
        }
    }
}

/// Checks that no call about the marked event was repeated except those that `again` allows.
///
/// # Errors
/// The unexpected calls.
pub(crate) fn calls_fit(
    world: &World,
    marked: &Event,
    again: Option<[bool; 2]>,
) -> Result<(), Failed> {
    let Some(again) = again else { return Ok(()) };
    let calls = world.ledger.calls_for(&marked.reservation);
    for (key, may_repeat) in marked.keys().into_iter().zip(again) {
        let count = calls.iter().filter(|call| call.key.as_ref() == Some(&key)).count();
        ensure(count == 1 || may_repeat && count == 2, || {
            format!("{count} calls of one step: {calls:?}")
        })?;
    }
    Ok(())
}

fn store(world: &World) -> &Proxy {
    &world.store.as_ref().expect("this moment needs a store").proxy
}

async fn delivered(world: &World, marked: &Event) -> Result<(), Failed> {
    outcome(world, marked, "it is handed out", |outcome| {
        matches!(outcome, Outcome::Delivered { .. })
    })
    .await
}

async fn deleted(world: &World, marked: &Event) -> Result<(), Failed> {
    outcome(world, marked, "it is deleted", |outcome| *outcome == Outcome::Deleted).await
}

async fn outcome(
    world: &World,
    marked: &Event,
    what: &str,
    is_it: impl Fn(&Outcome) -> bool + Send + Sync,
) -> Result<(), Failed> {
    let id = message_id(world, marked);
    let happened = || {
        let ledger = world.sqs.ledger(&world.queue);
        let mut entries = ledger.entries.iter();
        entries.any(|entry| entry.message_id.as_deref() == Some(&*id) && is_it(&entry.outcome))
    };
    came(world.sqs.wait_until(&world.queue, |_| happened(), LIMIT).await, what)
}

async fn holds(proxy: &Proxy, what: &str) -> Result<(), Failed> {
    let held = proxy.wait_until(|proxy| proxy.holds(Way::ToServer, what.as_bytes()), LIMIT).await;
    came(held, "its call is on its way")
}

async fn begun(world: &World, marked: &Event, service: Service) -> Result<(), Failed> {
    let is_it = |call: &Call| call.service == service;
    let begun =
        |ledger: &sandbox::ledger::Ledger| ledger.calls_for(&marked.reservation).iter().any(is_it);
    came(world.ledger.wait_until(begun, LIMIT).await, "its call has come in")
}

async fn effects(world: &World, marked: &Event, count: usize) -> Result<(), Failed> {
    let done =
        |ledger: &sandbox::ledger::Ledger| ledger.effects_for(&marked.reservation).len() == count;
    came(world.ledger.wait_until(done, LIMIT).await, "its call has taken effect")
}

/// Returns the message id from SQS.
fn message_id(world: &World, marked: &Event) -> String {
    let is_marked = |sent: &&Sent| sent.event.as_ref() == Some(marked);
    world.sent.iter().find(is_marked).expect("the marked message was sent").message_id.clone()
}

/// Returns the receipt handle of the last delivery.
fn handle(world: &World, id: &str) -> String {
    let ledger = world.sqs.ledger(&world.queue);
    let is_it = |entry: &&Entry| {
        entry.message_id.as_deref() == Some(id)
            && matches!(entry.outcome, Outcome::Delivered { .. })
    };
    let handle = ledger.entries.iter().rfind(is_it).and_then(|entry| entry.receipt_handle.clone());
    handle.expect("the message was delivered").to_string()
}

async fn delete_sent(world: &World, marked: &Event) -> Result<(), Failed> {
    effects(world, marked, 2).await?;
    world.to_sqs.set(Way::ToServer, Course::Hold);
    // A visibility extension would have this handle too, but none is due before the delete.
    holds(&world.to_sqs, &handle(world, &message_id(world, marked))).await
}

async fn delete_begun(world: &World, marked: &Event) -> Result<(), Failed> {
    delete_sent(world, marked).await?;
    let faults = world.sqs.faults(&world.queue);
    faults.latency(Action::DeleteMessageBatch, HELD_BACK, Duration::ZERO);
    let proxy = &world.to_sqs;
    proxy.set(Way::ToServer, Course::Pass);
    let all_passed = |proxy: &Proxy| {
        let traffic = proxy.traffic();
        traffic.passed(Way::ToServer) == traffic.taken(Way::ToServer)
    };
    came(proxy.wait_until(all_passed, LIMIT).await, "the delete has come in")
}

async fn delete_done(world: &World, marked: &Event) -> Result<(), Failed> {
    effects(world, marked, 2).await?;
    world.to_sqs.set(Way::ToClient, Course::Hold);
    deleted(world, marked).await
}

async fn store_sent(world: &World, marked: &Event, effects_before: usize) -> Result<(), Failed> {
    effects(world, marked, effects_before).await?;
    store(world).set(Way::ToServer, Course::Hold);
    holds(store(world), &marked.id).await
}

/// Waits until the store has applied the next record of the marked event, and holds its response.
async fn store_done(world: &World, marked: &Event, effects_before: usize) -> Result<(), Failed> {
    store_sent(world, marked, effects_before).await?;
    let Store { redis, proxy } = world.store.as_ref().expect("this moment needs a store");
    let key = format!("reservation-worker:{}", marked.id);
    let before = redis.command(&["GET", &key]).await?;
    proxy.set(Way::ToClient, Course::Hold);
    proxy.set(Way::ToServer, Course::Pass);
    eventually("the store has the record", LIMIT, async || {
        redis.command(&["GET", &key]).await.is_ok_and(|now| now != before)
    })
    .await
}
