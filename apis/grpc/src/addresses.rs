//! Where the servers of a cluster are, in the order in which they are tried. Knows addresses; never connects, and keeps
//! nothing between starts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// With this response header servers tell users where all servers are: host:port, separated by commas.
pub const SERVERS_HEADER: &str = "lockstep-servers";

/// Most addresses that are kept.
pub const MAX_ADDRESSES: usize = 16;

/// Addresses, host:port, that a channel and those who learn of more share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Addresses(Arc<Mutex<Vec<String>>>);

impl Addresses {
    /// To be tried in this order.
    pub fn new(addresses: &[String]) -> Self {
        Self(Arc::new(Mutex::new(addresses.to_vec())))
    }

    /// In the order in which they are tried: what answered last is first.
    pub fn list(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// A server answered at this address.
    pub fn answered(&self, address: &str) {
        let mut list = self.lock();
        if let Some(at) = list.iter().position(|known| known == address) {
            list[..=at].rotate_right(1);
        }
    }

    /// Takes what a server said: which addresses the servers have that are up. What answered last stays first. What was
    /// known and is not named goes to the end, and is not forgotten: that server may only be down, or the address be one
    /// that only we know it by. Beyond [`MAX_ADDRESSES`] the last ones go.
    pub fn learn(&self, named: &[String]) {
        let mut list = self.lock();
        if named.is_empty() || named.iter().all(|address| list.contains(address)) {
            return;
        }
        let mut learnt: Vec<String> = Vec::new();
        for address in list.iter().take(1).chain(named).chain(list.iter()) {
            if !learnt.contains(address) {
                learnt.push(address.clone());
            }
        }
        learnt.truncate(MAX_ADDRESSES);
        *list = learnt;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &str) -> Vec<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_answered_last_is_first_and_nothing_known_is_lost() {
        let known = Addresses::new(&addresses("a:1 b:1 c:1"));
        known.answered("c:1");
        assert_eq!(known.list(), addresses("c:1 a:1 b:1"));
        known.answered("unknown:1");
        assert_eq!(known.list(), addresses("c:1 a:1 b:1"));
        known.learn(&addresses("a:1 d:1"));
        assert_eq!(known.list(), addresses("c:1 a:1 d:1 b:1"));
    }

    #[test]
    fn hearing_of_known_servers_changes_no_order() {
        let known = Addresses::new(&addresses("c:1 a:1 b:1"));
        known.learn(&addresses("a:1 b:1"));
        known.learn(&[]);
        assert_eq!(known.list(), addresses("c:1 a:1 b:1"));
    }

    #[test]
    fn a_server_that_names_thousands_fills_no_file() {
        let known = Addresses::new(&addresses("mine:1"));
        known.learn(&(0..5000).map(|n| format!("h{n}:1")).collect::<Vec<_>>());
        assert_eq!(known.list().len(), MAX_ADDRESSES);
        assert_eq!(known.list()[0], "mine:1");
    }
}
