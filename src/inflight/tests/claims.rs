//! What a lease knows of the claim of its event.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

async fn lease() -> Lease {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    world.start().expect("ready").lease.clone()
}

fn after(seconds: u32) -> Instant {
    Instant::now() + seconds * SECOND
}

#[tokio::test(start_paused = true)]
async fn a_claim_stands_from_its_answer_until_it_runs_out_or_is_lost() {
    let lease = lease().await;
    assert!(!lease.may_be_claimed() && !lease.is_claim_asked());
    lease.claim_asked();
    assert!(lease.may_be_claimed() && lease.is_claim_asked() && !lease.is_claimed());
    assert_eq!(lease.renewable(), None);
    lease.claimed(after(10));
    lease.claimed(after(5));
    assert!(lease.is_claimed() && !lease.is_claim_asked());
    advance(9 * SECOND).await;
    let asked = lease.renewable().expect("the later answer counts");
    lease.renewed(asked, after(10));
    lease.renewed(asked, after(5));
    advance(9 * SECOND).await;
    assert!(lease.is_claimed());
    advance(SECOND).await;
    assert!(!lease.is_claimed() && lease.may_be_claimed());
    assert_eq!(lease.renewable(), None);
    lease.claim_lost();
    assert!(!lease.may_be_claimed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_an_earlier_claim_changes_nothing() {
    let lease = lease().await;
    lease.claim_asked();
    lease.claimed(after(10));
    let earlier = lease.renewable().expect("it stands");
    lease.claim_asked();
    lease.renewed(earlier, after(20));
    assert!(!lease.is_claimed(), "another may have had the event meanwhile");
    lease.claimed(after(10));
    lease.renewed(earlier, after(20));
    lease.renewal_refused(earlier);
    let latest = lease.renewable().expect("it stands");
    advance(10 * SECOND).await;
    assert!(!lease.is_claimed());
    lease.renewal_refused(latest);
    assert!(!lease.may_be_claimed());
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_renewed_when_its_lease_was_extended() {
    let mut world = World::new();
    world.admit("claimed", "r1").await;
    world.admit("not yet", "r2").await;
    let jobs = [world.start().expect("ready"), world.start().expect("ready")];
    jobs[0].lease.claim_asked();
    advance(VISIBILITY / 2).await;
    let claims = world.renew(extended).claims;
    let ids: Vec<_> = claims.iter().map(|claim| claim.id.as_str()).collect();
    assert_eq!(ids, ["claimed"]);
    advance(VISIBILITY / 2).await;
    assert!(world.renew(|| Renewal::RetryAt(after(1))).claims.is_empty());
}
