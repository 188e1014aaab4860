//! What the shim tells the instance's event log: the part of a container's life that no command line need be there for.
//!
//! ```text
//! kill ─ start ─ exec_create, exec_start, exec_die ─ pause, unpause ─ oom ─ die ─ network disconnect ─ destroy (--rm)
//! ```

use dhow_api::documents::{Document, ExitRecord, ShimConfig};
use dhow_api::events::{Event, EventLog};
use dhow_api::{error, paths};

use crate::shim::{OwnMode, Shim};

impl Shim {
    /// Tells of something that happened to the container. The log is for people: that it cannot be written stops nothing.
    pub(crate) fn tell(&self, action: &str, details: &[(&str, String)]) {
        let Some(own) = self.own() else { return };
        // The command line writes the file anew when the container is renamed.
        let config = ShimConfig::load(&own.bundle.shim_config());
        let attributes = config.map_or_else(|_gone| own.config.event_attributes.clone(), |now| now.event_attributes);
        let mut event = Event::new("container", action, &self.id);
        event.attributes = attributes;
        event.attributes.extend(details.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        append(own, &event);
    }

    /// Tells that the first process has ended.
    pub(crate) fn tell_end(&self, record: &ExitRecord) {
        if record.oom_killed {
            self.tell("oom", &[]);
        }
        let ran = record.started_at.map_or(0, |started| record.finished_at.seconds() - started.seconds());
        self.tell("die", &[("exitCode", record.exit_code.to_string()), ("execDuration", ran.to_string())]);
    }

    /// Tells that the container has left its networks.
    pub(crate) fn tell_disconnected(&self, own: &OwnMode) {
        for name in &own.config.networks {
            append(own, &Event::new("network", "disconnect", name).with("container", &self.id).with("name", name));
        }
    }
}

fn append(own: &OwnMode, event: &Event) {
    let log = EventLog::new(paths::RunRoot::new(&own.config.runroot).events());
    if let Err(error) = log.append(event) {
        log::warn!("{}", error::chain(&error));
    }
}
