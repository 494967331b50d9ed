//! Runs every case against the store in memory and against a real Redis, each as its own test.

use crate::bench::Bench;
use crate::{cases, fencing};

macro_rules! contract {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        /// Runs all cases against one server, one by one.
        pub(crate) async fn all(bench: &Bench) {
            $($($module::$case(bench).await;)*)*
        }

        mod memory {
            use super::*;
            $($(
                #[tokio::test]
                async fn $case() {
                    $module::$case(&Bench::Memory).await;
                }
            )*)*
        }

        mod redis {
            use super::*;
            use sandbox::redis::{Redis, is_installed};
            $($(
                #[tokio::test]
                async fn $case() {
                    if is_installed(stringify!($case)) {
                        let redis = Redis::plain().await.unwrap();
                        $module::$case(&Bench::Redis(redis.url())).await;
                    }
                }
            )*)*
        }
    };
}

contract! {
    cases:
        an_unknown_event_can_be_claimed_once,
        a_repeated_claim_with_the_same_token_renews_it,
        a_renewal_never_shortens_a_claim,
        an_expired_claim_is_taken_over_with_its_steps,
        an_expired_claim_stays_with_its_owner_until_it_is_taken_over,
        a_completed_event_is_handled_for_every_token,
        a_completed_event_is_forgotten_after_its_time_to_live,
        a_claim_outlives_the_time_to_live,
        a_released_event_keeps_its_steps,
        an_event_released_before_its_first_step_is_free,
        the_steps_of_a_released_event_expire,
        an_id_with_another_content_is_reported_as_reused_in_every_state,
        one_of_a_thousand_concurrent_claims_is_granted,
        every_valid_id_has_its_own_record;
    fencing:
        another_token_cannot_change_a_claim,
        the_former_owner_of_a_lost_claim_cannot_change_it,
        an_unknown_event_has_no_owner,
        a_repeated_operation_has_the_same_result,
        a_completed_or_released_claim_has_no_owner;
}
