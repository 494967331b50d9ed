//! Tests of the evidence: what a failure counts for, and what a run proves.

use FailureKind::{Failing, Outage, Paced, Refused};

use super::*;

struct World {
    evidence: Evidence,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { evidence: Evidence::default(), now: Instant::now() }
    }

    fn after_s(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn begin(&mut self, subject: u64) -> BegunCall {
        self.evidence.begin(subject, false)
    }

    fn fail(&mut self, call: BegunCall, kind: FailureKind) {
        self.evidence.add_failure(call, kind, self.now);
    }

    fn failure(&mut self, subject: u64, kind: FailureKind) {
        let call = self.begin(subject);
        self.fail(call, kind);
    }

    fn success(&mut self, subject: u64) {
        let call = self.begin(subject);
        self.evidence.add_success(call, self.now);
    }

    fn proof(&mut self, open: usize) -> Option<Proof> {
        self.evidence.proof(open, self.now)
    }

    /// Returns the failures of distinct subjects, none of them open, until they prove an outage.
    fn failures_to_proof(&mut self, subjects: std::ops::Range<u64>) -> Option<u64> {
        let from = subjects.start;
        subjects.into_iter().find_map(|subject| {
            self.failure(subject, Failing);
            self.proof(0).map(|_| subject - from + 1)
        })
    }

    fn run_len(&self) -> usize {
        self.evidence.count(|_| true)
    }
}

#[test]
fn no_more_subjects_are_remembered_than_may_be_and_none_for_ever() {
    let mut failed = SuspectHistory::default();
    let sizes = |failed: &SuspectHistory| (failed.since.len(), failed.order.len());
    (0..40_000).for_each(|subject| failed.add(subject, subject));
    assert_eq!(sizes(&failed), (FAILED_MAX, FAILED_MAX));
    assert!(!failed.contains(0) && failed.contains(39_999), "the oldest are forgotten");
    failed.forget_since(29_999);
    assert_eq!(sizes(&failed), (10_000, 10_000));
    (20_000..30_000).for_each(|subject| failed.remove(subject));
    assert_eq!(sizes(&failed), (0, 0));
}

#[test]
fn a_success_of_one_subject_does_not_make_others_fresh() {
    let mut world = World::new();
    world.failure(1, Failing);
    world.failure(2, Failing);
    world.success(1);
    assert!(world.evidence.is_fresh(1) && !world.evidence.is_fresh(2));
    assert!(world.evidence.is_suspect(2));
    world.failure(2, Failing);
    assert!(world.evidence.is_suspect(2), "its first failure was before the success");
}

#[test]
fn a_success_ends_the_part_of_the_run_that_began_before_it() {
    let mut world = World::new();
    let [early, second, ok, last] = [1, 2, 3, 4].map(|subject| world.begin(subject));
    world.fail(early, Failing);
    world.after_s(1).fail(last, Outage);
    world.after_s(1).fail(second, Failing);
    assert_eq!((world.run_len(), world.evidence.run_ends()), (3, last.number));
    assert_eq!(world.evidence.run_lasts(world.now), Duration::from_secs(2));
    assert_eq!(world.evidence.failing_for(world.now), Duration::from_secs(2));
    world.evidence.add_success(ok, world.now);
    assert_eq!((world.run_len(), world.evidence.run_ends()), (1, last.number));
    assert_eq!(world.evidence.failing_for(world.now), Duration::from_secs(1));
    let late = BegunCall { number: 2, subject: 5, ..second };
    world.fail(late, Failing);
    assert_eq!(world.run_len(), 1, "a call that began before the success fails late");
}

#[test]
fn a_late_success_of_an_early_call_takes_nothing_back() {
    let mut world = World::new();
    let [early, failing, later] = [1, 2, 3].map(|subject| world.begin(subject));
    world.fail(failing, Failing);
    for call in [later, early] {
        world.evidence.add_success(call, world.now);
        assert_eq!(world.evidence.succeeded(), later.number);
    }
}

#[test]
fn a_run_keeps_the_latest_failures() {
    let mut world = World::new();
    let calls = 2 * RUN_MAX as u64;
    (0..calls).for_each(|subject| world.failure(subject, Failing));
    assert_eq!((world.run_len(), world.evidence.run_ends()), (RUN_MAX, calls));
}

#[test]
fn the_latest_failure_of_a_subject_counts() {
    let mut world = World::new();
    let paced = Paced(world.now + Duration::from_secs(60));
    let pairs: Vec<_> =
        (0..5).map(|subject| [world.begin(subject), world.begin(subject)]).collect();
    pairs.iter().for_each(|[first, _]| world.fail(*first, paced));
    pairs.iter().for_each(|[_, second]| world.fail(*second, Failing));
    assert_eq!((world.run_len(), world.proof(0)), (5, Some(Proof::Failing)));
}

#[test]
fn a_repeated_failure_is_no_evidence_once_the_first_is_too_old() {
    let mut world = World::new();
    (0..4).for_each(|subject| world.failure(subject, Failing));
    world.after_s(20);
    assert_eq!((world.proof(0), world.run_len()), (None, 0));
    (0..5).for_each(|subject| world.failure(subject, Failing));
    assert_eq!(world.run_len(), 1, "only the fifth is fresh");
}

#[test]
fn only_failures_that_an_outage_explains_begin_the_time_of_failing() {
    let failing_for = |world: &World| world.evidence.failing_for(world.now);
    let mut world = World::new();
    world.failure(1, Refused);
    assert_eq!(failing_for(world.after_s(3)), Duration::ZERO, "a permanent error");
    world.success(2);
    world.failure(1, Failing);
    assert_eq!(failing_for(world.after_s(3)), Duration::ZERO, "a suspect");
    world.failure(3, Outage);
    assert_eq!(failing_for(world.after_s(3)), Duration::from_secs(3));
    world.failure(4, Outage);
    assert_eq!(failing_for(world.after_s(3)), Duration::from_secs(6), "since the first");
}

#[test]
fn another_part_that_works_makes_suspects_of_those_that_failed_so_far() {
    let mut world = World::new();
    world.failure(1, Failing);
    world.evidence.others_do_well();
    world.failure(2, Failing);
    assert!(world.evidence.is_suspect(1) && !world.evidence.is_suspect(2));
}

#[test]
fn failures_beside_many_open_calls_prove_nothing_yet() {
    let mut world = World::new();
    let open = 20;
    (100..100 + open).for_each(|subject| _ = world.begin(subject));
    (0..5).for_each(|subject| world.failure(subject, Failing));
    assert_eq!(world.proof(20), None, "failures may be faster than successes");
    assert_eq!(world.proof(0), Some(Proof::Failing));
}

#[test]
fn calls_that_began_before_a_success_do_not_count_as_open() {
    let mut world = World::new();
    (100..120).for_each(|subject| _ = world.begin(subject));
    world.success(50);
    (0..5).for_each(|subject| world.failure(subject, Refused));
    assert_eq!(world.proof(20), Some(Proof::Refusing));
}

#[test]
fn five_permanent_errors_prove_that_all_are_refused_if_no_call_is_open() {
    let mut world = World::new();
    for n in 0..20 {
        world.failure(1_000 + n, Refused);
        world.success(2_000 + n);
    }
    _ = world.begin(100);
    (0..5).for_each(|subject| world.failure(subject, Refused));
    assert_eq!(world.proof(1), None, "half of all calls were refused before");
    assert_eq!(world.proof(0), Some(Proof::Refusing));

    let mut world = World::new();
    (100..120).for_each(|subject| _ = world.begin(subject));
    (0..5).for_each(|subject| world.failure(subject, Refused));
    assert_eq!(world.proof(20), Some(Proof::Refusing), "no call has ever succeeded");
}

#[test]
fn only_fresh_paced_answers_pause_a_service() {
    for is_success_between in [true, false] {
        let mut world = World::new();
        (100..200).for_each(|subject| world.success(subject));
        let paced = Paced(world.now + Duration::from_secs(60));
        (0..2).for_each(|subject| world.failure(subject, paced));
        if is_success_between {
            world.success(50);
        }
        (0..2).for_each(|subject| world.failure(subject, paced));
        let is_paused = matches!(world.proof(0), Some(Proof::Paced(_)));
        assert_eq!(is_paused, !is_success_between, "two suspects are paced for their own sake");
    }
}

#[test]
fn a_service_that_is_just_back_is_given_the_benefit_of_the_doubt() {
    for (is_success, after_s, failures) in
        [(false, 0, 17), (true, 0, 11), (false, 19, 17), (false, 20, 5), (true, 20, 5)]
    {
        let mut world = World::new();
        (0..50).for_each(|subject| world.failure(subject, Outage));
        world.failure(50, Refused);
        world.evidence.begin_anew(0, is_success, world.now);
        assert_eq!((world.run_len(), world.evidence.count(|kind| kind == Refused)), (1, 1));
        world.after_s(after_s);
        let seen = world.failures_to_proof(100..200);
        assert_eq!(seen, Some(failures), "{after_s} s after, first success {is_success}");
    }
}

#[test]
fn nothing_from_before_a_pause_counts_after_it() {
    let mut world = World::new();
    let paced = Paced(world.now + Duration::from_secs(60));
    (0..5).for_each(|subject| world.failure(subject, paced));
    assert!(world.evidence.are_others_paced(world.now));
    world.evidence.begin_pause();
    assert!(!world.evidence.are_others_paced(world.now) && world.run_len() == 0);
}
