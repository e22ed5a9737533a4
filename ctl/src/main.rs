//! `lockstep`: what admins type. Parse, connect, ask, print. Decides nothing that a server decides.

mod cli;
mod commands;
mod completion;
mod context;
mod error;
mod link;
mod manifests;
mod render;
mod renewal;
mod terminal;

use clap::Parser;
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    completion::answer_a_shell();
    let cli = cli::Cli::parse();
    let result = commands::execute(cli);
    // Whatever reads us may have gone: nothing is left to say to it.
    let _ = std::io::stdout().flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            if !text.is_empty() {
                eprintln!("{}", text.lines().map(|line| format!("lockstep: {line}")).collect::<Vec<_>>().join("\n"));
            }
            error.exit_code()
        }
    }
}
