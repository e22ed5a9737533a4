//! `lockstep doctor`: looks at all that must be right for the tool and the cluster to work, and says what to do about
//! what is not. Changes nothing.

use super::get;
use crate::{
    cli::Global,
    context::{Context, Session},
    error::{Error, Result},
    render::{
        findings::{self, Finding, Weight},
        names::compact,
        plural, safe,
        screen::Screen,
        table::age,
    },
};
use lockstep_apis::v1alpha::{Lock, Node, Object, StatusRequest, StatusResponse, object::Kind as Message};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A certificate that ends so soon was not renewed when it should have been.
const ENDS_SOON_MS: u64 = 3 * 24 * 3_600_000;

/// Certificates of nodes live 24 h, and are renewed 8 h before they end: clocks may differ by minutes, not by hours.
const SKEW_NOTED_MS: u64 = 2_000;
const SKEW_MS: u64 = 60_000;

/// Less free room than this part of a disk is little: etcd and the embedded store need it to clear up.
const LITTLE_ROOM: u64 = 10;

/// One server gets this long to answer.
const PATIENCE: Duration = Duration::from_secs(6);

/// Looks, tells, and ends with 1 if there is a problem, with 5 if no server answers.
pub(crate) async fn doctor(global: &Global) -> Result<()> {
    let context = Context::load(global)?;
    let mut found = of_context(&context);
    let mut answers = Vec::new();
    for address in context.servers() {
        match status_of(&context, address).await {
            Ok((answer, skew_ms)) => {
                found.extend(of_server(address, &answer, skew_ms));
                answers.push(answer);
            }
            Err(error) => found.push(Finding::problem(
                "server",
                format!("{address} does not answer: {}", reason(&error, address)),
                "Is the machine up? `systemctl status lockstepd` and `journalctl -u lockstepd` there tell more. A server \
                 that is gone for good may be taken out of the context's file.",
            )),
        }
    }
    if let Some(answer) = answers.first() {
        found.extend(of_cluster(answer, &answers));
        found.extend(of_objects(&context.connect().await?).await?);
    }
    print!("{}", findings::all(&found, Screen::stdout()));
    if answers.is_empty() {
        return Err(Error::Unreachable("none of the context's servers answers".into()));
    }
    if found.iter().any(|finding| finding.weight == Weight::Problem) { Err(Error::Differs) } else { Ok(()) }
}

fn of_context(context: &Context) -> Vec<Finding> {
    let file = context.file();
    let shown = file.display();
    let mut found = Vec::new();
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    found.push(match mode & 0o077 {
        0 => Finding::good("context", format!("{}, {shown}", context.name())),
        _ => Finding::problem(
            "context",
            format!("{shown} holds your key, and others may read it (mode {mode:03o})"),
            format!("chmod 600 {shown}; then `lockstep context renew`, if somebody else may have read it."),
        ),
    });
    if !is_writable(file) {
        found.push(Finding::note(
            "context",
            format!("{shown} cannot be replaced"),
            "New addresses of servers and your next certificate cannot be kept: make its folder writable for you.",
        ));
    }
    found.push(match context.validity() {
        Err(error) => Finding::problem(
            "certificate",
            format!("yours cannot be read: {error}"),
            "Take the context's file from a backup, or ask another admin for a new one.",
        ),
        Ok(validity) => of_certificate(validity.until_ms, now_ms()),
    });
    if context.servers().is_empty() {
        found.push(Finding::problem("server", "the context names none", "Write host:port of one under `servers`."));
    }
    found
}

fn of_certificate(until_ms: u64, now_ms: u64) -> Finding {
    let seconds = |ms: u64| age(i64::try_from(ms / 1000).unwrap_or(i64::MAX));
    match until_ms.checked_sub(now_ms) {
        None => Finding::problem(
            "certificate",
            format!("yours ended {} ago", seconds(now_ms - until_ms)),
            "Ask another admin for a new context. If this machine's clock is wrong, set it.",
        ),
        Some(left) if left < ENDS_SOON_MS => Finding::problem(
            "certificate",
            format!("yours ends in {}", seconds(left)),
            "`lockstep context renew` gets the next one; the context's file must be writable.",
        ),
        Some(left) => Finding::good("certificate", format!("yours ends in {}", seconds(left))),
    }
}

/// Whether the file can be replaced by another in its folder.
fn is_writable(file: &Path) -> bool {
    let Ok(file) = fs::canonicalize(file) else { return false };
    let beside = file.with_extension(format!("doctor.{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&beside).is_ok();
    made && fs::remove_file(&beside).is_ok()
}

/// What one server says of itself, and by how much its clock differs from ours.
async fn status_of(context: &Context, address: &str) -> Result<(StatusResponse, i64)> {
    let asked = async {
        let session = context.connect_to(address).await?;
        let before = now_ms();
        let answer = session.cluster().status(StatusRequest {}).await?.into_inner();
        // It looked at its clock somewhere between.
        let ours = i64::try_from(before + (now_ms() - before) / 2).unwrap_or(i64::MAX);
        let skew = i64::try_from(answer.now_ms).unwrap_or(i64::MAX).saturating_sub(ours);
        Ok((answer, skew))
    };
    let late = |_| Error::Unreachable(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
}

fn of_server(address: &str, answer: &StatusResponse, skew_ms: i64) -> Vec<Finding> {
    let mut found = vec![Finding::good("server", format!("{address} answers, version {}", answer.version))];
    let skew = skew_ms.unsigned_abs();
    if skew > SKEW_NOTED_MS {
        let way = if skew_ms > 0 { "ahead of" } else { "behind" };
        let text = format!("{address} is {} s {way} this machine", skew / 1000);
        let advice = "Certificates and schedules go by the clock: let both be set by NTP (`timedatectl` tells).";
        found.push(match skew > SKEW_MS {
            true => Finding::problem("clock", text, advice),
            false => Finding::note("clock", text, advice),
        });
    }
    if let Some(percent) = answer.disk_free_bytes.saturating_mul(100).checked_div(answer.disk_total_bytes) {
        let text = format!("{address} has {percent} % of its disk free, {} MiB", answer.disk_free_bytes >> 20);
        found.push(match percent < LITTLE_ROOM {
            true => Finding::problem(
                "disk",
                text,
                "Make room on the file system with /var/lib/lockstep: without any, nothing can be stored.",
            ),
            false => Finding::good("disk", text),
        });
    }
    if answer.version != env!("CARGO_PKG_VERSION") {
        found.push(Finding::note(
            "version",
            format!("{address} is {}, this tool is {}", answer.version, env!("CARGO_PKG_VERSION")),
            "Use the tool of the servers' version.",
        ));
    }
    found
}

fn of_cluster(answer: &StatusResponse, answers: &[StatusResponse]) -> Vec<Finding> {
    let mut found = Vec::new();
    let leader = answer.leader.clone().unwrap_or_default();
    found.push(match leader.server_name.is_empty() {
        true => Finding::problem(
            "leader",
            "nobody leads: nothing new starts",
            "Wait half a minute; then look whether the store answers: `journalctl -u lockstepd` on a server, \
             `etcdctl endpoint health`.",
        ),
        false => Finding::good("leader", leader.server_name),
    });
    found.push(match (answer.store.as_str(), answer.servers.len()) {
        ("embedded", _) => Finding::note(
            "store",
            "embedded in the only server: while that is down, nothing starts",
            "For a cluster that bears the loss of a machine, make it with etcd and three servers.",
        ),
        (store, 1) => Finding::note("store", format!("{store}, and one server is up"), "Join two more with --server."),
        (store, servers) => Finding::good("store", format!("{store}, {servers} servers are up")),
    });
    let same = |answer: &StatusResponse| answer.cluster.as_ref().map(|cluster| cluster.cluster_id.clone());
    if answers.iter().any(|other| same(other) != same(answer)) {
        found.push(Finding::problem(
            "server",
            "the context's servers are of several clusters",
            "A store was restored or exchanged under one of them: stop that server.",
        ));
    }
    found
}

async fn of_objects(session: &Session) -> Result<Vec<Finding>> {
    let (nodes, _) = get::list(session, get::kind("Node")?, "", "").await?;
    let nodes = nodes.into_iter().filter_map(|object| match object.kind {
        Some(Message::Node(node)) => Some(node),
        _ => None,
    });
    let mut found = of_nodes(&nodes.collect::<Vec<_>>());
    let (locks, _) = get::list(session, get::kind("Lock")?, "", "").await?;
    found.extend(locks.iter().filter_map(poisoned));
    let (runs, _) = get::list(session, get::kind("Run")?, "", "").await?;
    found.extend(runs.iter().filter_map(holds));
    Ok(found)
}

fn of_nodes(nodes: &[Node]) -> Vec<Finding> {
    let mut away: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut versions: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let (mut cordoned, mut owing) = (Vec::new(), Vec::new());
    for node in nodes {
        let name = node.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        let status = node.status.clone().unwrap_or_default();
        match status.liveness.as_str() {
            "Ready" => {}
            "" => away.entry("NeverSeen".into()).or_default().push(name),
            state => away.entry(state.to_owned()).or_default().push(name),
        }
        if !status.version.is_empty() && status.version != env!("CARGO_PKG_VERSION") {
            versions.entry(safe(&status.version, 20)).or_default().push(name);
        }
        if node.spec.as_ref().is_some_and(|spec| spec.unschedulable) {
            cordoned.push(name);
        }
        if !status.owed_handlers.is_empty() {
            owing.push(name);
        }
    }
    let ready = nodes.len() - away.values().map(Vec::len).sum::<usize>();
    let total = plural(u32::try_from(nodes.len()).unwrap_or(u32::MAX), "node");
    let mut found = vec![Finding::good("nodes", format!("{ready} of {total} ready"))];
    found.extend(away.iter().map(|(state, names)| {
        let advice = "`lockstep why node/NAME` tells what waits for it; `systemctl status lockstepd` there, why it is \
                      away. One that is gone for good: `lockstep delete node NAME`.";
        Finding::problem("nodes", format!("{state}: {}", compact(names)), advice)
    }));
    found.extend(versions.iter().map(|(version, names)| {
        let text = format!("{version} on {}; this tool is {}", compact(names), env!("CARGO_PKG_VERSION"));
        Finding::note("version", text, "Install the same version everywhere: servers first, then nodes.")
    }));
    if !cordoned.is_empty() {
        let text = format!("cordoned: {}", compact(&cordoned));
        found.push(Finding::note("nodes", text, "New Runs skip them until `lockstep uncordon NAME`."));
    }
    if !owing.is_empty() {
        let text = format!("handlers were notified and could not run: {}", compact(&owing));
        found.push(Finding::note("nodes", text, "`lockstep retry` of the Run that failed does them."));
    }
    found
}

fn poisoned(object: &Object) -> Option<Finding> {
    let Some(Message::Lock(Lock { metadata: Some(metadata), status: Some(status), .. })) = &object.kind else {
        return None;
    };
    let poison = status.poison.as_ref()?;
    let (namespace, name) = (&metadata.namespace, &metadata.name);
    Some(Finding::problem(
        "locks",
        format!("lock/{name} in {namespace} is poisoned: {}", safe(&poison.message, 200)),
        format!("Nobody gets it. Mend what the failed Run left, then `lockstep -n {namespace} locks clear {name}`."),
    ))
}

fn holds(object: &Object) -> Option<Finding> {
    let Some(Message::Run(run)) = &object.kind else { return None };
    let (metadata, status) = (run.metadata.as_ref()?, run.status.as_ref()?);
    if status.held_nodes.is_empty() {
        return None;
    }
    let names: Vec<&str> = status.held_nodes.iter().map(String::as_str).collect();
    let (namespace, name) = (&metadata.namespace, &metadata.name);
    Some(Finding::problem(
        "runs",
        format!("run/{name} in {namespace} has ended, and still holds the places of {}", compact(&names)),
        format!("They are free when the node reports, or with `lockstep -n {namespace} release {name} NODE`."),
    ))
}

/// The error's first line, without what is said beside it.
fn reason(error: &Error, address: &str) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("no server reached: ");
    line.strip_prefix(address).map_or(line, |rest| rest.trim_start_matches(": ")).to_owned()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(found: &[Finding]) -> Vec<Weight> {
        found.iter().map(|finding| finding.weight).collect()
    }

    #[test]
    fn a_certificate_is_told_before_it_ends() {
        let day = 24 * 3_600_000;
        assert_eq!(of_certificate(30 * day, day).weight, Weight::Good);
        assert_eq!(of_certificate(3 * day, day).weight, Weight::Problem);
        assert!(of_certificate(day, 3 * day).text.contains("ended 2d ago"));
    }

    #[test]
    fn a_servers_clock_disk_and_version_are_judged() {
        let answer = |free| StatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            disk_free_bytes: free,
            disk_total_bytes: 100 << 20,
            ..StatusResponse::default()
        };
        use Weight::{Good, Note, Problem};
        assert_eq!(weights(&of_server("a:1", &answer(50 << 20), -900)), [Good, Good]);
        assert_eq!(weights(&of_server("a:1", &answer(5 << 20), 5_000)), [Good, Note, Problem]);
        let old = StatusResponse { version: "0.0.0".into(), ..StatusResponse::default() };
        let found = of_server("a:1", &old, -120_000);
        assert_eq!(weights(&found), [Good, Problem, Note]);
        assert!(found[1].text.contains("120 s behind this machine"), "{}", found[1].text);
    }

    #[test]
    fn nodes_that_are_away_are_told_together() {
        let node = |name: &str, liveness: &str| Node {
            metadata: Some(lockstep_apis::v1alpha::Metadata { name: name.into(), ..Default::default() }),
            status: Some(lockstep_apis::v1alpha::NodeStatus { liveness: liveness.into(), ..Default::default() }),
            ..Node::default()
        };
        let mut nodes: Vec<Node> = (1..=4).map(|n| node(&format!("w{n}"), "Lost")).collect();
        nodes.push(node("db", "Ready"));
        let found = of_nodes(&nodes);
        assert_eq!((found[0].text.as_str(), found[1].text.as_str()), ("1 of 5 nodes ready", "Lost: w[1-4]"));
    }
}
