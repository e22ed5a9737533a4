//! `lockstepd`, the daemon. `execute` comes first of all: it is started once for each segment of work and needs none
//! of what a daemon needs; `guard` likewise.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lockstep_daemon::commands::{init, join};
use lockstep_daemon::settings::{Flags, SettingsError};
use lockstep_daemon::{app, identity};
use lockstep_executor::segment;
use lockstep_modules::{Cgroup, Side};

/// Configuration management in lockstep: the daemon of every node.
#[derive(Parser)]
#[command(name = "lockstepd", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run the daemon in the foreground: the default.
    Serve(Flags),
    /// Make a cluster, with this machine as its first server.
    Init(init::InitArguments),
    /// Join a cluster.
    Join(join::JoinArguments),
    /// Say which version this is.
    Version,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let first = words.next();
    if first.as_ref().is_some_and(|word| word == "execute") {
        return execute(words);
    }
    if first.is_some_and(|word| word == "guard")
        && let Some(folder) = words.next()
    {
        return lockstep_executor::guard::guard(&PathBuf::from(folder));
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("lockstepd: {problem:#}");
            // As of a wrong command line: what is to be mended is what was given.
            if problem.is::<SettingsError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Read by hand: a segment may be shorter than what a parser of options takes.
fn execute(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let (mut folder, mut root, mut cgroup) = (None, None, None);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--root") => root = words.next().map(PathBuf::from),
            Some("--cgroup") => cgroup = words.next().map(|path| Cgroup::at(&PathBuf::from(path))),
            _ => folder = Some(PathBuf::from(word)),
        }
    }
    let Some(folder) = folder else {
        eprintln!("lockstepd execute FOLDER [--root FOLDER] [--cgroup FOLDER]");
        return ExitCode::FAILURE;
    };
    let cgroup = match cgroup.as_ref().map(Cgroup::fork_into) {
        Some(Ok(Side::Ended(code))) => return ExitCode::from(code),
        Some(Ok(Side::Inside)) => cgroup,
        // As where there are none: the agent has said so if that is always the case.
        Some(Err(_)) | None => None,
    };
    segment::execute(&folder, &segment::Options { root, cgroup, ..Default::default() }).into()
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    identity::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("lockstepd").build()?;
    match arguments.command.unwrap_or(Command::Serve(arguments.flags)) {
        Command::Serve(flags) => runtime.block_on(app::serve(&flags)),
        Command::Init(arguments) => runtime.block_on(init::init(arguments)),
        Command::Join(arguments) => runtime.block_on(join::join(arguments)),
        Command::Version => {
            println!("lockstepd {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}
