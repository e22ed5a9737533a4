//! How a command ends when it does not end well: what is printed, and the exit code. The only file that reads gRPC codes.

use lockstep_apis::v1alpha::{Violation, Violations};
use prost::Message;
use std::{fmt, io, path::PathBuf, process::ExitCode};
use tonic::Code;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A manifest, or what it asks for, is wrong. Nothing was changed.
    #[error("{}", List(.0))]
    Invalid(Vec<Violation>),
    /// A file could not be read or written.
    #[error("{path}: {source}", path = .0.display(), source = .1)]
    File(PathBuf, #[source] io::Error),
    /// There is no context to take servers and identity from, or it is broken.
    #[error("{0}")]
    Context(String),
    /// No server could be reached.
    #[error("no server reached: {0}\nis one running? `lockstep dev status` or `systemctl status lockstepd` tell")]
    Unreachable(String),
    /// A server answered with an error.
    #[error("{}", .0.message())]
    Status(Box<tonic::Status>),
    /// Its state does not allow it yet.
    #[error("{0}")]
    NotYet(String),
    /// A Run ended, but not well; it has been said already.
    #[error("")]
    RunFailed,
    /// A Run ended well on the nodes that were reached; it has been said already.
    #[error("")]
    NodesSkipped,
    /// What was compared differs; it has been said already.
    #[error("")]
    Differs,
    /// What was waited for did not come.
    #[error("{0}")]
    TimedOut(String),
    /// An error, and what can be done about it.
    #[error("{0}\n{1}")]
    Advised(Box<Error>, String),
    /// Another program, started for this command, ended so; it has said why.
    #[error("")]
    Child(u8),
}

/// Result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The exit code, as documented in `lockstep --help`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Error::RunFailed | Error::Differs | Error::TimedOut(_) => 1,
            Error::Advised(error, _) => return error.exit_code(),
            Error::Usage(_) | Error::Invalid(_) | Error::File(..) => 2,
            Error::NotYet(_) => 3,
            Error::Context(_) => 4,
            Error::Unreachable(_) => 5,
            Error::NodesSkipped => 6,
            Error::Child(code) => *code,
            Error::Status(status) => match status.code() {
                Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::ResourceExhausted => 2,
                Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => 3,
                Code::Unauthenticated | Code::PermissionDenied => 4,
                _ => 5,
            },
        })
    }
}

impl Error {
    /// The same, with a sentence about what to do.
    pub(crate) fn with_advice(self, advice: String) -> Error {
        Error::Advised(Box::new(self), advice)
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        match Violations::decode(status.details()) {
            Ok(found) if !found.violations.is_empty() => Error::Invalid(found.violations),
            _ => Error::Status(Box::new(status)),
        }
    }
}

/// Whether the server went before it had answered: what it did is not known, and another one may be asked.
pub(crate) fn is_lost(status: &tonic::Status) -> bool {
    // What a server says has no source; what happens to a connection has.
    std::error::Error::source(status).is_some()
        && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// One violation a line, as compilers print them, so that editors jump to them.
struct List<'a>(&'a [Violation]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, violation) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            if !violation.file.is_empty() {
                write!(f, "{}:", violation.file)?;
            }
            if violation.line > 0 {
                write!(f, "{}:{}:", violation.line, violation.column)?;
            }
            if !violation.file.is_empty() || violation.line > 0 {
                write!(f, " ")?;
            }
            if !violation.field.is_empty() {
                write!(f, "{}: ", violation.field)?;
            }
            write!(f, "{} [{}]", violation.message, violation.reason)?;
        }
        Ok(())
    }
}
