//! What became of a service's calls, counted.

use tonic::Code;

use super::call::{Answer, Call, Service};

/// Each call counts in one of these but `calls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that came in.
    pub calls: u64,
    /// Answered with the truth, to somebody who waited for it.
    pub served: u64,
    /// Refused as too many: 429, `RESOURCE_EXHAUSTED`.
    pub refused: u64,
    /// Answered with another fault, or not at all.
    pub failed: u64,
    /// The caller gave up, and the work was done for nobody.
    pub thrown_away: u64,
    /// Not answered yet; the caller waits, or has given up.
    pub pending: u64,
}

impl Tally {
    /// Counts those of these calls that went to this service.
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
