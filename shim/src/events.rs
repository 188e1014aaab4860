//! Telling containerd what happens, in order, over its ttrpc events service.
//!
//! Events are queued and sent by one task, so that a slow containerd holds up nobody and the order stays. Each is tried
//! for a while: containerd may be restarting. Without containerd nothing is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::events::task as event;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::EventsClient;
use dhow_api::Timestamp;
use protobuf::MessageFull;
use protobuf::well_known_types::any::Any;
use tokio::sync::mpsc;

/// Attempts per event, and the pause between them.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Something that happened to a task.
#[derive(Debug)]
pub(crate) enum Event {
    Create(event::TaskCreate),
    Start(event::TaskStart),
    Exit(event::TaskExit),
    Delete(event::TaskDelete),
    Oom(event::TaskOOM),
    ExecAdded(event::TaskExecAdded),
    ExecStarted(event::TaskExecStarted),
    Paused(event::TaskPaused),
    Resumed(event::TaskResumed),
    Checkpointed(event::TaskCheckpointed),
}

/// Where events go.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(Option<mpsc::UnboundedSender<Message>>);

#[derive(Debug)]
enum Message {
    Event(Box<Envelope>),
    Flush(tokio::sync::oneshot::Sender<()>),
}

impl Publisher {
    /// Nobody listens.
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    /// Publishes to containerd; must be called in the event loop.
    ///
    /// The queue has no limit of its own: a container makes a handful of events in its life, and an exec two.
    pub(crate) fn to(address: &str) -> Self {
        let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        let (queue, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(path, receiver));
        Self(Some(queue))
    }

    /// Queues an event.
    pub(crate) fn publish(&self, namespace: &str, event: &Event) {
        let Some(queue) = &self.0 else { return };
        let (topic, event) = event.pack();
        let mut envelope = Envelope::new();
        envelope.timestamp = Some(Timestamp::now().to_message()).into();
        envelope.namespace = namespace.to_owned();
        envelope.topic = topic.to_owned();
        envelope.event = Some(event).into();
        // Fails only when the loop is being torn down.
        let _queued = queue.send(Message::Event(Box::new(envelope)));
    }

    /// Waits until everything queued was sent or given up.
    pub(crate) async fn flush(&self) {
        let Some(queue) = &self.0 else { return };
        let (done, flushed) = tokio::sync::oneshot::channel();
        if queue.send(Message::Flush(done)).is_ok() {
            let _sent = flushed.await;
        }
    }
}

impl Event {
    fn pack(&self) -> (&'static str, Any) {
        use containerd_shim_protos::topics;
        match self {
            Self::Create(event) => (topics::TASK_CREATE_EVENT_TOPIC, any(event)),
            Self::Start(event) => (topics::TASK_START_EVENT_TOPIC, any(event)),
            Self::Exit(event) => (topics::TASK_EXIT_EVENT_TOPIC, any(event)),
            Self::Delete(event) => (topics::TASK_DELETE_EVENT_TOPIC, any(event)),
            Self::Oom(event) => (topics::TASK_OOM_EVENT_TOPIC, any(event)),
            Self::ExecAdded(event) => (topics::TASK_EXEC_ADDED_EVENT_TOPIC, any(event)),
            Self::ExecStarted(event) => (topics::TASK_EXEC_STARTED_EVENT_TOPIC, any(event)),
            Self::Paused(event) => (topics::TASK_PAUSED_EVENT_TOPIC, any(event)),
            Self::Resumed(event) => (topics::TASK_RESUMED_EVENT_TOPIC, any(event)),
            Self::Checkpointed(event) => (topics::TASK_CHECKPOINTED_EVENT_TOPIC, any(event)),
        }
    }
}

/// Packs a message as containerd's typeurl does: the bare name, without a host before it.
pub(crate) fn any<M: MessageFull>(message: &M) -> Any {
    let mut any = Any::new();
    M::descriptor().full_name().clone_into(&mut any.type_url);
    // Writing to memory fails only for a missing required field, which proto3 does not have.
    any.value = message.write_to_bytes().unwrap_or_default();
    any
}

async fn run(path: PathBuf, mut queue: mpsc::UnboundedReceiver<Message>) {
    let mut client = None;
    while let Some(message) = queue.recv().await {
        match message {
            Message::Event(envelope) => {
                let mut request = ForwardRequest::new();
                request.envelope = Some(*envelope).into();
                send(&path, &mut client, &request).await;
            }
            Message::Flush(done) => {
                let _heard = done.send(());
            }
        }
    }
}

async fn send(path: &Path, client: &mut Option<EventsClient>, request: &ForwardRequest) {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        if client.is_none() {
            *client = connect(path).inspect_err(|error| log::warn!("publish an event: {error}")).ok();
        }
        let Some(connected) = client.as_ref() else { continue };
        let context = ttrpc::context::with_duration(TIMEOUT);
        match connected.forward(context, request).await {
            Ok(_) => return,
            Err(ttrpc::Error::RpcStatus(status)) => {
                return log::warn!("containerd refused an event: {}", status.message());
            }
            Err(error) => {
                log::warn!("publish an event: {error}");
                *client = None;
            }
        }
    }
    log::error!("an event is lost: {}", request.envelope.topic);
}

fn connect(path: &Path) -> std::io::Result<EventsClient> {
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    let socket = ttrpc::r#async::transport::Socket::try_from(stream)?;
    Ok(EventsClient::new(ttrpc::r#async::Client::new(socket)))
}
