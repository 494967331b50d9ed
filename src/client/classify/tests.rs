//! Tests of the tables: every HTTP status and every gRPC code is asserted.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::client::error::Load;

const TIME: Duration = Duration::from_secs(7);

/// Returns the class that the contract requires, written independently of the code under test.
fn expected(status: u16, from_api: bool, named: bool, call: HttpCall) -> Option<Class> {
    let patch = call == HttpCall::SetStatus;
    let transient = match status {
        200..=299 => return None,
        429 => return Some(Class::Paced),
        403 => return Some(Class::Forbidden),
        409 | 412 if patch => return Some(Class::Conflict),
        300..=399 | 401 | 502 | 503 | 504 => Class::Outage,
        408 | 425 | 500 | 501 => Class::Transient,
        505..=599 => Class::Transient,
        _ if from_api => return Some(Class::Permanent),
        _ => Class::Outage,
    };
    Some(if named { Class::Paced } else { transient })
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
                        let load = match failure.class {
                            Class::Paced => Load::Refused,
                            Class::Outage | Class::Transient => Load::Unknown,
                            Class::Conflict
                            | Class::Forbidden
                            | Class::Permanent
                            | Class::MoneyWithoutSeat => Load::Answered,
                        };
                        assert_eq!(failure.load, load, "{status}");
                        let time = retry_after.filter(|_| failure.class == Class::Paced);
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
    use Class::{Forbidden, Outage, Paced, Permanent, Transient};
    // Number, class for ReleaseHold (`None`: success), class for CommitReservation, error code.
    let table: [(i32, Option<Class>, Class, &str); 17] = [
        (0, Some(Transient), Transient, "grpc_ok"),
        (1, Some(Outage), Outage, "grpc_cancelled"),
        (2, Some(Transient), Transient, "grpc_unknown"),
        (3, Some(Permanent), Permanent, "grpc_invalid_argument"),
        (4, Some(Outage), Outage, "grpc_deadline_exceeded"),
        (5, None, Permanent, "grpc_not_found"),
        (6, Some(Permanent), Permanent, "grpc_already_exists"),
        (7, Some(Forbidden), Forbidden, "grpc_permission_denied"),
        (8, Some(Paced), Paced, "grpc_resource_exhausted"),
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
            assert!(
                plain.as_ref().is_none_or(|f| f.code == word && f.retry_after.is_none()),
                "{code:?}"
            );
            let load = want.map(|class| match (code, class) {
                (Code::DeadlineExceeded, _) => Load::TimedOut,
                (_, Paced) => Load::Refused,
                (_, Permanent | Forbidden) => Load::Answered,
                _ => Load::Unknown,
            });
            assert_eq!(plain.map(|f| f.load), load, "{code:?} {rpc:?}");

            let paced = classify_grpc(code, Some(TIME), rpc).err();
            let (class, time) = match want {
                Some(Outage | Transient | Paced) => (Some(Paced), Some(TIME)),
                other => (other, None),
            };
            assert_eq!(paced.as_ref().map(|f| f.class), class, "{code:?} {rpc:?} with RetryInfo");
            let refused = paced.as_ref().is_some_and(|f| f.load == Load::Refused);
            assert_eq!(refused, class == Some(Paced), "{code:?} {rpc:?} with RetryInfo");
            assert_eq!(paced.and_then(|f| f.retry_after), time, "{code:?} {rpc:?} with RetryInfo");
        }
    }
    // A code that gRPC does not define is read as UNKNOWN.
    assert_eq!(Code::from_i32(17), Code::Unknown);
}

#[test]
fn answers_that_are_not_grpc_are_classified_by_their_http_status() {
    for status in 100..=999 {
        let want = match status {
            403 => Class::Forbidden,
            429 => Class::Paced,
            200..=407 | 409..=424 | 426..=499 | 502..=504 => Class::Outage,
            _ => Class::Transient,
        };
        let status = StatusCode::from_u16(status).unwrap();
        let plain = classify_not_grpc(status, None);
        assert_eq!((plain.class, plain.code.as_ref()), (want, "not_grpc"), "{status}");
        assert_eq!(plain.retry_after, None, "{status}");
        let named = classify_not_grpc(status, Some(TIME));
        let want = if want == Class::Forbidden { want } else { Class::Paced };
        assert_eq!((named.class, named.code.as_ref()), (want, "not_grpc"), "{status}");
        assert_eq!(named.retry_after, (want == Class::Paced).then_some(TIME), "{status}");
    }
}

#[test]
fn every_release_status_is_classified() {
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
fn every_commit_status_is_classified() {
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
