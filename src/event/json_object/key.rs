//! The names of the fields that are read, in both spellings.
//!
//! `validate` checks the values.

use serde::Deserialize;

/// The known fields; every other field is `Unknown` and is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
pub(in crate::event) enum Key {
    #[serde(rename = "Type")]
    SnsType,
    #[serde(rename = "Message")]
    SnsMessage,
    #[serde(rename = "MessageId")]
    SnsMessageId,
    #[serde(rename = "detail-type")]
    DetailType,
    #[serde(rename = "specversion")]
    SpecVersion,
    Id,
    Type,
    TraceId,
    Traceparent,
    Tracestate,
    EventType,
    ReservationId,
    EventId,
    Qty,
    Status,
    PaymentId,
    PaymentIntentId,
    Amount,
    Currency,
    UserId,
    ErrorCode,
    ErrorMessage,
    SeatIds,
    Payload,
    Detail,
    Data,
    #[serde(rename = "MessageAttributes")]
    SnsAttributes,
    /// Times are not used, but a duplicate is refused, as for every known field.
    Time,
    Ts,
    #[serde(rename = "Timestamp")]
    SnsTimestamp,
    #[serde(rename = "eventType")]
    EventTypeCamel,
    #[serde(rename = "reservationId")]
    ReservationIdCamel,
    #[serde(rename = "eventId")]
    EventIdCamel,
    #[serde(rename = "quantity")]
    Quantity,
    #[serde(rename = "paymentIntentId")]
    PaymentIntentIdCamel,
    #[serde(rename = "userId")]
    UserIdCamel,
    #[serde(rename = "errorCode")]
    ErrorCodeCamel,
    #[serde(rename = "errorMessage")]
    ErrorMessageCamel,
    #[serde(rename = "seatIds")]
    SeatIdsCamel,
    #[serde(other)]
    Unknown,
}

impl Key {
    /// The number of keys before `SeatIds`: the fields with a scalar value.
    pub(super) const VALUES: usize = Self::SeatIds as usize;

    /// The fields with a second spelling, in the order of the second spellings in the enum.
    const SPELT_TWICE: [Self; 9] = [
        Self::EventType,
        Self::ReservationId,
        Self::EventId,
        Self::Qty,
        Self::PaymentIntentId,
        Self::UserId,
        Self::ErrorCode,
        Self::ErrorMessage,
        Self::SeatIds,
    ];

    /// Returns the field of this spelling.
    pub(super) fn field(self) -> Self {
        let place = (self as usize).checked_sub(Self::EventTypeCamel as usize);
        place.and_then(|place| Self::SPELT_TWICE.get(place)).copied().unwrap_or(self)
    }

    /// Returns whether an empty text means absent.
    ///
    /// This holds for fields that only describe, and for ids that are optional.
    pub(super) const fn is_absent_where_empty(self) -> bool {
        matches!(self, Self::PaymentIntentId | Self::UserId | Self::ErrorCode | Self::ErrorMessage)
    }

    /// Returns the name in the body.
    pub(in crate::event) const fn as_str(self) -> &'static str {
        match self {
            Self::SnsType => "Type",
            Self::SnsMessage => "Message",
            Self::SnsMessageId => "MessageId",
            Self::SnsTimestamp => "Timestamp",
            Self::DetailType => "detail-type",
            Self::SpecVersion => "specversion",
            Self::Id => "id",
            Self::Type => "type",
            Self::Time => "time",
            Self::Ts => "ts",
            Self::TraceId => "trace_id",
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::EventType => "event_type",
            Self::ReservationId => "reservation_id",
            Self::EventId => "event_id",
            Self::Qty => "qty",
            Self::Status => "status",
            Self::PaymentId => "payment_id",
            Self::PaymentIntentId => "payment_intent_id",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::UserId => "user_id",
            Self::ErrorCode => "error_code",
            Self::ErrorMessage => "error_message",
            Self::SeatIds => "seat_ids",
            Self::Payload => "payload",
            Self::Detail => "detail",
            Self::Data => "data",
            Self::SnsAttributes => "MessageAttributes",
            Self::EventTypeCamel => "eventType",
            Self::ReservationIdCamel => "reservationId",
            Self::EventIdCamel => "eventId",
            Self::Quantity => "quantity",
            Self::PaymentIntentIdCamel => "paymentIntentId",
            Self::UserIdCamel => "userId",
            Self::ErrorCodeCamel => "errorCode",
            Self::ErrorMessageCamel => "errorMessage",
            Self::SeatIdsCamel => "seatIds",
            Self::Unknown => "(unknown)",
        }
    }
}
