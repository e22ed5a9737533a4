//! `file.managed`: a regular file with this content, owner and mode.

use lockstep_apis::v1alpha::Value;

use super::state::{FileState, Text};
use super::validate::Validation;
use super::{RawAttributes, invalid};
use crate::action::{Done, Scope};
use crate::checksum;
use crate::parameters::Parameters;

/// Reads the parameters of `file.managed`.
pub(super) fn read(parameters: &Value, scope: &Scope<'_>) -> Result<FileState, Done> {
    let mut from = Parameters::new(parameters, None);
    let path = from.required("path");
    let content = text(&mut from);
    let raw = RawAttributes::read(&mut from);
    let (parents, follow, backup) = (from.flag("parents"), from.flag("follow"), from.flag("backup"));
    let validation = from.value("validate").map(|value| Validation::read(value, &mut from));
    let checksum = checksum(&mut from);
    if checksum.is_some() && content.is_none() {
        from.fault("checksum needs content or template");
    }
    from.finish().map_err(invalid)?;
    check_sum(&path, content.as_deref().unwrap_or_default(), checksum.as_deref())?;
    let attributes = raw.resolve(scope.host, scope.check)?;
    Ok(FileState {
        path,
        text: content.map_or(Text::Any, Text::Whole),
        attributes,
        parents,
        follow,
        backup,
        validation,
    })
}

/// The text that `content` or `template` give.
pub(super) fn text(from: &mut Parameters<'_>) -> Option<String> {
    let (content, template) = (from.text("content"), from.text("template"));
    if content.is_some() && template.is_some() {
        from.fault("content and template exclude each other");
    }
    content.or(template)
}

/// The checksum that the content must have.
pub(super) fn checksum(from: &mut Parameters<'_>) -> Option<String> {
    from.text("checksum").filter(|checksum| !checksum.is_empty())
}

/// Compares the content with the checksum that the book gives, before anything is written.
pub(super) fn check_sum(path: &str, content: &str, wanted: Option<&str>) -> Result<(), Done> {
    let Some(wanted) = wanted else { return Ok(()) };
    if wanted.strip_prefix("sha256:").is_none_or(|hex| hex.len() != 64) {
        return Err(invalid(format!("checksum {wanted:?} is not sha256: and 64 hexadecimal digits")));
    }
    let found = checksum::of_bytes(content.as_bytes());
    if checksum::is_same(wanted, &found) {
        return Ok(());
    }
    Err(Done::failed("ChecksumMismatch", format!("the content for {path} has {found}, not {wanted}")))
}
