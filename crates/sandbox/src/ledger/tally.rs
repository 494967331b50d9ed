//! Counts of a service's calls by their results.

use tonic::Code;

use super::call::{Answer, Call, Service};

/// Counts of calls; each call counts in `calls` and in one other field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All calls.
    pub calls: u64,
    /// Answered truthfully to a waiting client.
    pub served: u64,
    /// Refused by a rate limit: 429, `RESOURCE_EXHAUSTED`.
    pub refused: u64,
    /// Answered with another fault or not at all.
    pub failed: u64,
    /// Processed in vain: the client disconnected before the response.
    pub thrown_away: u64,
    /// Not answered yet.
    pub pending: u64,
}

impl Tally {
    /// Counts the calls to this service.
    pub fn of<'a>(calls: impl IntoIterator<Item = &'a Call>, service: Service) -> Self {
        let mut tally = Self::default();
        for call in calls.into_iter().filter(|call| call.service == service) {
            tally.calls += 1;
            let count = match &call.answer {
                Answer::Pending => &mut tally.pending,
                Answer::Http(429) | Answer::Grpc(Code::ResourceExhausted) => &mut tally.refused,
                Answer::CutShort(_) | Answer::Lost => &mut tally.failed,
                Answer::Http(_) | Answer::Grpc(_) | Answer::GrpcStatus(_) => {
                    if call.fault {
                        &mut tally.failed
                    } else if call.abandoned {
                        &mut tally.thrown_away
                    } else {
                        &mut tally.served
                    }
                }
            };
            *count += 1;
        }
        tally
    }
}
