//! Receipts without a job: extended like others, and taken back one by one.

use super::*;
use crate::queue::BATCH_MAX;

/// Keeps the receipts of `count` finished jobs.
async fn keep(world: &mut World, count: usize) -> Vec<ReceiptKey> {
    let mut keys = Vec::new();
    for n in 0..count {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        for receipt in world.table.take(&job).receipts {
            keys.push(world.table.keep(receipt, Instant::now()));
        }
    }
    keys
}

fn take_back(world: &World, key: ReceiptKey) -> TakenBack {
    world.table.take_back(key, Instant::now(), false)
}

/// Extends the due receipts, counted from this moment.
fn extend(world: &World) -> usize {
    let now = Instant::now();
    let due = world.table.renewals_due(now).due;
    let extended = |due: &DueRenewal| {
        (due.key, Renewal::Extended { called_at: now, visibility: due.visibility })
    };
    let answers: Vec<_> = due.iter().map(extended).collect();
    let count = answers.len();
    assert_eq!(world.table.renewed(answers, now).receipts_lost, 0);
    count
}

/// Counts the kept receipts.
fn kept(world: &World) -> usize {
    world.table.lock().kept_len()
}

#[tokio::test(start_paused = true)]
async fn kept_receipts_are_extended_until_they_are_taken_back() {
    let mut world = World::new();
    let keys = keep(&mut world, BATCH_MAX + 2).await;
    assert_eq!((world.table.held(), kept(&world)), (0, keys.len()));
    let mut extended = Vec::new();
    for _ in 0..20 {
        advance(VISIBILITY / 6).await;
        extended.push(extend(&world));
        extended.push(extend(&world));
    }
    assert!(extended.iter().sum::<usize>() >= keys.len() * 6, "{extended:?}");
    for key in keys {
        let TakenBack::Ready(receipt) = take_back(&world, key) else {
            panic!("the receipt must be ready")
        };
        assert!(receipt.deadline > Instant::now());
    }
    assert_eq!((kept(&world), world.table.next_renewal()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_busy_during_an_extension_and_near_its_end() {
    let mut world = World::new();
    let key = keep(&mut world, 1).await[0];
    advance(VISIBILITY * 3 / 4).await;
    assert!(matches!(take_back(&world, key), TakenBack::Busy), "a quarter of the lease is left");
    let due = world.table.renewals_due(Instant::now()).due;
    assert_eq!(due.len(), 1);
    assert!(matches!(take_back(&world, key), TakenBack::Busy), "an extension is in progress");
    let again = Instant::now() + Duration::from_secs(1);
    world.table.renewed(vec![(due[0].key, Renewal::RetryAt(again))], Instant::now());
    let urgent = world.table.take_back(key, Instant::now(), true);
    assert!(matches!(urgent, TakenBack::Ready(_)), "no extension is in progress");
}

#[tokio::test(start_paused = true)]
async fn a_lost_receipt_is_reported_when_it_is_taken_back() {
    let mut world = World::new();
    let key = keep(&mut world, 1).await[0];
    advance(VISIBILITY / 2).await;
    let due = world.table.renewals_due(Instant::now()).due;
    let renewed = world.table.renewed(vec![(due[0].key, Renewal::Lost)], Instant::now());
    assert_eq!(renewed.receipts_lost, 0, "the loss was counted twice");
    assert!(matches!(take_back(&world, key), TakenBack::Lost(_)));
}

#[tokio::test(start_paused = true)]
async fn one_receipt_is_extended_early_as_a_probe() {
    let mut world = World::new();
    assert!(!world.table.renew_one(Instant::now()));
    keep(&mut world, 1).await;
    assert_eq!(extend(&world), 0);
    assert!(world.table.renew_one(Instant::now()));
    assert_eq!(extend(&world), 1);
    world.admit("e9", "r9").await;
    assert!(world.table.renew_one(Instant::now()));
    assert_eq!(extend(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn an_extension_never_shortens_a_lease() {
    let mut world = World::new();
    world.lease = Duration::from_secs(900);
    world.admit("e1", "r1").await;
    keep(&mut world, 1).await;
    advance(Duration::from_secs(10)).await;
    for _ in 0..2 {
        assert!(world.table.renew_one(Instant::now()));
        let due = world.table.renewals_due(Instant::now()).due;
        let asked: Vec<_> = due.iter().map(|due| due.visibility.as_secs()).collect();
        assert_eq!(asked, [890]);
        // The answer is lost: the lease lasts, whatever SQS did.
        let again = Renewal::RetryAt(Instant::now() + Duration::from_secs(1_000));
        world.table.renewed(vec![(due[0].key, again)], Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_keeper_a_receipt_is_never_busy() {
    let mut world = World::new();
    let key = keep(&mut world, 1).await[0];
    advance(VISIBILITY / 2).await;
    assert_eq!(world.table.renewals_due(Instant::now()).due.len(), 1);
    world.table.end_extensions();
    assert!(matches!(take_back(&world, key), TakenBack::Ready(_)));
    assert_eq!(world.table.next_renewal(), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_longer_than_sqs_allows() {
    let mut world = World::new();
    let key = keep(&mut world, 1).await[0];
    let (began, hour) = (Instant::now(), Duration::from_secs(3_600));
    while let Some(at) = world.table.next_renewal() {
        advance(at - Instant::now()).await;
        assert!(began.elapsed() < 12 * hour);
        extend(&world);
    }
    assert!(began.elapsed() > 11 * hour);
    assert!(matches!(take_back(&world, key), TakenBack::Ready(_)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_back_during_its_extension_however_much_time_is_left() {
    let mut world = World::new();
    let key = keep(&mut world, 1).await[0];
    advance(VISIBILITY / 2).await;
    let due = world.table.renewals_due(Instant::now()).due;
    assert!(matches!(take_back(&world, key), TakenBack::Busy));
    let answers = due.into_iter().map(|due| (due.key, extended())).collect();
    world.table.renewed(answers, Instant::now());
    assert!(matches!(take_back(&world, key), TakenBack::Ready(_)));
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_was_brought_forward_is_forgotten_with_its_receipt() {
    let mut world = World::new();
    let key = keep(&mut world, 1).await[0];
    assert!(world.table.renew_one(Instant::now()));
    assert!(matches!(take_back(&world, key), TakenBack::Ready(_)));
    assert_eq!(world.table.next_renewal(), None);
    world.admit("e1", "r1").await;
    assert!(world.table.renew_one(Instant::now()));
    let job = world.start().expect("ready");
    drop(world.table.take(&job));
    assert_eq!(world.table.next_renewal(), None);
}
