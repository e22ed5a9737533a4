//! Names in a directory that another user owns are changed as that user: then the kernel keeps from us what it keeps from
//! them, whatever they swap while we work. Knows identities; nothing of files.
//!
//! Only the calling thread changes, and of its identities only the effective ones: its real and saved user stay root's,
//! so that the owner may neither signal nor trace this process meanwhile, and it can come back.

use std::marker::PhantomData;
use std::sync::Arc;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Dir, Host};

/// Who owns a directory, with all that the kernel asks of.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    groups: Vec<Gid>,
    /// Ours, to come back to.
    former: Vec<Gid>,
}

/// The thread works as a directory's owner until this is dropped.
#[derive(Debug)]
pub(super) struct Acting<'o> {
    owner: &'o Owner,
    /// It must be dropped where it was made.
    _here: PhantomData<*const ()>,
}

impl Host {
    /// The owner of a directory, if it is another user than root and we are root: else we work as who we are.
    pub(super) fn owner(&self, dir: &Dir) -> Option<Arc<Owner>> {
        self.owner_of(dir.uid, dir.gid)
    }

    /// The same of a directory that is owned so.
    pub(super) fn owner_of(&self, uid: u32, gid: u32) -> Option<Arc<Owner>> {
        if self.euid() != 0 || uid == 0 {
            return None;
        }
        // Read once: while we act as an owner they are another's.
        let former = self.groups.clone();
        let accounts = self.accounts(false);
        let owner = match accounts.user(&uid.to_string()) {
            Some(user) => {
                let groups = accounts.groups_of(user).into_iter().map(Gid::from_raw).collect();
                Owner { uid, gid: user.gid, groups, former }
            }
            // A number without an account: what it may do follows from the directory alone.
            None => Owner { uid, gid, groups: Vec::new(), former },
        };
        Some(Arc::new(owner))
    }
}

impl Owner {
    /// Whether it may make a file of this user and group; else only root can give it away.
    pub(super) fn may_give(&self, uid: u32, gid: u32) -> bool {
        uid == self.uid && (gid == self.gid || self.groups.contains(&Gid::from_raw(gid)))
    }

    /// Works as this user from here on.
    pub(super) fn act(&self) -> rustix::io::Result<Acting<'_>> {
        set_thread_groups(&self.groups)?;
        // Dropped on an error too: then nothing is left half changed.
        let acting = Acting { owner: self, _here: PhantomData };
        set_thread_res_gid(None::<Gid>, Gid::from_raw(self.gid), None::<Gid>)?;
        set_thread_res_uid(None::<Uid>, Uid::from_raw(self.uid), None::<Uid>)?;
        Ok(acting)
    }
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        let back = set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>)
            .and_then(|()| {
                set_thread_res_gid(None::<Gid>, Gid::from_raw(rustix::process::getgid().as_raw()), None::<Gid>)
            })
            .and_then(|()| set_thread_groups(&self.owner.former));
        back.expect("invariant: who was root and kept it as real user may be again");
    }
}

/// Does this as the owner, if there is one.
pub(super) fn acting<T>(owner: Option<&Owner>, act: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let _acting = owner.map(Owner::act).transpose()?;
    act()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_acts_is_the_owner_for_files_alone_and_root_again_afterwards() {
        let host = Host::open(None).unwrap();
        let owner = host.owner_of(65_534, 65_534).expect("this test runs as root");
        let identity = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            [line("Uid:"), line("Gid:"), line("Groups:"), line("CapEff:")]
        };
        let before = identity();
        let during = acting(Some(&owner), || Ok(identity())).unwrap();
        assert!(during[0].ends_with("0\t65534\t0\t65534"), "{during:?}");
        assert!(during[3].ends_with("0000000000000000"), "{during:?}");
        assert_eq!(identity(), before);
        assert!(acting::<()>(Some(&owner), || Err(rustix::io::Errno::IO)).is_err());
        assert_eq!(identity(), before, "after an error, too");
        assert!(host.owner_of(0, 0).is_none());
    }

    #[test]
    fn only_what_is_the_owners_can_it_make() {
        let owner = Owner { uid: 7, gid: 7, groups: vec![Gid::from_raw(8)], former: Vec::new() };
        let table = [((7, 7), true), ((7, 8), true), ((7, 0), false), ((0, 7), false), ((8, 8), false)];
        for ((uid, gid), may) in table {
            assert_eq!(owner.may_give(uid, gid), may, "{uid}:{gid}");
        }
    }
}
