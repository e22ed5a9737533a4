//! The command that must succeed on a file's new content.

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Scope};
use crate::command;
use crate::host::Ending;
use crate::parameters::Parameters;

/// What `${{ file }}` is rendered to by whoever renders the parameters of a task: only here is the path known.
pub const VALIDATED_FILE: &str = "/\u{1}lockstep-validated-file\u{1}";

/// `validate` of `file.managed`.
#[derive(Debug)]
pub(super) struct Validation {
    argv: Vec<String>,
    /// After the name appeared, not before.
    pub(super) placed: bool,
}

impl Validation {
    /// Reads `{argv, at}` or the `argv` alone. Faults are added to those of the file.
    pub(super) fn read(value: &Value, faults: &mut Parameters<'_>) -> Validation {
        let mut from = Parameters::new(value, Some("argv"));
        let argv = from.texts("argv");
        if argv.is_empty() {
            from.fault("argv is missing");
        }
        let placed = match from.text("at").as_deref() {
            None | Some("" | "Before") => false,
            Some("Placed") => true,
            Some(other) => {
                from.fault(format!("at {other:?} is neither Before nor Placed"));
                false
            }
        };
        if let Err(found) = from.finish() {
            faults.fault(format!("validate: {found}"));
        }
        Validation { argv, placed }
    }

    /// Runs it on the file at `real`, a path below the root.
    pub(super) fn run(&self, real: &str, scope: &mut Scope<'_>) -> Result<(), Done> {
        let path = scope.host.outside(real);
        let argv: Vec<String> = self.argv.iter().map(|word| word.replace(VALIDATED_FILE, &path)).collect();
        let ended = command::run_plain(&argv, scope)?;
        match ended.ending {
            Ending::Exit(0) => Ok(()),
            ending => Err(Done::failed(
                "ValidationFailed",
                format!("{} ended with {}; the file is as it was", self.argv[0], command::describe(ending)),
            )),
        }
    }
}
