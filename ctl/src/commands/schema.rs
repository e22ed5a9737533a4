//! `lockstep schema`: the kinds' JSON Schema, for editors.

use super::get;
use crate::error::Result;
use lockstep_apis::schema;

pub(crate) fn schema(kind: Option<&str>) -> Result<()> {
    let found = match kind {
        Some(word) => schema::json_schema(get::kind(word)?),
        None => schema::json_schema_of_all(),
    };
    println!("{found:#}");
    Ok(())
}
