//! Errors to gRPC codes: the only place. Says nothing that its caller may not know; what is ours goes to the log.

use lockstep_apis::v1alpha::{Violation, Violations};
use prost::Message;
use tonic::{Code, Status};

use crate::cache::Expired;
use crate::identity::join::JoinError;
use crate::identity::listener::Caller;
use crate::store::{Refusal, StoreError};

/// Why a request was not done. Nothing changed, but for [`Problem::Store`] of the class indeterminate.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No certificate, or one that no longer counts.
    #[error("{0}")]
    Unauthenticated(String),
    /// Not for this caller.
    #[error("{0}")]
    Denied(String),
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    Exists(String),
    /// Somebody else was faster: read again.
    #[error("{0}")]
    Conflict(String),
    /// The state of things forbids it.
    #[error("{0}")]
    Precondition(String),
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// What was sent is wrong, in these places.
    #[error("{}", summary(.0))]
    Violations(Vec<Violation>),
    /// What was sent names other objects that are not there, in these places.
    #[error("{}", summary(.0))]
    Missing(Vec<Violation>),
    /// A version that is too old to go on from.
    #[error("{0}")]
    Expired(String),
    /// Too much at once.
    #[error("{0}")]
    Exhausted(String),
    /// Later, or elsewhere.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
    /// The store's.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Of joining or renewing.
    #[error("{0}")]
    Join(#[from] JoinError),
}

/// What an agent's stream or a watch ends with.
pub type Answer<T> = Result<T, Problem>;

impl From<Expired> for Problem {
    fn from(expired: Expired) -> Self {
        Problem::Expired(format!("Expired: {expired}; list again, and watch from there"))
    }
}

fn summary(violations: &[Violation]) -> String {
    let first = violations.first().map(ToString::to_string).unwrap_or_default();
    match violations.len() {
        0 | 1 => first,
        n => format!("{first} (and {} more)", n - 1),
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let text = problem.to_string();
        let code = match &problem {
            Problem::Unauthenticated(_) => Code::Unauthenticated,
            Problem::Denied(_) => Code::PermissionDenied,
            Problem::NotFound(_) => Code::NotFound,
            Problem::Exists(_) => Code::AlreadyExists,
            Problem::Conflict(_) => Code::Aborted,
            Problem::Precondition(_) => Code::FailedPrecondition,
            Problem::Invalid(_) => Code::InvalidArgument,
            Problem::Violations(violations) => return with_details(Code::InvalidArgument, text, violations),
            Problem::Missing(violations) => return with_details(Code::FailedPrecondition, text, violations),
            Problem::Expired(_) => Code::OutOfRange,
            Problem::Exhausted(_) => Code::ResourceExhausted,
            Problem::Unavailable(_) => Code::Unavailable,
            Problem::Internal(_) => Code::Internal,
            Problem::Store(problem) => code_of_store(problem),
            Problem::Join(problem) => code_of_join(problem),
        };
        if code == Code::Internal {
            tracing::error!(problem = text, "a request failed");
        }
        Status::new(code, text)
    }
}

fn with_details(code: Code, text: String, violations: &[Violation]) -> Status {
    let details = Violations { violations: violations.to_vec() }.encode_to_vec();
    Status::with_details(code, text, details.into())
}

fn code_of_store(problem: &StoreError) -> Code {
    match problem {
        StoreError::Conflict => Code::Aborted,
        StoreError::Compacted { .. } => Code::OutOfRange,
        // It may have happened: not a code that clients repeat by themselves.
        StoreError::Indeterminate { .. } => Code::Unknown,
        StoreError::Definite { refusal, .. } => match refusal {
            Refusal::Unavailable(_) | Refusal::Closed => Code::Unavailable,
            Refusal::NoSpace(_) | Refusal::TooLarge(_) => Code::ResourceExhausted,
            _ => Code::Internal,
        },
    }
}

fn code_of_join(problem: &JoinError) -> Code {
    match problem {
        JoinError::Token => Code::PermissionDenied,
        JoinError::NotRenewable => Code::Unauthenticated,
        JoinError::Name(..) | JoinError::Addresses => Code::InvalidArgument,
        JoinError::NodeExists(_) => Code::AlreadyExists,
        JoinError::Embedded => Code::FailedPrecondition,
        JoinError::Authority(crate::identity::authority::AuthorityError::Request(_)) => Code::InvalidArgument,
        JoinError::Authority(_) | JoinError::Damaged(_) => Code::Internal,
    }
}

/// The identity that the connection proves. Errors: there is none; the authorization lets only `Join` get here so.
pub fn caller<T>(request: &tonic::Request<T>) -> Answer<crate::identity::PeerIdentity> {
    let caller = request.extensions().get::<Caller>();
    let identity = caller.and_then(|caller| caller.identity.clone());
    identity.ok_or_else(|| Problem::Unauthenticated("a certificate is needed".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_travel_whole() {
        let violations: Vec<Violation> =
            ["a", "b"].map(|field| lockstep_apis::violation::of_field("Required", field, "must be given")).into();
        let status = Status::from(Problem::Violations(violations.clone()));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "a: must be given (and 1 more)");
        assert_eq!(Violations::decode(status.details()).unwrap().violations, violations);
    }

    #[test]
    fn what_may_have_happened_is_not_called_unavailable() {
        let indeterminate = StoreError::Indeterminate { operation: "commit", problem: "timeout".into() };
        assert_eq!(Status::from(Problem::from(indeterminate)).code(), Code::Unknown);
    }
}
