//! `group.present` and `group.absent`.

use lockstep_apis::v1alpha::Value;

use super::{id, name, run};
use crate::action::{Done, Scope};
use crate::host::{Accounts, Host};
use crate::module::{Module, Refusal};
use crate::parameters::Parameters;

/// A group that should be there.
#[derive(Debug)]
pub(super) struct PresentGroup {
    name: String,
    gid: Option<u32>,
    system: bool,
}

impl PresentGroup {
    pub(super) fn read(parameters: &Value) -> Result<PresentGroup, Done> {
        let mut from = Parameters::new(parameters, Some("name"));
        let wanted = PresentGroup { name: name(&mut from), gid: id(&mut from, "gid"), system: from.flag("system") };
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        Ok(wanted)
    }
}

impl Module for PresentGroup {
    /// The accounts there are, and the group's number.
    type Observed = (Accounts, Option<u32>);
    /// From which number, if it is there.
    type Change = Option<u32>;

    fn path(&self) -> &str {
        &self.name
    }

    fn key(&self) -> &'static str {
        "name"
    }

    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal> {
        let accounts = host.read_accounts()?;
        let gid = accounts.gid(&self.name);
        Ok((accounts, gid))
    }

    fn difference(&self, _host: &Host, (accounts, gid): &Self::Observed) -> Result<Option<Option<u32>>, Refusal> {
        if *gid == self.gid.or(*gid) && gid.is_some() {
            return Ok(None);
        }
        if let Some(other) = self.gid.and_then(|gid| accounts.group_name(gid)) {
            let message = format!("the number {} is that of the group {other}", self.gid.unwrap_or_default());
            return Err(Refusal::Module { reason: "IdTaken", message });
        }
        Ok(Some(*gid))
    }

    fn summary(&self, _observed: &Self::Observed, change: &Self::Change) -> String {
        match (change, self.gid) {
            (Some(old), Some(new)) => format!("gid {old} → {new}"),
            _ => "created".to_owned(),
        }
    }

    fn show(&self, _host: &Host, observed: &Self::Observed, change: &Self::Change, _sensitive: bool) -> String {
        format!("group {}: {}\n", self.name, self.summary(observed, change))
    }

    fn apply(&self, _observed: Self::Observed, change: Self::Change, scope: &mut Scope<'_>) -> Result<(), Done> {
        let mut arguments = Vec::new();
        if let Some(gid) = self.gid {
            arguments.extend(["--gid".to_owned(), gid.to_string()]);
        }
        let program = if change.is_some() { "groupmod" } else { "groupadd" };
        if change.is_none() && self.system {
            arguments.push("--system".to_owned());
        }
        arguments.push(self.name.clone());
        run(program, &arguments, None, scope)
    }
}

/// A group that should not be there.
#[derive(Debug)]
pub(super) struct AbsentGroup {
    name: String,
}

impl AbsentGroup {
    pub(super) fn read(parameters: &Value) -> Result<AbsentGroup, Done> {
        let mut from = Parameters::new(parameters, Some("name"));
        let wanted = AbsentGroup { name: name(&mut from) };
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        Ok(wanted)
    }
}

impl Module for AbsentGroup {
    type Observed = (Accounts, Option<u32>);
    type Change = ();

    fn path(&self) -> &str {
        &self.name
    }

    fn key(&self) -> &'static str {
        "name"
    }

    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal> {
        let accounts = host.read_accounts()?;
        let gid = accounts.gid(&self.name);
        Ok((accounts, gid))
    }

    fn difference(&self, _host: &Host, (accounts, gid): &Self::Observed) -> Result<Option<()>, Refusal> {
        let Some(gid) = gid else { return Ok(None) };
        if let Some(user) = accounts.user_of_group(*gid) {
            let message = format!("{} is the primary group of {}; change that user first", self.name, user.name);
            return Err(Refusal::Module { reason: "GroupInUse", message });
        }
        Ok(Some(()))
    }

    fn summary(&self, _observed: &Self::Observed, (): &()) -> String {
        "removed".to_owned()
    }

    fn show(&self, _host: &Host, _observed: &Self::Observed, (): &(), _sensitive: bool) -> String {
        format!("group {}: removed\n", self.name)
    }

    fn apply(&self, _observed: Self::Observed, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        run("groupdel", std::slice::from_ref(&self.name), None, scope)
    }
}
