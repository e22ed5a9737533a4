//! `file.content`: a file that is there already has this content.

use lockstep_apis::v1alpha::Value;

use super::edit::{Edit, Options};
use super::managed::{check_sum, checksum, text};
use super::state::FileState;
use crate::action::Done;
use crate::module::Refusal;
use crate::parameters::Parameters;

/// The whole content.
#[derive(Debug)]
struct Content(String);

/// Reads the parameters of `file.content`.
pub(super) fn read(parameters: &Value) -> Result<FileState, Done> {
    let mut from = Parameters::new(parameters, None);
    let options = Options::read(&mut from);
    let content = text(&mut from);
    if content.is_none() {
        from.fault("content or template is missing");
    }
    let content = content.unwrap_or_default();
    let checksum = checksum(&mut from);
    let state = options.state(from, Content(content.clone()))?;
    check_sum(&state.path, &content, checksum.as_deref())?;
    Ok(state)
}

impl Edit for Content {
    fn edit(&self, _path: &str, _old: &[u8]) -> Result<Vec<u8>, Refusal> {
        Ok(self.0.clone().into_bytes())
    }
}
