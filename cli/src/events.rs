//! What commands tell the instance's event log. The other half of a container's life is told by its shim.

use std::collections::BTreeMap;

use dhow_api::events::Event;

use crate::container::record::Record;
use crate::context::Context;

/// Appends an event. The log is for people who watch: that it cannot be written stops nothing.
pub(crate) fn tell(ctx: &Context, event: &Event) {
    if let Err(error) = ctx.events().append(event) {
        log::debug!("{}", dhow_api::error::chain(&error));
    }
}

/// Tells of a container.
pub(crate) fn container(ctx: &Context, record: &Record, action: &str, details: &[(&str, &str)]) {
    let mut event = Event::new("container", action, &record.id);
    event.attributes = attributes(record);
    event.attributes.extend(details.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    tell(ctx, &event);
}

/// What every event of a container tells of it.
pub(crate) fn attributes(record: &Record) -> BTreeMap<String, String> {
    let mut attributes = record.config.labels.clone();
    attributes.insert("image".to_owned(), record.config.image.clone());
    attributes.insert("name".to_owned(), record.name.clone());
    attributes
}

/// Tells of an image: `id` is what docker has there, the image's id or, for pull and push, its name.
pub(crate) fn image(ctx: &Context, action: &str, id: &str, name: &str) {
    tell(ctx, &Event::new("image", action, id).with("name", name));
}

/// Tells of a volume.
pub(crate) fn volume(ctx: &Context, action: &str, name: &str) {
    tell(ctx, &Event::new("volume", action, name).with("driver", "local"));
}

/// Tells that a container was attached to its networks.
pub(crate) fn connected(ctx: &Context, record: &Record) {
    for interface in &record.attached.interfaces {
        let event = Event::new("network", "connect", &interface.network);
        tell(ctx, &event.with("container", &record.id).with("name", &interface.network));
    }
}

/// Tells of a network.
pub(crate) fn network(ctx: &Context, action: &str, id: &str, name: &str) {
    tell(ctx, &Event::new("network", action, id).with("name", name));
}
