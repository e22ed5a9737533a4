//! Keeps an etcd lease alive, over as many streams and members as that takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::members::{Members, PAUSE};
use crate::store::{Held, Lease, Until};

/// Until the lease is lost, or nobody listens any more.
pub(super) async fn keep(members: Arc<Members>, lease: Lease, held: watch::Sender<Held>) {
    let mut keeping = Keeping { members, lease, held, until: Until::unsure(&lease) };
    while Instant::now() < keeping.until.at {
        match keeping.stream().await {
            Ended::LeaseGone => break,
            Ended::Stream => sleep(PAUSE).await,
        }
    }
    keeping.held.send_replace(Held::Lost);
}

struct Keeping {
    members: Arc<Members>,
    lease: Lease,
    held: watch::Sender<Held>,
    /// No acknowledged renewal says that the lease lives longer than this.
    until: Until,
}

enum Ended {
    LeaseGone,
    Stream,
}

impl Keeping {
    /// Renews over one stream until it fails.
    async fn stream(&mut self) -> Ended {
        let member = self.members.current();
        let ended = self.renew(member.client.lease_client()).await;
        if let Ended::Stream = ended {
            self.members.leave(&member);
        }
        ended
    }

    async fn renew(&mut self, mut client: etcd_client::LeaseClient) -> Ended {
        let (mut sent, mut until) = (Instant::now(), Until::of(&self.lease));
        // Opening is a renewal, too.
        let (mut keeper, mut answers) = match timeout(self.patience(), client.keep_alive(self.lease.id.0)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(etcd_client::Error::LeaseKeepAliveError(text))) if text.contains("not found") => {
                return Ended::LeaseGone;
            }
            Ok(Err(_)) | Err(_) => return Ended::Stream,
        };
        loop {
            self.until = until;
            self.held.send_replace(Held::Until(self.until));
            sleep_until(sent + self.lease.ttl / 3).await;
            (sent, until) = (Instant::now(), Until::of(&self.lease));
            if keeper.keep_alive().await.is_err() {
                return Ended::Stream;
            }
            match timeout(self.patience(), answers.message()).await {
                Ok(Ok(Some(answer))) if answer.ttl() <= 0 => return Ended::LeaseGone,
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) | Err(_) => return Ended::Stream,
            }
        }
    }

    /// For one answer: so that a silent member leaves time to ask two others.
    fn patience(&self) -> Duration {
        (self.lease.ttl / 5).max(Duration::from_millis(200))
    }
}
