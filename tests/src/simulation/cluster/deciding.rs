//! Leading: elections, steps, and what becomes of their commits.

use lockstep_apis::{
    commit::{Commit, Term},
    keys,
    v1alpha::Leader,
};
use lockstep_core::{fence::Sight, step};
use prost::Message;

use super::{Answer, Cluster, Event, Purpose, Request};
use crate::simulation::variant::Variant;

impl Cluster {
    /// A server takes in what its watch brings, perhaps not all of it yet, and does what it has to do.
    pub(super) fn poll(&mut self, server: usize, epoch: u64) {
        if !self.servers[server].up || self.servers[server].epoch != epoch {
            return;
        }
        self.servers[server].polling = false;
        let (seen, all) = (self.servers[server].seen, self.store.history.len());
        let until = if self.mishap(150) { seen + self.random.below(all - seen + 1) } else { all };
        for at in seen..until {
            self.servers[server].fold(&self.store.history[at], self.variant);
        }
        self.servers[server].seen = until;
        if until < all {
            let more = self.random.between(5, 300);
            self.poll_after(server, more);
        }
        self.offer_all(server);
        self.lead(server);
    }

    fn lead(&mut self, server: usize) {
        let of = &mut self.servers[server];
        let created = of.world.leader().map(|(_, created)| *created);
        if let Some(term) = of.term {
            // Deposed, as soon as the watch says so: not before.
            if of.world.revision() >= term.revision && created != Some(term.revision) {
                of.term = None;
                of.in_flight = 0;
            }
        }
        match of.term {
            Some(term) if of.in_flight == 0 && !of.is_behind(self.variant) => self.decide(server, term),
            Some(_) => {}
            None if created.is_none() && !of.electing => {
                of.electing = true;
                let leader = Leader { server_uid: format!("s{server}"), ..Default::default() };
                let commit = Commit::new().create(keys::leader(), leader.encode_to_vec());
                self.send(server, commit, None, Purpose::Elect);
            }
            None => {}
        }
    }

    fn decide(&mut self, server: usize, term: Term) {
        let now_ms = self.now_ms;
        let of = &mut self.servers[server];
        let clock_ms = now_ms.saturating_add_signed(of.clock_ms);
        let steady_ms = of.steady_ms(now_ms);
        let step = step::step(&of.world, term, clock_ms);
        let fences = of.sight.look(&of.world, term, steady_ms, clock_ms);
        let of = &self.servers[server];
        let mut commits = step.commits;
        commits.extend(fences.commits);
        commits.extend(step.status);
        // One admission at a time: the next one's number follows from it.
        if let Some(uid) = step.admit.first() {
            let book = self.books.iter().find(|book| book.snapshot.run_uid == *uid).expect("every Run has a book");
            let mut snapshot = book.snapshot.clone();
            if self.variant == Variant::KeyNotWaitedFor {
                snapshot.concurrency_key.clear();
            }
            let admission = step::admission(&of.world, term, uid, &snapshot).expect("snapshots are small");
            assert!(admission.len() <= 1, "a small snapshot is one commit");
            commits.extend(admission);
        }
        self.servers[server].in_flight += commits.len();
        for commit in commits {
            let commit = self.variant.of_leader(commit);
            self.send(server, commit, Some(term.revision), Purpose::Decide);
        }
        let wake_in_ms = step.wake_at_ms.map(|at_ms| at_ms.saturating_sub(clock_ms));
        if let Some(ms) = wake_in_ms.into_iter().chain(fences.wake_in_ms).min() {
            let ms = ms.clamp(1, 5000);
            let epoch = self.servers[server].epoch;
            // Beside the watch's: a wake-up must not keep the watch waiting.
            self.after(ms, Event::Poll(server, epoch));
        }
    }

    pub(super) fn answered(&mut self, request: Request, answer: Answer) {
        let (server, variant) = (request.server, self.variant);
        let of = &mut self.servers[server];
        if !of.up || of.epoch != request.epoch {
            return;
        }
        match (request.purpose.clone(), answer) {
            (Purpose::Elect, Answer::Done(revision)) => {
                of.electing = false;
                of.term = Some(Term { incarnation: 1, revision });
                of.sight = Sight::new(self.variant.unreachable_ms());
                of.in_flight = 0;
                let epoch = of.epoch;
                self.after(500, Event::KeepAlive(server, epoch));
                self.poll_after(server, 1);
            }
            (Purpose::Elect, _) => {
                of.electing = false;
                self.poll_after(server, 100);
            }
            (Purpose::Decide, _) if of.term.map(|term| term.revision) != request.term => {
                // It led then, and does not lead now.
            }
            (Purpose::Decide, Answer::Unknown) if variant != Variant::StepDespiteDoubt => {
                // It may still happen. Either the same again until the answer is definite, or no more decisions.
                if self.random.chance(500) {
                    self.send(server, request.commit, request.term, Purpose::Decide);
                } else {
                    let of = &mut self.servers[server];
                    of.term = None;
                    of.in_flight = 0;
                }
            }
            (Purpose::Decide, _) => {
                of.in_flight -= 1;
                match answer {
                    Answer::Done(revision) | Answer::Conflict(revision) => of.behind = of.behind.max(revision),
                    Answer::Unknown => {}
                }
                if of.in_flight == 0 {
                    self.poll_after(server, 1);
                }
            }
            (Purpose::Claim(..) | Purpose::Report(..) | Purpose::Session(..), _) => self.answered_node(request, answer),
            (Purpose::Create(book), Answer::Conflict(_)) => {
                let wait = self.random.between(1, 50);
                self.after(wait, Event::Create(book));
            }
            (Purpose::Admin | Purpose::Create(_), _) => {}
        }
    }
}
