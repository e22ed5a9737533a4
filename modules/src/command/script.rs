//! `command.script`: a script and its interpreter. The script is handed over as a file in memory: it is never on the
//! disk nor in an argument list, and its standard input is its own.

use crate::parameters::Parameters;

/// Interpreter of a script that names none.
const SHELL: &str = "/bin/sh";

/// A script, and what it is run by.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) body: String,
    /// Before the script's path in the argument list.
    pub(super) interpreter: Vec<String>,
    /// After it.
    pub(super) args: Vec<String>,
}

impl Script {
    pub(super) fn read(from: &mut Parameters<'_>) -> Script {
        let (script, template) = (from.text("script"), from.text("template"));
        if script.is_some() == template.is_some() {
            from.fault("exactly one of script and template must be given");
        }
        let body = script.or(template).unwrap_or_default();
        let mut interpreter = from.texts("interpreter");
        if interpreter.first().is_some_and(String::is_empty) {
            from.fault("interpreter is empty");
        }
        if interpreter.is_empty() {
            interpreter = named_interpreter(&body);
        }
        Script { body, interpreter, args: from.texts("args") }
    }
}

/// What the first line names after `#!`: a program and, as the kernel reads it, at most one argument.
fn named_interpreter(body: &str) -> Vec<String> {
    let line = body.strip_prefix("#!").and_then(|rest| rest.lines().next()).map(str::trim).unwrap_or_default();
    let words: Vec<String> = line.splitn(2, [' ', '\t']).map(|word| word.trim().to_owned()).collect();
    if line.is_empty() { vec![SHELL.to_owned()] } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_interpreter_as_the_kernel_reads_it() {
        for (body, words) in [
            ("echo", &["/bin/sh"][..]),
            ("#!/bin/bash\necho", &["/bin/bash"]),
            ("#! /usr/bin/env  -S python3 -u \r\n", &["/usr/bin/env", "-S python3 -u"]),
            ("#!\n", &["/bin/sh"]),
            ("\n#!/bin/bash\n", &["/bin/sh"]),
        ] {
            assert_eq!(named_interpreter(body), words, "{body:?}");
        }
    }
}
