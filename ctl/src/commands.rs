//! One file a command. Those that need no server run without an async runtime.

mod adhoc;
mod apply;
mod contexts;
mod control;
mod dev;
mod diff;
mod doctor;
mod edit;
mod eval;
mod events;
mod explain;
mod follow;
mod get;
mod lines;
mod lint;
mod listing;
mod local;
mod locks;
mod logs;
mod man;
mod modify;
mod nodes;
mod plan;
mod run;
mod runs;
mod schema;
mod status;
mod token;
mod vars;
mod wait;
mod watch;
mod why;

use crate::{
    cli::{Cli, Command, ContextCommand},
    completion,
    context::Context,
    error::{Error, Result},
};
use std::{
    env,
    path::{Path, PathBuf},
    process,
};

/// Does what the command line says.
pub(crate) fn execute(cli: Cli) -> Result<()> {
    let namespace = || cli.global.namespace.clone().unwrap_or_else(|| crate::context::DEFAULT_NAMESPACE.to_owned());
    match &cli.command {
        Command::Init(passed) => init(&passed.arguments),
        Command::Completion { shell } => completion::script(shell),
        Command::Man { folder } => man::man(folder),
        Command::Lint(lint) => lint::lint(lint, &namespace()),
        Command::Context(command) if *command != ContextCommand::Renew => contexts::contexts(&cli.global, command),
        Command::Explain(explain) => explain::explain(explain),
        Command::Schema { kind } => schema::schema(kind.as_deref()),
        Command::Run(run) if run.local => local::run(run, &namespace()),
        Command::Dev(dev) => dev::dev(dev),
        _ => block_on(connected(cli)),
    }
}

/// Does what waits for servers.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::Usage(format!("cannot start: {e}")))?.block_on(work)
}

async fn connected(cli: Cli) -> Result<()> {
    if let Command::Doctor = &cli.command {
        return doctor::doctor(&cli.global).await;
    }
    let context = Context::load(&cli.global)?;
    if let Command::Apply(apply) = &cli.command {
        // What is wrong with the files is said whether or not a server is there.
        let objects = apply::read(&apply.files, context.namespace())?;
        return apply::apply(&context.connect().await?, objects, apply.dry_run).await;
    }
    if let Command::Diff(files) = &cli.command {
        let objects = apply::read(files, context.namespace())?;
        return diff::diff(&context.connect().await?, objects).await;
    }
    if let Command::Context(_) = &cli.command {
        return contexts::renew(&context).await;
    }
    let session = context.connect().await?;
    match cli.command {
        Command::Edit(edit) => edit::edit(&session, &edit).await,
        Command::Label(label) => modify::label(&session, modify::Words::Labels, &label).await,
        Command::Annotate(label) => modify::label(&session, modify::Words::Annotations, &label).await,
        Command::Cordon(cordon) => modify::cordon(&session, &cordon, true).await,
        Command::Uncordon(cordon) => modify::cordon(&session, &cordon, false).await,
        Command::Wait(wait) => wait::wait(&session, &wait).await,
        Command::Token(command) => token::token(&session, command).await,
        Command::Get(get) => get::get(&session, &get).await,
        Command::Nodes(nodes) => nodes::nodes(&session, nodes).await,
        Command::Runs(runs) => runs::runs(&session, &runs).await,
        Command::Describe(describe) => get::describe(&session, &describe).await,
        Command::Delete(delete) => apply::delete(&session, &delete).await,
        Command::Run(run) => run::run(&session, &run).await,
        Command::Exec(exec) => adhoc::exec(&session, &exec).await,
        Command::Logs(logs) => logs::logs(&session, &logs).await,
        Command::Cancel(name) => control::control(&session, control::Control::Cancel, &name.run).await,
        Command::Pause(name) => control::control(&session, control::Control::Pause, &name.run).await,
        Command::Resume(name) => control::control(&session, control::Control::Resume, &name.run).await,
        Command::Approve(approve) => control::approve(&session, &approve).await,
        Command::Retry(retry) => run::retry(&session, &retry).await,
        Command::Rerun(rerun) => run::rerun(&session, &rerun).await,
        Command::Why(why) => why::why(&session, &why).await,
        Command::Release(release) => control::release(&session, &release).await,
        Command::Locks(locks) => locks::locks(&session, locks.command).await,
        Command::Status => status::status(&session).await,
        Command::Events(events) => events::events(&session, events).await,
        Command::Plan(plan) => plan::plan(&session, &plan).await,
        Command::Vars(vars) => vars::vars(&session, &vars).await,
        Command::Eval(eval) => eval::eval(&session, &eval).await,
        Command::Render(render) => eval::render(&session, &render).await,
        Command::Apply(_)
        | Command::Diff(_)
        | Command::Context(_)
        | Command::Init(_)
        | Command::Completion { .. }
        | Command::Doctor
        | Command::Lint(_)
        | Command::Man { .. }
        | Command::Explain(_)
        | Command::Schema { .. }
        | Command::Dev(_) => {
            unreachable!("done above")
        }
    }
}

/// `lockstepd` makes the cluster: it is the one that will read what it makes.
fn init(arguments: &[String]) -> Result<()> {
    let program = daemon_program();
    let status = process::Command::new(&program)
        .arg("init")
        .args(arguments)
        .status()
        .map_err(|e| Error::File(program.clone(), e))?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(Error::Child(code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1))),
    }
}

/// The daemon's program: beside ours, else on PATH.
pub(crate) fn daemon_program() -> PathBuf {
    env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|folder| folder.join("lockstepd")))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| Path::new("lockstepd").to_owned())
}

/// A Run's name as it may be typed: `name` or `run/name`.
pub(crate) fn run_name(typed: &str) -> &str {
    typed.strip_prefix("run/").or_else(|| typed.strip_prefix("runs/")).unwrap_or(typed)
}
