//! The errors of calls, as the engine gets them. The real classification tables decide on each
//! status; nothing is made up here. This is the only file that knows how a call's error is built.

use std::borrow::Cow;

use http::StatusCode;
use reservation_worker::client::classify::{
    HttpCall, Rpc, classify_grpc, classify_http, classify_not_grpc,
};
use reservation_worker::client::error::Failure;
use reservation_worker::client::{CallError, Class, Load};
use tonic::Code;

use super::plan::{Side, Trouble};

/// The error of a call with this trouble.
pub(crate) fn error(side: Side, trouble: Trouble) -> CallError {
    let away = |code, load| Failure {
        class: Class::Outage,
        code: Cow::Borrowed(code),
        retry_after: None,
        load,
    };
    let Failure { class, code, retry_after, load } = match (trouble, side) {
        (Trouble::Silent, _) => away("timeout", Load::TimedOut),
        (Trouble::Html, Side::Api) => away("html", Load::Unknown),
        (trouble, Side::Api) => http(trouble),
        (trouble, Side::Inventory) => grpc(trouble),
    };
    CallError { class, code, detail: "simulated".to_owned(), retry_after, load }
}

fn http(trouble: Trouble) -> Failure {
    let (status, from_api, retry_after) = match trouble {
        Trouble::Away => (503, false, None),
        Trouble::AwayUntil(after) => (503, false, Some(after)),
        Trouble::Failing => (500, true, None),
        Trouble::FailingUntil(after) => (500, true, Some(after)),
        Trouble::Refused => (422, true, None),
        Trouble::Forbidden => (403, true, None),
        Trouble::Paced(after) => (429, true, after),
        Trouble::Foreign(status) => (status, false, None),
        Trouble::Html | Trouble::Silent => unreachable!("this trouble has no status"),
    };
    let status = StatusCode::from_u16(status).expect("the status is valid");
    let answer = classify_http(status, from_api, retry_after, HttpCall::SetStatus);
    answer.expect_err("the status is a failure")
}

fn grpc(trouble: Trouble) -> Failure {
    let (code, retry_info) = match trouble {
        Trouble::Away => (Code::Unavailable, None),
        Trouble::AwayUntil(after) => (Code::Unavailable, Some(after)),
        Trouble::Failing => (Code::Internal, None),
        Trouble::FailingUntil(after) => (Code::Aborted, Some(after)),
        Trouble::Refused => (Code::FailedPrecondition, None),
        Trouble::Forbidden => (Code::PermissionDenied, None),
        Trouble::Paced(after) => (Code::ResourceExhausted, after),
        Trouble::Foreign(_) => (Code::Unimplemented, None),
        Trouble::Html => return classify_not_grpc(StatusCode::OK, None),
        Trouble::Silent => unreachable!("this trouble has no status"),
    };
    classify_grpc(code, retry_info, Rpc::ReleaseHold).expect_err("the status is a failure")
}
