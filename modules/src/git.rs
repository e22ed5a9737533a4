//! `git.checkout`: what a commit holds is in a directory. Files are written as all files are here, one by one from git's
//! objects, which are kept elsewhere: there is no `.git` in the directory, and nothing of the repository is ever run.

mod checkout;
mod remote;

use git2::Oid;
use lockstep_apis::v1alpha::{GitCheckout, Value};

use crate::action::{Done, Function, Outcome, Scope};
use crate::file::Attributes;
use crate::host::{GitFault, HostError, Store};
use crate::module::converge;
use crate::parameters::decoded;
use checkout::Checkout;
use remote::Remote;

/// `git.checkout`.
pub(crate) static CHECKOUT: Function = Function { name: "git.checkout", perform };

/// What a commit may hold at most, if the book does not say.
const MAX_BYTES: u64 = 1 << 30;

/// More packs than these are made one.
const PACKS: usize = 16;

impl From<GitFault> for Done {
    fn from(fault: GitFault) -> Done {
        Done::failed(fault.reason(), fault)
    }
}

fn perform(given: &Value, scope: &mut Scope<'_>) -> Result<Done, Done> {
    let wanted: GitCheckout = decoded("git.checkout", given)?;
    let commit = Oid::from_str(&wanted.r#ref).ok().filter(|_| wanted.r#ref.len() == 40);
    check(&wanted, commit.is_some()).map_err(|fault| Done::failed("InvalidParameters", fault))?;
    let attributes = attributes(&wanted, scope)?;
    let max_bytes = wanted.max_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(MAX_BYTES);
    let store = scope.host.git_store(&wanted.path, None)?;
    let found = find(&wanted, commit, max_bytes, store, scope);
    let (commit, store, fetched) = found.map_err(|done| judged(done, scope))?;
    let checkout = Checkout {
        path: wanted.path,
        commit,
        store: store.as_ref(),
        objects: fetched.as_ref().or(store.as_ref()).expect("invariant: the commit is in one of them"),
        attributes,
        force: wanted.force,
        skip_submodules: wanted.skip_submodules,
        max_bytes,
    };
    let before = store.as_ref().and_then(Store::checked_out).map(|commit| commit.to_string());
    let done = converge(&checkout, scope).with("commit", commit.to_string()).with("before", before.unwrap_or_default());
    if let (false, Outcome::Changed, Some(store)) = (scope.check, done.outcome, &store)
        && store.packs() > PACKS
    {
        // What cannot be tidied now is tidied another time; the checkout is done.
        let _ = remote::tidy(store, scope);
    }
    Ok(done)
}

/// What the rules of single parameters cannot say.
fn check(wanted: &GitCheckout, is_commit: bool) -> Result<(), &'static str> {
    let scheme = wanted.url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let (has_password, has_key) = (!wanted.password.is_empty(), !wanted.ssh_key.is_empty());
    match scheme.as_str() {
        "http" if !is_commit => {
            Err("url: over http:// nobody can tell who answers; write https://, or a commit as ref")
        }
        "http" if has_password => Err("password: over http:// everybody on the way could read it; write https://"),
        "http" | "https" if has_key || !wanted.known_hosts.is_empty() => {
            Err("sshKey and knownHosts are for ssh:// only")
        }
        "https" => Ok(()),
        _ if has_password || !wanted.username.is_empty() || !wanted.ca_file.is_empty() => {
            Err("username, password and caFile are for https:// only")
        }
        "file" if has_key || !wanted.known_hosts.is_empty() => Err("sshKey and knownHosts are for ssh:// only"),
        _ => Ok(()),
    }
}

fn attributes(wanted: &GitCheckout, scope: &Scope<'_>) -> Result<Attributes, Done> {
    let missing = |error: HostError| if scope.check { error.unpredicted() } else { error.into() };
    let named = |text: &String| (!text.is_empty()).then(|| text.clone());
    Ok(Attributes {
        mode: None,
        uid: named(&wanted.owner).map(|name| scope.host.uid(&name)).transpose().map_err(missing)?,
        gid: named(&wanted.group).map(|name| scope.host.gid(&name)).transpose().map_err(missing)?,
    })
}

/// The commit, the directory's store, and if this is a check that had to fetch, where it fetched to.
type Found = (Oid, Option<Store>, Option<Store>);

/// Finds the commit. Nothing is asked of anybody if it is said in full and there already.
fn find(
    wanted: &GitCheckout,
    commit: Option<Oid>,
    max_bytes: u64,
    store: Option<Store>,
    scope: &mut Scope<'_>,
) -> Result<Found, Done> {
    let is_there = |commit: Oid| store.as_ref().is_some_and(|store| store.has(commit));
    if let Some(commit) = commit.filter(|commit| is_there(*commit)) {
        return Ok((commit, store, None));
    }
    let remote = Remote::new(wanted, max_bytes, scope)?;
    let what = match commit {
        Some(commit) => commit.to_string(),
        None => {
            let name = if wanted.r#ref.is_empty() { "HEAD" } else { &wanted.r#ref };
            let (full, commit) = remote.resolve(name, scope)?;
            if is_there(commit) {
                return Ok((commit, store, None));
            }
            full
        }
    };
    let fetch = |into: &Store, scope: &mut Scope<'_>| -> Result<Oid, Done> {
        remote.fetch(&what, into, scope)?;
        let fetched = into.fetched()?;
        if commit.is_some_and(|commit| commit != fetched) {
            return Err(Done::failed("RefNotFound", format!("ref {what}: it is the name of no commit")));
        }
        Ok(fetched)
    };
    if scope.check {
        let temporary = scope.host.temporary_git_store()?;
        return Ok((fetch(&temporary, scope)?, store, Some(temporary)));
    }
    let made = scope.host.git_store(&wanted.path, Some(&mut *scope.unsynced))?;
    let made = made.expect("invariant: it is made if it is not there");
    Ok((fetch(&made, scope)?, Some(made), None))
}

/// In a check an earlier task may bring what was missing: the program, the network, the server.
fn judged(done: Done, scope: &Scope<'_>) -> Done {
    match done.outcome {
        Outcome::Failed if scope.check && scope.unsettled => {
            Done::new(Outcome::Unpredicted, format!("unless an earlier task mends it: {}", done.message), [])
        }
        _ => done,
    }
}
