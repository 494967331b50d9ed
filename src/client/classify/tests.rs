//! The tables, row by row: every HTTP status and every gRPC code is asserted.
#![allow(clippy::unwrap_used)]

use super::*;

const TIME: Duration = Duration::from_secs(7);

/// What the contract says of an HTTP status, written down a second time and the long way round.
fn expected(status: u16, from_api: bool, paced: bool, call: HttpCall) -> Option<Class> {
    let patch = call == HttpCall::SetStatus;
    Some(match status {
        200..=299 => return None,
        300..=399 => Class::Outage,
        401 => Class::Outage,
        403 => Class::Forbidden,
        404 | 405 if from_api => Class::Permanent,
        404 | 405 => Class::Outage,
        408 | 425 => Class::Transient,
        409 | 412 if patch => Class::Conflict,
        429 if paced => Class::Paced,
        429 => Class::Transient,
        500..=599 if paced => Class::Paced,
        502..=504 => Class::Outage,
        500..=599 => Class::Transient,
        _ => Class::Permanent,
    })
}

#[test]
fn every_http_status_has_its_class() {
    for status in 100..=999 {
        for from_api in [false, true] {
            for retry_after in [None, Some(TIME)] {
                for call in [HttpCall::SetStatus, HttpCall::Status] {
                    let got = classify_http(
                        StatusCode::from_u16(status).unwrap(),
                        from_api,
                        retry_after,
                        call,
                    );
                    let class = got.as_ref().err().map(|failure| failure.class);
                    let want = expected(status, from_api, retry_after.is_some(), call);
                    assert_eq!(class, want, "{status} {from_api} {retry_after:?} {call:?}");
                    if let Err(failure) = got {
                        let time = (failure.class == Class::Paced).then_some(TIME);
                        assert_eq!(failure.retry_after, time, "{status}");
                        let code = if status < 600 {
                            format!("http_{status}")
                        } else {
                            "http_other".into()
                        };
                        assert_eq!(failure.code, code);
                    }
                }
            }
        }
    }
}

#[test]
fn every_grpc_code_has_its_class() {
    use Class::{Forbidden, Outage, Permanent, Transient};
    // Number, class for ReleaseHold (none: done), class for CommitReservation, word.
    let table: [(i32, Option<Class>, Class, &str); 17] = [
        (0, Some(Transient), Transient, "grpc_ok"),
        (1, Some(Outage), Outage, "grpc_cancelled"),
        (2, Some(Transient), Transient, "grpc_unknown"),
        (3, Some(Permanent), Permanent, "grpc_invalid_argument"),
        (4, Some(Outage), Outage, "grpc_deadline_exceeded"),
        (5, None, Permanent, "grpc_not_found"),
        (6, Some(Permanent), Permanent, "grpc_already_exists"),
        (7, Some(Forbidden), Forbidden, "grpc_permission_denied"),
        (8, Some(Transient), Transient, "grpc_resource_exhausted"),
        (9, Some(Permanent), Permanent, "grpc_failed_precondition"),
        (10, Some(Transient), Transient, "grpc_aborted"),
        (11, Some(Permanent), Permanent, "grpc_out_of_range"),
        (12, Some(Outage), Outage, "grpc_unimplemented"),
        (13, Some(Transient), Transient, "grpc_internal"),
        (14, Some(Outage), Outage, "grpc_unavailable"),
        (15, Some(Permanent), Permanent, "grpc_data_loss"),
        (16, Some(Outage), Outage, "grpc_unauthenticated"),
    ];
    for (number, release, commit, word) in table {
        let code = Code::from_i32(number);
        for (rpc, want) in [(Rpc::ReleaseHold, release), (Rpc::Commit, Some(commit))] {
            let plain = classify_grpc(code, None, rpc).err();
            assert_eq!(plain.as_ref().map(|f| f.class), want, "{code:?} {rpc:?}");
            assert!(plain.is_none_or(|f| f.code == word && f.retry_after.is_none()), "{code:?}");

            let paced = classify_grpc(code, Some(TIME), rpc).err();
            let (class, time) = match want {
                Some(Outage | Transient) => (Some(Class::Paced), Some(TIME)),
                other => (other, None),
            };
            assert_eq!(paced.as_ref().map(|f| f.class), class, "{code:?} {rpc:?} with RetryInfo");
            assert_eq!(paced.and_then(|f| f.retry_after), time, "{code:?} {rpc:?} with RetryInfo");
        }
    }
    // A code that no protocol knows is read as UNKNOWN.
    assert_eq!(Code::from_i32(17), Code::Unknown);
}

#[test]
fn answers_that_are_not_grpc_are_read_by_their_http_status() {
    for status in 100..=999 {
        let plain = classify_not_grpc(StatusCode::from_u16(status).unwrap(), None);
        let want = match status {
            200..=299 | 401 | 404 | 429 | 502..=504 => Class::Outage,
            403 => Class::Forbidden,
            _ => Class::Transient,
        };
        assert_eq!((plain.class, plain.code.as_ref()), (want, "not_grpc"), "{status}");
        let paced = classify_not_grpc(StatusCode::from_u16(status).unwrap(), Some(TIME));
        let want = if status == 429 || (500..600).contains(&status) { Class::Paced } else { want };
        assert_eq!(paced.class, want, "{status}");
        assert_eq!(paced.retry_after, (want == Class::Paced).then_some(TIME), "{status}");
    }
}

#[test]
fn every_release_status_is_read() {
    for done in [1, 2, 3] {
        assert_eq!(classify_release_status(done), Ok(()));
    }
    for (status, word) in [
        (0, "release_unspecified"),
        (4, "release_failed"),
        (5, "release_status_unknown"),
        (-1, "release_status_unknown"),
        (i32::MAX, "release_status_unknown"),
    ] {
        assert_eq!(classify_release_status(status), Err(Failure::new(Class::Permanent, word)));
    }
}

#[test]
fn every_commit_status_is_read() {
    assert_eq!(classify_commit_status(1), Ok(()));
    for (status, class, word) in [
        (0, Class::Permanent, "commit_unspecified"),
        (2, Class::MoneyWithoutSeat, "commit_failed_payment"),
        (3, Class::MoneyWithoutSeat, "commit_failed_expired"),
        (4, Class::MoneyWithoutSeat, "commit_failed_conflict"),
        (5, Class::Permanent, "commit_status_unknown"),
        (-1, Class::Permanent, "commit_status_unknown"),
        (i32::MIN, Class::Permanent, "commit_status_unknown"),
    ] {
        assert_eq!(classify_commit_status(status), Err(Failure::new(class, word)));
    }
}
