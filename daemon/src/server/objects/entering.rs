//! Runs whose books have a concurrency key: what their creating commit holds beside them. Knows books and the cache;
//! the policies are the core's.

use std::collections::BTreeSet;

use lockstep_apis::commit::Commit;
use lockstep_apis::keys::{self, Key};
use lockstep_apis::v1alpha::{ApplyAction, Object, TaskBook, object::Kind as K};
use lockstep_apis::violation::of_field;
use lockstep_core::concurrency;
use lockstep_core::protocol::{self, Entering};

use super::intake::Write;
use super::writing::numbered;
use super::{ObjectsApi, decode};
use crate::clock::now_ms;
use crate::identity::PeerIdentity;
use crate::status::{Answer, Problem};
use crate::store::StoreError;

impl ObjectsApi {
    /// Gives new Runs the keys of their books, and judges whether they may come in. What joins another Run becomes that
    /// Run, unchanged. The answer is to be added to the commit.
    pub(super) async fn enter(&self, writes: &mut [Write], by: &PeerIdentity) -> Answer<Commit> {
        let mut entering = Commit::new();
        let mut keys_seen = BTreeSet::new();
        for index in 0..writes.len() {
            let Some((key, generation)) = self.give_key(writes, index).await? else { continue };
            if !keys_seen.insert(key) {
                let message = "another run of this request has the same concurrency key: send them one after another";
                return Err(Problem::Violations(
                    numbered(vec![of_field("Duplicate", "spec", message)], index).collect(),
                ));
            }
            let Some(K::Run(run)) = &writes[index].object.kind else { continue };
            self.cache.catch_up(&*self.store).await?;
            let judged = {
                let state = self.cache.read();
                protocol::enter(state.world(), run, generation, &by.words(), now_ms())
            };
            match judged.map_err(|refusal| Problem::Precondition(refusal.to_string()))? {
                Entering::Enter(commit) => {
                    entering.compares.extend(commit.compares);
                    entering.operations.extend(commit.operations);
                }
                Entering::Join(uid) => writes[index] = self.joined(&uid)?,
            }
        }
        Ok(entering)
    }

    /// Writes the key into a new Run. The answer: its store key, and the book's generation. `None`: it has none.
    async fn give_key(&self, writes: &mut [Write], index: usize) -> Answer<Option<(Key, i64)>> {
        let write = &writes[index];
        let Some(K::Run(run)) = write.object.kind.as_ref().filter(|_| write.action == ApplyAction::Created) else {
            return Ok(None);
        };
        let spec = run.spec.clone().unwrap_or_default();
        let namespace = write.object.metadata().namespace.clone();
        let Some(name) = spec.task_books.first() else { return Ok(None) };
        let Some(book) = self.book(writes, &keys::object("taskbooks", &namespace, name)).await? else {
            return Ok(None);
        };
        let own = concurrency::of_run(&book.spec.unwrap_or_default(), &spec)
            .map_err(|violations| Problem::Violations(numbered(violations, index).collect()))?;
        let Some(own) = own else { return Ok(None) };
        let key = keys::concurrency(&namespace, &own.key);
        if let Some(K::Run(run)) = &mut writes[index].object.kind {
            run.spec.get_or_insert_default().concurrency = Some(own);
        }
        Ok(Some((key, book.metadata.map_or(0, |metadata| metadata.generation))))
    }

    /// A book as it is, or as this request makes it. `None`: there is none, which is said elsewhere.
    async fn book(&self, writes: &[Write], key: &Key) -> Answer<Option<TaskBook>> {
        let made = writes.iter().find(|write| write.object.key() == *key).map(|write| write.object.clone());
        let object = match made {
            Some(object) => Some(object),
            None => self.store.get(key).await?.entry.as_ref().map(decode).transpose()?,
        };
        Ok(match object.and_then(|object| object.kind) {
            Some(K::TaskBook(book)) => Some(book),
            _ => None,
        })
    }

    fn joined(&self, uid: &str) -> Answer<Write> {
        let state = self.cache.read();
        let of = state.world().run(uid).and_then(|run| run.object()).ok_or(StoreError::Conflict)?;
        let mut object = Object::from(of.value.as_ref().clone());
        let guard = lockstep_apis::commit::Compare::ModRevision(object.key(), of.revision);
        object.metadata_mut().resource_version = of.revision.to_string();
        Ok(Write { object, action: ApplyAction::Unchanged, guard })
    }
}
