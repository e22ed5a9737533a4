//! `lockstep-mark FILE WORD…`: appends one line, the monotonic clock in nanoseconds and the words, in one write.
//! All hosts of a lab share one kernel, so its clock is true for all of them: the oracle for who worked when.

use std::{fs::OpenOptions, io::Write, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((file, words)) = arguments.split_first() else {
        eprintln!("usage: lockstep-mark FILE WORD…");
        return ExitCode::from(2);
    };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let line = format!("{}{:09} {}\n", now.tv_sec, now.tv_nsec, words.join(" "));
    let written =
        OpenOptions::new().append(true).create(true).open(file).and_then(|mut file| file.write_all(line.as_bytes()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}
