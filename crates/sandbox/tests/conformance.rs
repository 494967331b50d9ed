//! Runs the conformance suite: each case always against the embedded server, and against the
//! LocalStack at `CONFORMANCE_ENDPOINT_URL` if ignored tests are included:
//!
//! `CONFORMANCE_ENDPOINT_URL=$(tests/localstack/localstack start) cargo test -p
//! reservation-worker-sandbox --test conformance -- --include-ignored`

use sandbox::conformance;

macro_rules! cases {
    ($($module:ident { $($case:ident)* })*) => {
        mod embedded {
            use super::conformance::{self, Target};
            $(mod $module {
                use super::{conformance, Target};
                $(#[tokio::test]
                async fn $case() {
                    conformance::$module::$case(&Target::embedded().await).await;
                })*
            })*
        }

        mod localstack {
            use super::conformance::{self, Target};
            $(mod $module {
                use super::{conformance, Target};
                $(#[tokio::test]
                #[ignore = "needs a LocalStack at CONFORMANCE_ENDPOINT_URL"]
                async fn $case() {
                    conformance::$module::$case(&Target::localstack()).await;
                })*
            })*
        }

        /// All cases of the suite, for the check that every case is run.
        const CASES: &[(&str, &str)] = &[$($((stringify!($module), stringify!($case)),)*)*];
    };
}

cases! {
    sending {
        send_answers_with_id_and_md5
        bodies_come_back_untouched
        attributes_come_back_with_their_md5
        trace_header_comes_back
        ten_attributes_at_most
        empty_attribute_is_refused
        reserved_attribute_name_is_refused
        unknown_attribute_type_is_refused
        illegal_characters_are_refused
        one_mebibyte_at_most
        attributes_count_towards_the_size
        message_delay
        queue_delay
        delay_out_of_range_is_refused
    }
    batches {
        ten_messages_in_a_batch
        one_bad_message_fails_alone
        repeated_ids_fail_the_batch
        empty_batch_fails
        eleven_entries_fail_the_batch
        invalid_id_fails_the_batch
        batch_over_one_mebibyte_fails
        one_bad_handle_fails_alone_in_a_delete
        one_bad_handle_fails_alone_in_a_change
        repeated_ids_fail_a_delete_batch
    }
    receiving {
        ten_messages_at_most
        zero_messages_cannot_be_requested
        visibility_timeout_ends
        visibility_timeout_of_the_receive
        visibility_timeout_zero
        system_attributes
        system_attributes_as_requested
        message_attributes_as_requested
        counts_follow
        receivers_share_without_repeats
        missing_queue_is_typed
        answers_carry_a_request_id
    }
    long_poll {
        short_poll_answers_at_once
        long_poll_waits
        long_poll_by_queue_attribute
        long_poll_wakes_at_once
        long_poll_wakes_for_a_returned_message
        long_poll_wakes_for_a_timeout
        one_message_goes_to_one_of_many
        wait_out_of_range_is_refused
        closed_connection_takes_no_message
    }
    settling {
        delete_removes
        delete_again_succeeds
        delete_after_the_timeout
        old_handle_deletes_nothing
        invalid_handle_is_refused
        handle_of_another_queue_is_refused
        visibility_to_zero_shows_at_once
        visibility_is_extended
        visibility_is_shortened
        change_of_a_visible_message
        change_of_a_deleted_message
        timeout_out_of_range_is_refused
        twelve_hours_count_from_the_receive
    }
    queues {
        create_is_idempotent
        bad_names_are_refused
        url_by_name
        listing_by_prefix
        attributes_have_defaults
        attributes_are_set
        unknown_attribute_is_refused
        purge_empties
        deleted_queue_is_gone
    }
    redrive {
        message_moves_after_its_last_receive
        other_messages_are_received_beside_one_that_moves
        policy_reads_back
        policy_needs_an_existing_queue
        sources_are_listed
        move_task_brings_messages_back
        move_task_needs_a_dead_letter_queue
    }
    fair {
        message_group_locks_nothing_on_a_standard_queue
        returned_message_does_not_wait_for_its_tenant
        redrive_keeps_the_tenant
    }
    fifo {
        one_receive_takes_a_group_in_order
        group_is_locked_while_a_message_is_in_flight
        locked_group_keeps_new_messages
        delete_unlocks_the_group
        returned_message_keeps_its_place
        returned_messages_keep_their_order
        repeated_id_is_enqueued_once
        deduplication_by_content
        group_is_required_and_delay_refused
        messages_carry_their_sequence
        expired_handle_is_refused
        redrive_keeps_the_group
    }
}

#[test]
fn every_case_is_run() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let mut written = 0;
    for file in std::fs::read_dir(folder).expect("the suite's folder") {
        let path = file.expect("a readable folder").path();
        let module = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("pub async fn ") else {
                continue;
            };
            let case = rest.split('(').next().unwrap_or_default();
            assert!(CASES.contains(&(&module, case)), "{module}::{case} is not run");
            written += 1;
        }
    }
    assert_eq!(written, CASES.len());
    assert!(written >= 35, "a suite of {written} cases");
}
