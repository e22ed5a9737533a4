//! `lockstep events`.

use super::get::{kind, list};
use crate::{
    cli::{Events, Output},
    context::Session,
    error::Result,
    render::describe::event_line,
};
use lockstep_apis::{
    manifest,
    v1alpha::{Object, WatchEventType, WatchRequest, object::Kind as Message},
};

pub(crate) async fn events(session: &Session, events: &Events) -> Result<()> {
    let namespace = if events.all_namespaces { String::new() } else { session.namespace.clone() };
    let (found, version) = list(session, kind("events")?, &namespace, "").await?;
    found.iter().for_each(|object| print(object, events));
    if !events.watch {
        return Ok(());
    }
    let request =
        WatchRequest { kind: "Event".into(), namespace, resource_version: version, ..WatchRequest::default() };
    let mut stream = session.objects().watch(request).await?.into_inner();
    while let Some(event) = stream.message().await? {
        if event.r#type() == WatchEventType::Added
            && let Some(object) = &event.object
        {
            print(object, events);
        }
    }
    Ok(())
}

fn print(object: &Object, events: &Events) {
    match (&object.kind, events.output) {
        (_, Output::Yaml) => print!("{}", manifest::print_yaml(std::slice::from_ref(object))),
        (_, Output::Json) => println!("{}", manifest::print_json(std::slice::from_ref(object)).trim_end()),
        (_, Output::Name) => println!("{}", crate::render::path(object)),
        (Some(Message::Event(event)), _) => println!("{}", event_line(event, events.all_namespaces)),
        _ => {}
    }
}
