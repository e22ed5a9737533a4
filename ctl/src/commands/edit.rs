//! `lockstep edit`: an object in an editor. Whatever goes wrong, what was typed is kept in a file.

use super::{
    get::{bare, fetch, kind_and_name},
    lint,
};
use crate::{
    cli::Edit,
    context::Session,
    error::{Error, Result},
    render::path,
    terminal,
};
use lockstep_apis::{
    manifest,
    v1alpha::{Object, UpdateRequest},
};
use std::{
    env, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
};
use tonic::Code;

const HEADER: &str = "\
# Change what you like and save; leave it as it is, or empty it, to change nothing.
# `lockstep explain KIND.FIELD` says what may be written.
";

pub(crate) async fn edit(session: &Session, edit: &Edit) -> Result<()> {
    let (kind, first) = kind_and_name(&edit.kind)?;
    let name = first.or_else(|| edit.name.as_deref().map(|name| bare(kind, name)));
    let name = name.ok_or_else(|| Error::Usage(format!("edit which of the {}? Give a name", kind.plural)))?;
    let stored = fetch(session, kind, name).await?;
    let text = format!("{HEADER}{}", manifest::print_yaml(&[editable(&stored)]));
    let file = create(&stored, &text)?;
    loop {
        open(&file)?;
        let edited = fs::read_to_string(&file).map_err(|e| Error::File(file.clone(), e))?;
        if edited == text || edited.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            let _ = fs::remove_file(&file);
            println!("{} unchanged", path(&stored));
            return Ok(());
        }
        let tried = match read(&file, &edited, &stored) {
            Ok(object) => send(session, object).await,
            Err(error) => Err(error),
        };
        match tried {
            Ok(()) => {
                let _ = fs::remove_file(&file);
                return Ok(());
            }
            Err(Error::Invalid(found)) if terminal::is_there() => {
                eprintln!("{}", Error::Invalid(found.clone()));
                if !terminal::ask("edit it again?", true) {
                    return Err(kept(Error::Invalid(found), &file));
                }
            }
            Err(error) => return Err(kept(error, &file)),
        }
    }
}

/// Without what the system says of it, but with the version that the edit is based on.
fn editable(stored: &Object) -> Object {
    let mut object = stored.clone();
    object.keep_system_fields(None);
    object
}

fn create(object: &Object, text: &str) -> Result<PathBuf> {
    let name = format!("lockstep-{}-{}.yaml", path(object).replace('/', "-"), process::id());
    let file = env::temp_dir().join(name);
    let created = fs::File::options().write(true).create_new(true).mode(0o600).open(&file);
    created.and_then(|mut open| open.write_all(text.as_bytes())).map_err(|e| Error::File(file.clone(), e))?;
    Ok(file)
}

/// As git does it: the variable may hold options, so a shell reads it.
fn open(file: &Path) -> Result<()> {
    let chosen = ["VISUAL", "EDITOR"].into_iter().filter_map(env::var_os).find(|set| !set.is_empty());
    let mut line = chosen.unwrap_or_else(|| "vi".into());
    line.push(" \"$0\"");
    let ended = Command::new("/bin/sh").arg("-c").arg(line).arg(file).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(kept(Error::Usage(format!("the editor ended with {status}; set EDITOR to choose one")), file))
        }
        Err(e) => Err(kept(Error::File("/bin/sh".into(), e), file)),
    }
}

/// The one object of the file, based on the version that was read.
fn read(file: &Path, text: &str, stored: &Object) -> Result<Object> {
    let metadata = stored.metadata();
    let namespace = Some(metadata.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let mut found =
        manifest::decode(&file.display().to_string(), text.as_bytes(), namespace).map_err(Error::Invalid)?;
    let (Some(mut object), true) = (found.pop(), found.is_empty()) else {
        return Err(Error::Usage("the file holds several objects; edit changes one".into()));
    };
    if object.key() != stored.key() {
        let (was, is) = (path(stored), path(&object));
        return Err(Error::Usage(format!(
            "it was {was} and is now {is}; edit renames nothing, `lockstep apply` makes another"
        )));
    }
    let violations = lint::all_violations(std::slice::from_ref(&object));
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    object.metadata_mut().resource_version.clone_from(&metadata.resource_version);
    Ok(object)
}

async fn send(session: &Session, object: Object) -> Result<()> {
    let name = path(&object);
    match session.objects().update(UpdateRequest { object: Some(object), dry_run: false }).await {
        Ok(_) => {
            println!("{name} configured");
            Ok(())
        }
        Err(status) => Err(status.into()),
    }
}

fn kept(error: Error, file: &Path) -> Error {
    let file = file.display();
    let advice = match &error {
        Error::Status(status) if status.code() == Code::Aborted => format!(
            "your edit is in {file}: take `resourceVersion` out of it, `lockstep diff -f {file}` shows what it would undo, \
             `lockstep apply -f {file}` does it"
        ),
        _ => format!("your edit is in {file}; `lockstep apply -f {file}` tries it again"),
    };
    error.with_advice(advice)
}
