//! The actions on systemd's units. Knows what a book may ask of a unit and how its end is told; how systemd is asked is
//! the host's business.

mod plan;
mod rooted;

use std::collections::BTreeMap;
use std::time::Instant;

use lockstep_apis::v1alpha::{
    ServiceDisabled, ServiceEnabled, ServiceMasked, ServiceReloaded, ServiceRestarted, ServiceRunning, ServiceStopped,
    Value,
};

use crate::action::{Action, Diff, Done, Outcome, Scope, Stream};
use crate::host::{BOOTED, BusFault, Job, Stop, Stopped, Systemd, Unit};
use crate::parameters::decoded;
use plan::{Activity, Boot, Plan, Step, Wanted};

/// `service.running`.
pub(crate) struct Running;
/// `service.stopped`.
pub(crate) struct StoppedUnit;
/// `service.restarted`.
pub(crate) struct Restarted;
/// `service.reloaded`.
pub(crate) struct Reloaded;
/// `service.enabled`.
pub(crate) struct Enabled;
/// `service.disabled`.
pub(crate) struct Disabled;
/// `service.masked`.
pub(crate) struct Masked;

fn boot(enabled: bool) -> Boot {
    if enabled { Boot::Enabled } else { Boot::Disabled }
}

impl Action for Running {
    fn name(&self) -> &'static str {
        "service.running"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let wanted = decoded(self.name(), parameters).map(|asked: ServiceRunning| Wanted {
            boot: asked.enabled.map(boot),
            unmask: asked.unmask,
            ..Wanted::activity(&asked.name, Activity::Running)
        });
        ended(wanted.and_then(|wanted| perform(&wanted, scope)))
    }
}

impl Action for StoppedUnit {
    fn name(&self) -> &'static str {
        "service.stopped"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let wanted = decoded(self.name(), parameters).map(|asked: ServiceStopped| Wanted {
            boot: asked.enabled.map(boot),
            ..Wanted::activity(&asked.name, Activity::Stopped)
        });
        ended(wanted.and_then(|wanted| perform(&wanted, scope)))
    }
}

impl Action for Restarted {
    fn name(&self) -> &'static str {
        "service.restarted"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let wanted = decoded(self.name(), parameters)
            .map(|asked: ServiceRestarted| Wanted::activity(&asked.name, Activity::Restarted));
        ended(wanted.and_then(|wanted| perform(&wanted, scope)))
    }
}

impl Action for Reloaded {
    fn name(&self) -> &'static str {
        "service.reloaded"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let wanted = decoded(self.name(), parameters).map(|asked: ServiceReloaded| {
            Wanted::activity(&asked.name, Activity::Reloaded { or_restarted: asked.or_restart })
        });
        ended(wanted.and_then(|wanted| perform(&wanted, scope)))
    }
}

impl Action for Enabled {
    fn name(&self) -> &'static str {
        "service.enabled"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let wanted = decoded(self.name(), parameters)
            .map(|asked: ServiceEnabled| Wanted { unmask: asked.unmask, ..Wanted::boot(&asked.name, Boot::Enabled) });
        ended(wanted.and_then(|wanted| perform(&wanted, scope)))
    }
}

impl Action for Disabled {
    fn name(&self) -> &'static str {
        "service.disabled"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let wanted = decoded(self.name(), parameters)
            .map(|asked: ServiceDisabled| Wanted { unmask: asked.unmask, ..Wanted::boot(&asked.name, Boot::Disabled) });
        ended(wanted.and_then(|wanted| perform(&wanted, scope)))
    }
}

impl Action for Masked {
    fn name(&self) -> &'static str {
        "service.masked"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        let wanted =
            decoded(self.name(), parameters).map(|asked: ServiceMasked| Wanted::boot(&asked.name, Boot::Masked));
        ended(wanted.and_then(|wanted| perform(&wanted, scope)))
    }
}

fn ended(done: Result<Done, Done>) -> Done {
    done.unwrap_or_else(|done| done)
}

fn perform(wanted: &Wanted, scope: &mut Scope<'_>) -> Result<Done, Done> {
    if scope.host.root().is_some() {
        return rooted::perform(wanted, scope);
    }
    if !scope.host.kernel_path_exists(BOOTED) {
        return Err(Done::failed("NoSystemd", format!("systemd does not run this node ({BOOTED} is missing)")));
    }
    let stop = Stop {
        cancel: scope.cancel,
        deadline: scope.timeout.map(|timeout| Instant::now() + timeout),
        grace: scope.grace,
    };
    let look = |name: String| scope.host.on_bus(&stop, |bus| async move { Systemd(bus).unit(&name).await });
    let unit = look(wanted.name.clone()).map_err(|fault| told(fault, scope))?;
    let plan = match plan::plan(wanted, &unit) {
        Err(plan::Refusal::NoSuchUnit) => return Err(unknown(wanted, &stop, scope)),
        plan => plan.map_err(|refusal| Done::failed(refusal.reason(), refusal.sentence(&unit.id)))?,
    };
    if !scope.check {
        for step in &plan.steps {
            take(*step, &unit.id, &stop, scope)?;
        }
        if plan.steps.iter().any(|step| matches!(step, Step::Job(job) if *job != Job::Stop)) {
            let now = look(unit.id.clone()).map_err(|fault| told(fault, scope))?;
            if now.active == "failed" {
                return Err(unsuccessful("failed", &now, &stop, scope));
            }
        }
    }
    Ok(shown(&unit, &plan, scope))
}

/// The end of a task whose steps were taken, or would be.
fn shown(unit: &Unit, plan: &Plan, scope: &Scope<'_>) -> Done {
    let result = [("name", unit.id.as_str().into()), ("was", unit.active.as_str().into())];
    if plan.steps.is_empty() {
        return Done::new(Outcome::Ok, "", result);
    }
    let mut done = Done::new(Outcome::Changed, plan.summary(), result);
    done.diff = scope.diff.then(|| Diff { path: unit.id.clone(), text: plan.lines(&unit.id) });
    done
}

fn take(step: Step, name: &str, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Done> {
    match step {
        Step::ReadFiles => scope
            .host
            .on_bus(stop, |bus| async move { Systemd(bus).reload().await })
            .map_err(|fault| told(fault, scope)),
        Step::Files(change) => scope
            .host
            .on_bus(stop, |bus| async move { Systemd(bus).change_files(name, change).await })
            .map_err(|fault| told(fault, scope)),
        Step::Job(job) => do_job(job, name, stop, scope),
    }
}

fn do_job(job: Job, name: &str, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Result<(), Done> {
    let mut begun = None;
    let ended = {
        let begun = &mut begun;
        scope.host.on_bus(stop, |bus| async move { Systemd(bus).job(name, job, begun).await })
    };
    match ended {
        Ok(result) if result == "done" => Ok(()),
        Ok(result) => {
            let unit = scope.host.on_bus(stop, |bus| async move { Systemd(bus).unit(name).await });
            Err(unsuccessful(&result, &unit.unwrap_or_default(), stop, scope))
        }
        Err(fault) => {
            if let (BusFault::Stopped(_), Some(job)) = (&fault, begun) {
                take_back(&job, scope);
            }
            Err(told(fault, scope))
        }
    }
}

/// Ends a job that nobody waits for longer. Best effort: the task's own end is what is told.
fn take_back(job: &str, scope: &Scope<'_>) {
    let Ok(unthrown) = crate::action::Cancel::new() else { return };
    let stop = Stop { cancel: &unthrown, deadline: Some(Instant::now() + scope.grace), grace: scope.grace };
    let _ = scope.host.on_bus(&stop, |bus| async move { Systemd(bus).cancel(job).await });
}

/// What became of a unit that did not come to what was asked, with the last it said.
fn unsuccessful(result: &str, unit: &Unit, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Done {
    let how = scope.host.on_bus(stop, |bus| async move { Ok(Systemd(bus).result(unit).await) });
    let how = how.ok().flatten().map(|how| format!(" ({how})")).unwrap_or_default();
    let last = if scope.sensitive { None } else { last_line(unit, stop, scope) };
    let last = last.map(|line| format!(": {line}")).unwrap_or_default();
    let reason = if result == "timeout" { "TimedOut" } else { "UnitFailed" };
    let text = match result {
        "dependency" => "a unit that it needs failed".to_owned(),
        "canceled" => "another job took its place".to_owned(),
        "timeout" => "it was not ready in its own time (TimeoutStartSec)".to_owned(),
        _ => format!("it is {}{how}{last}", unit.active),
    };
    Done::failed(reason, format!("{}: {text}", unit.id))
}

/// Prints what the unit logged since its last start, and returns the last line.
fn last_line(unit: &Unit, stop: &Stop<'_>, scope: &mut Scope<'_>) -> Option<String> {
    let argv = unit.last_lines()?;
    let mut printed = Vec::new();
    let output = &mut *scope.output;
    let mut reader = |stream: Stream, bytes: &[u8]| {
        if stream == Stream::Stdout {
            printed.extend_from_slice(bytes);
            output(Stream::Stderr, bytes);
        }
    };
    crate::command::run_with(&argv, const { &BTreeMap::new() }, stop, scope.host, &mut reader).ok()?;
    let printed = String::from_utf8_lossy(&printed);
    printed.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

/// A unit that is not there: in a check, an earlier task may bring it.
fn unknown(wanted: &Wanted, stop: &Stop<'_>, scope: &Scope<'_>) -> Done {
    if scope.check {
        let message = format!("unless an earlier task brings it: there is no unit {}", wanted.name);
        return Done::new(Outcome::Unpredicted, message, []);
    }
    let suffix = wanted.name.rsplit_once('.').map(|(_, suffix)| format!(".{suffix}")).unwrap_or_default();
    let names = scope.host.on_bus(stop, |bus| async move { Systemd(bus).names(&suffix).await }).unwrap_or_default();
    let near = lockstep_apis::nearest::nearest(&wanted.name, names.iter().map(String::as_str));
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Done::failed("NoSuchUnit", format!("there is no unit {} on this node{near}", wanted.name))
}

/// A fault of the bus, as a task's end.
fn told(fault: BusFault, scope: &Scope<'_>) -> Done {
    match fault {
        BusFault::Stopped(Stopped::Cancelled) => {
            Done::new(Outcome::Cancelled, "cancelled", [("reason", "Cancelled".into())])
        }
        BusFault::Stopped(Stopped::TimedOut) => {
            let limit = lockstep_apis::duration::format(scope.timeout.unwrap_or_default().as_millis() as u64);
            Done::failed("TimedOut", format!("not done after {limit}"))
        }
        BusFault::Absent { .. } => Done::failed("NoSystemd", fault),
        BusFault::Refused { ref name, .. } if name.ends_with(".UnitMasked") => Done::failed("UnitMasked", fault),
        fault => Done::failed(fault.reason(), fault),
    }
}
