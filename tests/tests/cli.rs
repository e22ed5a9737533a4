//! The tool as an admin types it, against a real server: what is printed where, and the exit codes. Knows the command
//! line; not how it is done.

#[path = "cli/adhoc.rs"]
mod adhoc;
#[path = "cli/changes.rs"]
mod changes;
#[path = "cli/looking.rs"]
mod looking;
#[path = "cli/objects.rs"]
mod objects;
#[path = "cli/servers.rs"]
mod servers;
#[path = "cli/shell.rs"]
mod shell;
