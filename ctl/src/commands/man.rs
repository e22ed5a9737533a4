//! `lockstep man`: the command line as manual pages, from the same text as `--help`.

use crate::{
    cli::Cli,
    error::{Error, Result},
};
use clap::CommandFactory;
use std::{fs, path::Path};

/// Writes `lockstep.1`, `lockstep-get.1`, …
pub(crate) fn man(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::File(folder.to_owned(), e))?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(|e| Error::File(folder.to_owned(), e))?;
    println!(
        "manual pages are in {}; `man -l {}` shows the first",
        folder.display(),
        folder.join("lockstep.1").display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let folder = std::env::temp_dir().join(format!("lockstep-man-{}", std::process::id()));
        man(&folder).unwrap();
        let page = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert!(page("lockstep.1").contains("conflict: somebody else wrote it meanwhile"));
        assert!(page("lockstep-get.1").contains("jsonpath"));
        for command in Cli::command().get_subcommands() {
            assert!(!page(&format!("lockstep-{}.1", command.get_name())).is_empty());
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
