//! `lockstep diff -f`: what `apply` would change, asked of the server that would do it.

use super::{apply, get::fetch};
use crate::{
    context::Session,
    error::{Error, Result},
    render::{diff, screen::Screen},
};
use lockstep_apis::v1alpha::{ApplyAction, Object};
use tonic::Code;

pub(crate) async fn diff(session: &Session, objects: Vec<Object>) -> Result<()> {
    let answer = apply::send(session, objects, true).await?;
    let screen = Screen::stdout();
    let mut differs = false;
    for result in answer.results {
        let action = result.action();
        let Some(new) = result.object.filter(|_| action != ApplyAction::Unchanged) else { continue };
        differs = true;
        let in_namespace = session.within(&new.metadata().namespace);
        let old = match fetch(&in_namespace, new.kind_of(), &new.metadata().name).await {
            Ok(old) => Some(old),
            Err(Error::Status(status)) if status.code() == Code::NotFound => None,
            Err(error) => return Err(error),
        };
        print!("{}", diff::objects(old.as_ref(), &new, screen));
    }
    if differs { Err(Error::Differs) } else { Ok(()) }
}
