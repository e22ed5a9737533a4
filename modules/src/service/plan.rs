//! From what a book asks of a unit and what is there to the steps between. Pure.

use crate::host::{Files, Job, Unit};

/// What a book asks for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// With its suffix.
    pub(super) name: String,
    pub(super) activity: Option<Activity>,
    pub(super) boot: Option<Boot>,
    pub(super) unmask: bool,
}

/// What it should be doing, or should now do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Running,
    Stopped,
    Restarted,
    Reloaded { or_restarted: bool },
}

/// What its files should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    Enabled,
    Disabled,
    Masked,
}

impl Wanted {
    pub(super) fn activity(name: &str, activity: Activity) -> Wanted {
        Wanted { name: full(name), activity: Some(activity), boot: None, unmask: false }
    }

    pub(super) fn boot(name: &str, boot: Boot) -> Wanted {
        Wanted { name: full(name), activity: None, boot: Some(boot), unmask: false }
    }
}

/// The suffixes that units have.
const SUFFIXES: [&str; 11] =
    ["service", "socket", "target", "timer", "path", "mount", "automount", "swap", "slice", "scope", "device"];

/// A name with its suffix: `web` is `web.service`, as for systemctl.
fn full(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((_, suffix)) if SUFFIXES.contains(&suffix) => name.to_owned(),
        _ => format!("{name}.service"),
    }
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// systemd reads the unit files again.
    ReadFiles,
    Files(Files),
    Job(Job),
}

/// What to do, in order; nothing if all is as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
}

impl Plan {
    /// What it does, in a few words.
    pub(super) fn summary(&self) -> String {
        self.words().collect::<Vec<_>>().join(", ")
    }

    /// What it does, line by line.
    pub(super) fn lines(&self, name: &str) -> String {
        self.words().map(|word| format!("{name}: {word}\n")).collect()
    }

    fn words(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().filter_map(|step| match step {
            Step::ReadFiles => None,
            Step::Files(Files::Enable) => Some("enabled"),
            Step::Files(Files::Disable) => Some("disabled"),
            Step::Files(Files::Mask) => Some("masked"),
            Step::Files(Files::Unmask) => Some("unmasked"),
            Step::Job(Job::Start) => Some("started"),
            Step::Job(Job::Stop) => Some("stopped"),
            Step::Job(Job::Restart) => Some("restarted"),
            Step::Job(Job::Reload) => Some("reloaded"),
            Step::Job(Job::ReloadOrRestart) => Some("reloaded or restarted"),
        })
    }
}

/// Why there is no way from here to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSuchUnit,
    Masked,
    NotInstallable,
    CannotReload,
    NotRunning,
}

impl Refusal {
    /// The class in one word.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Refusal::NoSuchUnit => "NoSuchUnit",
            Refusal::Masked => "UnitMasked",
            Refusal::NotInstallable => "NotInstallable",
            Refusal::CannotReload => "CannotReload",
            Refusal::NotRunning => "NotRunning",
        }
    }

    /// What is wrong, and what to do.
    pub(super) fn sentence(self, name: &str) -> String {
        match self {
            Refusal::NoSuchUnit => format!("there is no unit {name}"),
            Refusal::Masked => format!("{name} is masked; unmask: true lifts that"),
            Refusal::NotInstallable => {
                format!(
                    "{name} has no [Install] section: it is started by others and cannot be enabled; leave enabled out"
                )
            }
            Refusal::CannotReload => format!("{name} does not know how to reload; set orRestart: true, or restart it"),
            Refusal::NotRunning => {
                format!("{name} does not run, so it cannot reload; set orRestart: true, or start it")
            }
        }
    }
}

/// The steps from what is there to what is asked for.
pub(super) fn plan(wanted: &Wanted, unit: &Unit) -> Result<Plan, Refusal> {
    let mut steps = Vec::new();
    let is_masked = unit.load == "masked" || unit.file.starts_with("masked");
    if unit.load == "not-found" && unit.file.is_empty() && wanted.boot != Some(Boot::Masked) {
        return Err(Refusal::NoSuchUnit);
    }
    if is_masked && wanted.unmask {
        steps.push(Step::Files(Files::Unmask));
    }
    let stays_masked = is_masked && !wanted.unmask;
    if let Some(boot) = wanted.boot {
        steps.extend(change_of_files(boot, &unit.file, stays_masked)?.map(Step::Files));
    }
    if let Some(job) = wanted.activity.map(|activity| job(activity, unit, stays_masked)).transpose()?.flatten() {
        if unit.stale && job != Job::Stop && steps.is_empty() {
            steps.push(Step::ReadFiles);
        }
        steps.push(Step::Job(job));
    }
    Ok(Plan { steps })
}

fn change_of_files(boot: Boot, file: &str, stays_masked: bool) -> Result<Option<Files>, Refusal> {
    Ok(match boot {
        Boot::Masked => (!stays_masked).then_some(Files::Mask),
        Boot::Disabled if stays_masked => None,
        Boot::Enabled if stays_masked => return Err(Refusal::Masked),
        Boot::Enabled => match file {
            // `alias` and `indirect` name units that others of the same file stand for; enabling them changes nothing.
            "enabled" | "alias" | "indirect" => None,
            "static" | "generated" | "transient" => return Err(Refusal::NotInstallable),
            _ => Some(Files::Enable),
        },
        Boot::Disabled => (file.starts_with("enabled") || file.starts_with("linked")).then_some(Files::Disable),
    })
}

fn job(activity: Activity, unit: &Unit, stays_masked: bool) -> Result<Option<Job>, Refusal> {
    let is_active = matches!(unit.active.as_str(), "active" | "reloading");
    if stays_masked && activity != Activity::Stopped && !(activity == Activity::Running && is_active) {
        return Err(Refusal::Masked);
    }
    Ok(match activity {
        Activity::Running => (!is_active).then_some(Job::Start),
        Activity::Stopped => (!matches!(unit.active.as_str(), "inactive" | "failed")).then_some(Job::Stop),
        Activity::Restarted => Some(Job::Restart),
        Activity::Reloaded { or_restarted: true } => Some(Job::ReloadOrRestart),
        Activity::Reloaded { or_restarted: false } if !is_active => return Err(Refusal::NotRunning),
        Activity::Reloaded { or_restarted: false } if !unit.can_reload => return Err(Refusal::CannotReload),
        Activity::Reloaded { or_restarted: false } => Some(Job::Reload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(load: &str, active: &str, file: &str) -> Unit {
        Unit {
            id: "web.service".into(),
            load: load.into(),
            active: active.into(),
            file: file.into(),
            ..Unit::default()
        }
    }

    fn running(enabled: Option<bool>) -> Wanted {
        let boot = enabled.map(super::super::boot);
        Wanted { boot, ..Wanted::activity("web", Activity::Running) }
    }

    #[test]
    fn only_what_differs_is_done() {
        let (start, enable) = (Step::Job(Job::Start), Step::Files(Files::Enable));
        let rows: [(Wanted, Unit, &[Step]); 12] = [
            (running(Some(true)), unit("loaded", "active", "enabled"), &[]),
            (running(None), unit("loaded", "active", "disabled"), &[]),
            (running(Some(true)), unit("loaded", "inactive", "disabled"), &[enable, start]),
            (running(None), unit("loaded", "failed", "static"), &[start]),
            (running(Some(true)), unit("loaded", "active", "enabled-runtime"), &[enable]),
            (running(Some(false)), unit("loaded", "active", "enabled"), &[Step::Files(Files::Disable)]),
            (running(Some(false)), unit("loaded", "active", "static"), &[]),
            (Wanted::activity("web", Activity::Stopped), unit("loaded", "failed", "enabled"), &[]),
            (Wanted::activity("web", Activity::Stopped), unit("loaded", "activating", ""), &[Step::Job(Job::Stop)]),
            (Wanted::boot("web", Boot::Masked), unit("masked", "inactive", "masked"), &[]),
            (Wanted::boot("web", Boot::Masked), unit("not-found", "inactive", ""), &[Step::Files(Files::Mask)]),
            (Wanted::boot("web", Boot::Disabled), unit("masked", "inactive", "masked"), &[]),
        ];
        for (wanted, unit, steps) in rows {
            assert_eq!(plan(&wanted, &unit).map(|plan| plan.steps).as_deref(), Ok(steps), "{wanted:?} {unit:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let reload = |or_restarted| Wanted::activity("web", Activity::Reloaded { or_restarted });
        let rows = [
            (running(None), unit("not-found", "inactive", ""), Refusal::NoSuchUnit),
            (running(None), unit("masked", "inactive", "masked"), Refusal::Masked),
            (running(Some(true)), unit("loaded", "active", "static"), Refusal::NotInstallable),
            (reload(false), unit("loaded", "active", "enabled"), Refusal::CannotReload),
            (reload(false), unit("loaded", "inactive", "enabled"), Refusal::NotRunning),
            (Wanted::boot("web", Boot::Enabled), unit("masked", "inactive", "masked"), Refusal::Masked),
        ];
        for (wanted, unit, refusal) in rows {
            assert_eq!(plan(&wanted, &unit), Err(refusal), "{wanted:?} {unit:?}");
        }
    }

    #[test]
    fn changed_unit_files_are_read_before_a_start_but_not_for_nothing() {
        let mut stale = unit("loaded", "inactive", "enabled");
        stale.stale = true;
        let started = plan(&running(None), &stale).unwrap();
        assert_eq!(started.steps, [Step::ReadFiles, Step::Job(Job::Start)]);
        assert_eq!(started.summary(), "started");
        stale.active = "active".into();
        assert_eq!(plan(&running(None), &stale).unwrap().steps, []);
    }

    #[test]
    fn a_name_without_a_units_suffix_is_a_service() {
        assert_eq!(full("web"), "web.service");
        assert_eq!(full("php8.2-fpm"), "php8.2-fpm.service");
        assert_eq!(full("apt-daily.timer"), "apt-daily.timer");
        assert_eq!(full("getty@tty1"), "getty@tty1.service");
    }
}
