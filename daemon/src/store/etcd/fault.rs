//! What an etcd answer says about what happened. The one place that reads etcd's codes and texts.

use etcd_client::Error;
use lockstep_apis::commit::LeaseId;
use tonic::Code;

use crate::store::{Refusal, StoreError};

/// How a request failed, by what is known of its effect.
#[derive(Debug)]
pub(super) enum Fault {
    /// etcd judged it and did nothing.
    Refused(Refusal),
    /// etcd judged it and did nothing: history is gone.
    Compacted,
    /// It was never sent: no connection could be made.
    Unreached(String),
    /// It was sent, and nobody knows.
    Unknown(String),
}

impl Fault {
    /// Reads an error of the client. `lease`: the one that the request names, if any.
    pub(super) fn of(error: &Error, lease: Option<LeaseId>) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(status, lease),
            // Never sent: it could not be written down.
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                Fault::Refused(Refusal::Invalid(error.to_string()))
            }
            _ => Fault::Unknown(error.to_string()),
        }
    }

    pub(super) fn of_status(status: &tonic::Status, lease: Option<LeaseId>) -> Self {
        let text = status.message();
        let own = text.to_owned();
        match status.code() {
            Code::OutOfRange if text.contains("compacted") => Fault::Compacted,
            Code::OutOfRange if text.contains("future revision") => Fault::Refused(Refusal::FutureRevision(0)),
            // Ours, when we read an answer: its request was a read, or small.
            Code::OutOfRange if text.contains("message length too large") => Fault::Refused(Refusal::TooLarge(own)),
            Code::NotFound if text.contains("lease not found") => {
                Fault::Refused(Refusal::LeaseNotFound(lease.unwrap_or(LeaseId(0))))
            }
            Code::ResourceExhausted if text.contains("space exceeded") => Fault::Refused(Refusal::NoSpace(own)),
            // Said before the request is proposed to the other members.
            Code::ResourceExhausted if text.contains("too many requests") => Fault::Refused(Refusal::Unavailable(own)),
            Code::InvalidArgument if text.contains("too large") || text.contains("too many operations") => {
                Fault::Refused(Refusal::TooLarge(own))
            }
            Code::PermissionDenied | Code::Unauthenticated => Fault::Refused(Refusal::Denied(own)),
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unimplemented => Fault::Refused(Refusal::Invalid(own)),
            _ if was_not_sent(status) => Fault::Unreached(text_of(status)),
            _ => Fault::Unknown(text_of(status)),
        }
    }

    /// Of a request that takes effect at most once: what is not known is said to be.
    pub(super) fn of_write(self, operation: &'static str) -> StoreError {
        match self {
            Fault::Refused(refusal) => StoreError::refused(operation, refusal),
            Fault::Compacted => StoreError::Compacted { revision: 0 },
            Fault::Unreached(problem) => StoreError::refused(operation, Refusal::Unavailable(problem)),
            Fault::Unknown(problem) => StoreError::Indeterminate { operation, problem },
        }
    }

    /// Of a request without effect, or that may be repeated: not knowing is the same as not reaching.
    pub(super) fn of_read(self, operation: &'static str) -> StoreError {
        match self {
            Fault::Unknown(problem) => Fault::Unreached(problem).of_write(operation),
            fault => fault.of_write(operation),
        }
    }
}

/// The connector's own error: the request waited for a connection that was not made.
fn was_not_sent(status: &tonic::Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>())
}

/// The status' own text is often only "transport error"; its causes say which.
fn text_of(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    for cause in causes(status) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn causes(status: &tonic::Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: Code, text: &str) -> Fault {
        Fault::of_status(&tonic::Status::new(code, text), Some(LeaseId(7)))
    }

    #[test]
    fn what_etcd_says_before_it_acts_is_definite() {
        assert!(matches!(
            fault(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Fault::Compacted
        ));
        assert!(matches!(
            fault(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Fault::Refused(Refusal::NoSpace(_))
        ));
        assert!(matches!(
            fault(Code::NotFound, "etcdserver: requested lease not found"),
            Fault::Refused(Refusal::LeaseNotFound(LeaseId(7)))
        ));
        assert!(matches!(
            fault(Code::InvalidArgument, "etcdserver: request is too large"),
            Fault::Refused(Refusal::TooLarge(_))
        ));
        assert!(matches!(
            fault(Code::PermissionDenied, "etcdserver: permission denied"),
            Fault::Refused(Refusal::Denied(_))
        ));
    }

    #[test]
    fn what_may_be_under_way_is_not_definite() {
        for (code, text) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
            (Code::Cancelled, "operation was canceled"),
            (Code::Unknown, "transport error"),
            (Code::Internal, "h2 protocol error"),
        ] {
            let error = fault(code, text).of_write("commit");
            assert!(matches!(error, StoreError::Indeterminate { .. }), "{text}: {error}");
        }
    }
}
