//! Where a repository comes from: the program git asks and fetches. Every option that could run something, follow
//! something or ask a person is off; secrets are handed over as files in memory.

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use git2::Oid;
use lockstep_apis::v1alpha::GitCheckout;

use crate::action::{Done, Outcome, Scope, Stream};
use crate::command;
use crate::host::{Ending, FETCHED, InMemory, Stop, Stopped, Store};

/// What `ulimit -f` counts in.
const BLOCK: u64 = 512;

/// What of git's output is kept.
const PRINTED: usize = 1 << 20;

/// Set for every call. Hooks, helpers and other transports are off; nothing beyond what is asked for is fetched.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    // All in one file, so that a limit on files is one on what is fetched.
    "fetch.unpackLimit=1",
    "gc.auto=0",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "http.proxy=",
    "http.sslVerify=true",
    "maintenance.auto=false",
    "protocol.allow=never",
    "transfer.bundleURI=false",
];

/// How to talk to the repository's server.
pub(super) struct Remote {
    url: String,
    scheme: String,
    settings: Vec<String>,
    ssh: String,
    max_bytes: u64,
    /// Held while git may read them.
    _files: Vec<InMemory>,
}

impl Remote {
    pub(super) fn new(wanted: &GitCheckout, max_bytes: u64, scope: &Scope<'_>) -> Result<Remote, Done> {
        let failed = |error: std::io::Error| Done::failed("Failed", format!("no file in memory: {error}"));
        let scheme = wanted.url.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let mut remote = Remote {
            url: wanted.url.clone(),
            settings: vec![format!("protocol.{scheme}.allow=always")],
            ssh: "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=30".to_owned(),
            scheme,
            max_bytes,
            _files: Vec::new(),
        };
        if !wanted.password.is_empty() {
            let user = if wanted.username.is_empty() { "git" } else { &wanted.username };
            let token = STANDARD.encode(format!("{user}:{}", wanted.password));
            let origin: Vec<&str> = wanted.url.splitn(4, '/').take(3).collect();
            let text = format!("[http \"{}/\"]\n\textraHeader = \"Authorization: Basic {token}\"\n", origin.join("/"));
            let path = remote.hand(&text).map_err(failed)?;
            remote.settings.push(format!("include.path={path}"));
        }
        if !wanted.ca_file.is_empty() {
            remote.settings.push(format!("http.sslCAInfo={}", scope.host.outside(&wanted.ca_file)));
        }
        if !wanted.known_hosts.is_empty() {
            let path = remote.hand(&format!("{}\n", wanted.known_hosts)).map_err(failed)?;
            remote.ssh.push_str(&format!(" -oUserKnownHostsFile={path} -oGlobalKnownHostsFile=/dev/null"));
        }
        if !wanted.ssh_key.is_empty() {
            let path = remote.hand(&format!("{}\n", wanted.ssh_key.trim_end())).map_err(failed)?;
            remote.ssh.push_str(&format!(" -oIdentitiesOnly=yes -i {path}"));
        }
        Ok(remote)
    }

    fn hand(&mut self, text: &str) -> std::io::Result<String> {
        let file = InMemory::new(text.as_bytes())?;
        let path = file.path();
        self._files.push(file);
        Ok(path)
    }

    /// The full name of what `name` stands for, and the commit that it is at.
    pub(super) fn resolve(&self, name: &str, scope: &mut Scope<'_>) -> Result<(String, Oid), Done> {
        let candidates = match name {
            "HEAD" => vec!["HEAD".to_owned()],
            full if full.starts_with("refs/") => vec![full.to_owned()],
            name => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        };
        let mut arguments = vec!["ls-remote".to_owned(), "--".to_owned(), self.url.clone()];
        arguments.extend(candidates.iter().flat_map(|name| [name.clone(), format!("{name}^{{}}")]));
        let said = self.git(&arguments, scope)?;
        let found: BTreeMap<&str, Oid> = said
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(id, name)| Some((name, Oid::from_str(id).ok()?)))
            .collect();
        let mut there = candidates.iter().filter(|name| found.contains_key(name.as_str()));
        match (there.next(), there.next()) {
            (Some(one), None) => {
                // Of an annotated tag, the commit that it tags.
                let commit = found.get(format!("{one}^{{}}").as_str()).or_else(|| found.get(one.as_str()));
                Ok((one.clone(), *commit.expect("invariant: it was found")))
            }
            (Some(one), Some(other)) => {
                let message = format!("{name} is both {one} and {other}; write the one that is meant");
                Err(Done::failed("AmbiguousRef", message))
            }
            _ => {
                let hint = match name {
                    "HEAD" => "is empty, or has no default branch",
                    _ => "has no such branch or tag; a commit is written with all its 40 digits",
                };
                Err(Done::failed("RefNotFound", format!("ref {name}: {} {hint}", self.url)))
            }
        }
    }

    /// Fetches one commit, without those before it, into the store.
    pub(super) fn fetch(&self, what: &str, store: &Store, scope: &mut Scope<'_>) -> Result<(), Done> {
        store.sweep();
        let mut arguments = vec![format!("--git-dir={}", store.path().display())];
        let options = ["fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--depth=1", "--"];
        arguments.extend(options.map(str::to_owned));
        arguments.extend([self.url.clone(), format!("+{what}:{FETCHED}")]);
        let fetched = self.git(&arguments, scope);
        // Who writes beyond the limit is killed, and says nothing.
        let is_full = store.partial_bytes().saturating_add(BLOCK) >= self.max_bytes;
        match fetched {
            Err(_) if is_full => {
                store.sweep();
                let message =
                    format!("{} is larger than {} bytes; raise maxBytes if it is meant", self.url, self.max_bytes);
                Err(Done::failed("RepositoryTooLarge", message))
            }
            fetched => fetched.map(|_| ()),
        }
    }

    /// Runs git to its end; what it printed.
    fn git(&self, arguments: &[String], scope: &mut Scope<'_>) -> Result<String, Done> {
        let settings = SETTINGS.iter().map(|setting| (*setting).to_owned()).chain(self.settings.iter().cloned());
        let settings = settings.flat_map(|setting| ["-c".to_owned(), setting]);
        // The shell only sets the limit on the size of files, then it is git.
        let limit = ["/bin/sh", "-c", "ulimit -f \"$1\" && shift && exec git \"$@\"", "git"].map(str::to_owned);
        let blocks = (self.max_bytes / BLOCK).saturating_add(1).to_string();
        let argv: Vec<String> =
            limit.into_iter().chain([blocks]).chain(settings).chain(arguments.iter().cloned()).collect();
        run(&argv, &self.environment(scope), &self.url, scope)
    }

    fn environment(&self, scope: &Scope<'_>) -> BTreeMap<String, String> {
        let set = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_SSH_VARIANT", "ssh"),
            ("GIT_SSH_COMMAND", &self.ssh),
            ("GIT_ALLOW_PROTOCOL", &self.scheme),
        ];
        let path = scope.environment.get("PATH").map(|path| ("PATH", path.as_str()));
        set.into_iter().chain(path).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Makes one pack of what the directory has, and drops the rest.
pub(super) fn tidy(store: &Store, scope: &mut Scope<'_>) -> Result<(), Done> {
    let path = store.path().display().to_string();
    let argv = ["git", "--git-dir", &path, "-c", "core.hooksPath=/dev/null", "gc", "--quiet", "--prune=now"];
    let set = [("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")];
    let environment = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    run(&argv.map(str::to_owned), &environment, &path, scope).map(|_| ())
}

fn run(
    argv: &[String],
    environment: &BTreeMap<String, String>,
    about: &str,
    scope: &mut Scope<'_>,
) -> Result<String, Done> {
    let deadline = scope.timeout.map(|timeout| Instant::now() + timeout);
    let stop = Stop { cancel: scope.cancel, deadline, grace: scope.grace };
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let output = &mut *scope.output;
    let ended = command::run_with(argv, environment, &stop, scope.host, &mut |stream, bytes| {
        let kept = if stream == Stream::Stdout { &mut printed } else { &mut said };
        kept.extend_from_slice(&bytes[..bytes.len().min(PRINTED.saturating_sub(kept.len()))]);
        if stream == Stream::Stderr {
            output(stream, bytes);
        }
    })?;
    match (ended.stopped, ended.ending) {
        (Some(Stopped::Cancelled), _) => {
            Err(Done::new(Outcome::Cancelled, "cancelled", [("reason", "Cancelled".into())]))
        }
        (Some(Stopped::TimedOut), _) => {
            let limit = lockstep_apis::duration::format(scope.timeout.unwrap_or_default().as_millis() as u64);
            Err(Done::failed("TimedOut", format!("{about} did not answer within {limit}")))
        }
        (None, Ending::Exit(0)) => Ok(String::from_utf8_lossy(&printed).into_owned()),
        (None, ending) => Err(told(&String::from_utf8_lossy(&said), ending, about)),
    }
}

/// What git's words mean, and what to do. In the order in which they are looked for: first match.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("exec: git: not found", "GitMissing", "this node has no program git; install it, with package.installed: git"),
    (
        "No such file or directory: git",
        "GitMissing",
        "this node has no program git; install it, with package.installed: git",
    ),
    ("No space left", "NoSpace", "no space is left for what is fetched"),
    ("Host key verification failed", "HostKeyUnknown", "the server's key is not the one in knownHosts, or not known"),
    ("Permission denied", "AuthenticationFailed", "the server does not take this key; look at sshKey"),
    ("Authentication failed", "AuthenticationFailed", "the server does not take username and password"),
    ("could not read Username", "AuthenticationFailed", "the server wants username and password"),
    ("redirect", "RedirectRefused", "the server redirects, which is not followed; write the new URL"),
    ("returned error: 30", "RedirectRefused", "the server redirects, which is not followed; write the new URL"),
    ("returned error: 40", "AuthenticationFailed", "the server refuses; look at username and password"),
    ("certificate", "TLSFailed", "its certificate is not trusted here; look at caFile"),
    ("remote ref", "RefNotFound", "the server has no such commit, or does not give it out"),
    ("not our ref", "RefNotFound", "the server has no such commit, or does not give it out"),
    ("unadvertised object", "RefNotFound", "the server has no such commit, or does not give it out"),
    ("dubious ownership", "UntrustedDirectory", "it belongs to another user than the one that this runs as"),
    ("not appear to be a git repository", "RepositoryNotFound", "there is no repository"),
    ("not found", "RepositoryNotFound", "there is no repository"),
    ("Could not resolve host", "NameNotResolved", "the name of its host could not be looked up"),
    ("resolve hostname", "NameNotResolved", "the name of its host could not be looked up"),
    ("onnect", "ConnectFailed", "no connection to it"),
    ("fsck error", "BrokenRepository", "it holds what git's check refuses"),
];

fn told(said: &str, ending: Ending, about: &str) -> Done {
    let line = said.lines().find(|line| line.starts_with("fatal:")).or_else(|| said.lines().last());
    let line: String = line.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    match MEANINGS.iter().find(|(words, ..)| said.contains(words)) {
        Some((_, reason, meaning)) => Done::failed(reason, format!("{about}: {meaning} ({line})")),
        None => Done::failed("GitFailed", format!("{about}: git ended with {}: {line}", command::describe(ending))),
    }
}
