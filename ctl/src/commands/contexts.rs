//! `lockstep context`: which clusters I know, which one is meant, and until when I am somebody there.

use crate::{
    cli::{ContextCommand, Global},
    context::{self, Context},
    error::{Error, Result},
    render::{grid::Grid, screen::Screen, table::age},
};
use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// Those that need no server.
pub(crate) fn contexts(global: &Global, command: &ContextCommand) -> Result<()> {
    match command {
        ContextCommand::List => list(global),
        ContextCommand::Use { name } => choose(name),
        ContextCommand::Show | ContextCommand::Renew => show(global),
    }
}

/// A new certificate for a new key, now.
pub(crate) async fn renew(context: &Context) -> Result<()> {
    let session = context.connect().await?;
    crate::renewal::renew(context, &session).await.map_err(Error::Context)?;
    println!("renewed; {} holds the new key", context.file().display());
    Ok(())
}

fn list(global: &Global) -> Result<()> {
    let files = context::files();
    if files.is_empty() {
        eprintln!("no contexts in {}; `lockstep init` on the first server writes one", context::folder().display());
        return Ok(());
    }
    let current = context::locate(global).ok();
    let mut grid = Grid::new(["", "NAME", "SERVERS", "NAMESPACE", "CERTIFICATE"], Screen::stdout());
    for file in files {
        let mark = if current.as_deref() == Some(file.as_path()) { "*" } else { "" };
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let rest = match Context::read(&file) {
            Ok(context) => [context.servers().join(","), context.namespace().to_owned(), ends(&context)],
            Err(error) => {
                [error.to_string().lines().next().unwrap_or_default().to_owned(), String::new(), String::new()]
            }
        };
        grid.push([mark.to_owned(), name].into_iter().chain(rest).collect());
    }
    let rows = grid.take_rows();
    print!("{}{rows}", grid.heading());
    Ok(())
}

fn choose(name: &str) -> Result<()> {
    let file = context::file_of(name);
    if !file.is_file() {
        let files = context::files();
        let known: Vec<String> =
            files.iter().filter_map(|file| file.file_stem()).map(|stem| stem.to_string_lossy().into_owned()).collect();
        let near = lockstep_apis::nearest::nearest(name, known.iter().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(Error::Context(format!("no context {name} in {}{hint}", context::folder().display())));
    }
    let chosen = context::chosen_file();
    fs::write(&chosen, format!("{name}\n")).map_err(|e| Error::File(chosen, e))?;
    println!("{name} is used from now on, where neither --context nor LOCKSTEP_CONTEXT names another");
    Ok(())
}

fn show(global: &Global) -> Result<()> {
    let context = Context::load(global)?;
    println!("name         {}", context.name());
    println!("file         {}", context.file().display());
    println!("servers      {}", context.servers().join(", "));
    println!("namespace    {}", context.namespace());
    println!("certificate  {}", ends(&context));
    Ok(())
}

/// `ends in 29d`, `ended 3h ago`.
fn ends(context: &Context) -> String {
    let Ok(validity) = context.validity() else { return "unreadable".into() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match (validity.until_ms / 1000).checked_sub(now) {
        Some(left) => format!("ends in {}", age(i64::try_from(left).unwrap_or(i64::MAX))),
        None => {
            let since = now - validity.until_ms / 1000;
            format!("ended {} ago", age(i64::try_from(since).unwrap_or(i64::MAX)))
        }
    }
}
