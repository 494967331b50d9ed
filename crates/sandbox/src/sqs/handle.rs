//! Receipt handles: queue, message and number of the receive. Opaque to clients.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::error::{ErrorCode, SqsError};

/// Encodes the handle of the `nonce`-th receive of the message `key` from the queue `uid`.
pub(crate) fn encode(uid: u64, key: u64, nonce: u32) -> String {
    BASE64.encode(format!("{uid:016x}.{key:x}.{nonce:x}"))
}

/// Decodes a handle into message and receive.
pub(crate) fn decode(uid: u64, handle: &str) -> Result<(u64, u32), SqsError> {
    parse(uid, handle).ok_or_else(|| {
        SqsError::new(
            ErrorCode::ReceiptHandleIsInvalid,
            "The input receipt handle is not a valid receipt handle.",
        )
    })
}

fn parse(uid: u64, handle: &str) -> Option<(u64, u32)> {
    let text = String::from_utf8(BASE64.decode(handle).ok()?).ok()?;
    let mut parts = text.split('.');
    let given = u64::from_str_radix(parts.next()?, 16).ok()?;
    let key = u64::from_str_radix(parts.next()?, 16).ok()?;
    let nonce = u32::from_str_radix(parts.next()?, 16).ok()?;
    (given == uid && parts.next().is_none()).then_some((key, nonce))
}
