//! `lockstep explain`: what may be written where, without a cluster.

use crate::{
    cli::Explain,
    error::{Error, Result},
    render::{explain, reference, screen::Screen},
};
use lockstep_apis::explain::topic;
use std::{fs, path::Path};

pub(crate) fn explain(arguments: &Explain) -> Result<()> {
    if let Some(folder) = &arguments.markdown {
        return write_reference(folder);
    }
    let found = topic(arguments.path.as_deref().unwrap_or_default()).map_err(|e| Error::Usage(e.to_string()))?;
    print!("{}", explain::topic(&found, Screen::stdout()));
    Ok(())
}

/// Pages that we wrote before and would not write now are deleted; other files in the folder are left alone.
fn write_reference(folder: &Path) -> Result<()> {
    let unusable = |e| Error::File(folder.to_owned(), e);
    fs::create_dir_all(folder).map_err(unusable)?;
    let pages = reference::all();
    for entry in fs::read_dir(folder).map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        let ours = fs::read_to_string(&path).is_ok_and(|text| text.starts_with(reference::MARK));
        let wanted = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| pages.contains_key(name));
        if ours && !wanted {
            fs::remove_file(&path).map_err(|e| Error::File(path.clone(), e))?;
        }
    }
    for (name, text) in &pages {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|e| Error::File(path.clone(), e))?;
    }
    println!("{} pages in {}", pages.len(), folder.display());
    Ok(())
}
