//! Units of a root folder: nothing runs there, so only what their files say can be looked after. systemctl does it, as
//! it knows where a unit's links belong.

use std::collections::BTreeMap;
use std::time::Instant;

use super::plan::{self, Activity, Step, Wanted};
use super::{Outcome, shown};
use crate::action::{Done, Scope, Stream};
use crate::command;
use crate::host::{Ending, Files, Stop, Unit};

pub(super) fn perform(wanted: &Wanted, scope: &mut Scope<'_>) -> Result<Done, Done> {
    match wanted.activity {
        None => {}
        Some(Activity::Running | Activity::Stopped | Activity::Restarted | Activity::Reloaded { .. }) => {
            let sentence = "nothing runs in a root folder; use service.enabled, service.disabled or service.masked";
            return Err(Done::failed("NotInRootFolder", sentence));
        }
    }
    let (file, _) = systemctl("is-enabled", wanted, scope)?;
    // A state is one word; of a unit that has no file there is a sentence.
    let is_there = !file.is_empty() && !file.contains(' ') && file != "not-found";
    let unit = Unit {
        id: wanted.name.clone(),
        load: if is_there { "loaded" } else { "not-found" }.to_owned(),
        active: "inactive".to_owned(),
        file: if is_there { file } else { String::new() },
        ..Unit::default()
    };
    let plan = match plan::plan(wanted, &unit) {
        Err(plan::Refusal::NoSuchUnit) if scope.check => {
            let message = format!("unless an earlier task brings it: there is no unit {}", wanted.name);
            return Ok(Done::new(Outcome::Unpredicted, message, []));
        }
        plan => plan.map_err(|refusal| Done::failed(refusal.reason(), refusal.sentence(&unit.id)))?,
    };
    let steps = if scope.check { &[][..] } else { &plan.steps };
    for step in steps {
        let Step::Files(change) = step else { continue };
        let verb = match change {
            Files::Enable => "enable",
            Files::Disable => "disable",
            Files::Mask => "mask",
            Files::Unmask => "unmask",
        };
        let (said, ending) = systemctl(verb, wanted, scope)?;
        if ending != Ending::Exit(0) {
            let how = command::describe(ending);
            return Err(Done::failed("UnitFailed", format!("systemctl {verb} {} ended with {how}: {said}", unit.id)));
        }
        scope.host.forget();
    }
    Ok(shown(&unit, &plan, scope))
}

/// What it printed last, and how it ended.
fn systemctl(verb: &str, wanted: &Wanted, scope: &mut Scope<'_>) -> Result<(String, Ending), Done> {
    let root = scope.host.outside("");
    let argv = ["systemctl", &format!("--root={root}"), verb, "--", &wanted.name].map(str::to_owned);
    let deadline = scope.timeout.map(|timeout| Instant::now() + timeout);
    let stop = Stop { cancel: scope.cancel, deadline, grace: scope.grace };
    let mut printed = Vec::new();
    let mut reader = |_: Stream, bytes: &[u8]| printed.extend_from_slice(bytes);
    let ended = command::run_with(&argv, const { &BTreeMap::new() }, &stop, scope.host, &mut reader)?;
    if ended.stopped.is_some() {
        return Err(Done::new(Outcome::Cancelled, "cancelled", [("reason", "Cancelled".into())]));
    }
    let printed = String::from_utf8_lossy(&printed);
    let last = printed.lines().rev().find(|line| !line.trim().is_empty());
    Ok((last.unwrap_or_default().trim().to_owned(), ended.ending))
}
