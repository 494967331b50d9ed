//! Every case against the store in memory and against a real Redis, each a test of its own.

use crate::bench::Bench;
use crate::{cases, fencing};

macro_rules! contract {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        /// Every case, one after another, against one server.
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
        an_event_that_is_not_known_is_ours_and_nobody_elses,
        a_claim_by_the_same_token_again_renews_it,
        a_renewed_claim_lasts_longer_and_never_shorter,
        a_claim_that_ran_out_goes_to_the_next_with_its_steps,
        a_claim_that_ran_out_is_its_owners_still_if_nobody_took_it,
        a_handled_event_is_handled_for_everybody,
        a_handled_event_is_forgotten_after_its_time,
        a_claim_outlives_the_time_to_live,
        an_event_given_up_is_resumed_with_all_its_steps,
        an_event_given_up_before_its_first_step_is_free_at_once,
        steps_given_up_are_forgotten_after_their_time,
        an_id_with_another_content_is_reused_in_whatever_state,
        of_a_thousand_claims_at_once_one_is_granted,
        any_id_that_an_event_may_have_is_its_own;
    fencing:
        nobody_else_may_touch_a_claim,
        who_lost_a_claim_may_not_touch_it_any_more,
        of_what_is_not_known_nobody_is_the_owner,
        a_repeated_operation_says_what_the_first_said,
        a_claim_that_has_ended_is_nobodys;
}
