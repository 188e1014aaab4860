//! criu's messages: what is asked, what it answers, and the numbers of the fields.

use super::wire::{Value, Writer, fields};

/// What criu is asked to do. The numbers are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Save the container.
    Dump = 1,
    /// Bring it back.
    Restore = 2,
    /// Save its memory only, and let it go on.
    PreDump = 4,
    /// The other way round: criu tells of a moment, and waits for an answer.
    Notify = 6,
    /// What the machine can do.
    FeatureCheck = 9,
    /// Which version it is.
    Version = 10,
}

impl Kind {
    /// By the name that people know from criu's documentation.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::FeatureCheck => "FEATURE_CHECK",
            Self::Version => "VERSION",
        }
    }

    fn from_number(number: i32) -> Option<Self> {
        let all = [Self::Dump, Self::Restore, Self::PreDump, Self::Notify, Self::FeatureCheck, Self::Version];
        all.into_iter().find(|kind| *kind as i32 == number)
    }
}

/// The fields of a request's options.
pub(super) mod option {
    pub(in super::super) const IMAGES_DIR_FD: u32 = 1;
    pub(in super::super) const PID: u32 = 2;
    pub(in super::super) const LEAVE_RUNNING: u32 = 3;
    pub(in super::super) const EXT_UNIX_SK: u32 = 4;
    pub(in super::super) const TCP_ESTABLISHED: u32 = 5;
    pub(in super::super) const EVASIVE_DEVICES: u32 = 6;
    pub(in super::super) const SHELL_JOB: u32 = 7;
    pub(in super::super) const FILE_LOCKS: u32 = 8;
    pub(in super::super) const LOG_LEVEL: u32 = 9;
    pub(in super::super) const LOG_FILE: u32 = 10;
    pub(in super::super) const PAGE_SERVER: u32 = 11;
    pub(in super::super) const NOTIFY_SCRIPTS: u32 = 12;
    pub(in super::super) const ROOT: u32 = 13;
    pub(in super::super) const PARENT_IMG: u32 = 14;
    pub(in super::super) const TRACK_MEM: u32 = 15;
    pub(in super::super) const AUTO_DEDUP: u32 = 16;
    pub(in super::super) const WORK_DIR_FD: u32 = 17;
    pub(in super::super) const LINK_REMAP: u32 = 18;
    /// A pair: where in the container and by which name, or by which name and what on the host.
    pub(in super::super) const EXT_MNT: u32 = 23;
    pub(in super::super) const MANAGE_CGROUPS: u32 = 24;
    /// A pair: controller and path.
    pub(in super::super) const CG_ROOT: u32 = 25;
    pub(in super::super) const RST_SIBLING: u32 = 26;
    /// A pair: what it is, and criu's descriptor.
    pub(in super::super) const INHERIT_FD: u32 = 27;
    pub(in super::super) const MANAGE_CGROUPS_MODE: u32 = 34;
    pub(in super::super) const EXTERNAL: u32 = 37;
    pub(in super::super) const EMPTY_NS: u32 = 38;
    /// A pair: kind and file.
    pub(in super::super) const JOIN_NS: u32 = 39;
    pub(in super::super) const FREEZE_CGROUP: u32 = 44;
    pub(in super::super) const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub(in super::super) const TCP_CLOSE: u32 = 52;
    pub(in super::super) const LAZY_PAGES: u32 = 48;
    pub(in super::super) const ORPHAN_PTS_MASTER: u32 = 50;
    pub(in super::super) const CONFIG_FILE: u32 = 51;
    pub(in super::super) const LSM_PROFILE: u32 = 53;
    pub(in super::super) const LSM_MOUNT_CONTEXT: u32 = 63;
}

/// Adds a message of two strings, of which criu has several.
pub(super) fn pair(options: &mut Writer, field: u32, first: &str, second: &str) {
    options.message(field, |pair| {
        pair.text(1, first);
        pair.text(2, second);
    });
}

/// A request to save or to restore.
pub(super) fn request(kind: Kind, options: Writer) -> Vec<u8> {
    let options = options.finish();
    let mut request = Writer::default();
    request.number(1, kind as i64);
    request.bytes(2, &options);
    request.finish()
}

/// A question, after which the connection stays open for the request.
pub(super) fn question(kind: Kind, feature: Option<Feature>) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, kind as i64);
    request.flag(4, true);
    if let Some(feature) = feature {
        request.message(5, |features| features.flag(feature as u32, true));
    }
    request.finish()
}

/// The answer to a notification.
pub(super) fn noted(success: bool) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, Kind::Notify as i64);
    request.number(3, success.into());
    request.finish()
}

/// What not every machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Feature {
    /// Tell which pages were written since the last look.
    MemTrack = 1,
    /// Fetch pages when they are used.
    LazyPages = 2,
}

/// What criu answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    /// To which request; `None` for one that is not known.
    pub(super) kind: Option<Kind>,
    /// Whether it was done.
    pub(super) success: bool,
    /// What moment it is.
    pub(super) notification: Notification,
    /// An errno, or 0.
    pub(super) errno: i32,
    /// The first error of its log, if it has been told.
    pub(super) message: String,
    /// The numbers of the features that there are.
    pub(super) features: Vec<u32>,
    /// Major and minor version.
    pub(super) version: (i32, i32),
}

/// A moment in a checkpoint or a restore.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notification {
    /// `post-restore`, …
    pub(super) script: String,
    /// The container's first process, as criu's parent sees it.
    pub(super) pid: i32,
}

impl Response {
    /// Reads one; `None` when it is damaged.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut response = Self::default();
        for (field, value) in fields(bytes)? {
            match field {
                1 => response.kind = Kind::from_number(value.int()),
                2 => response.success = value.int() != 0,
                5 => response.notification = Notification::parse(value)?,
                7 => response.errno = value.int(),
                8 => {
                    let present = fields(value.bytes())?.into_iter().filter(|(_, value)| value.int() != 0);
                    response.features = present.map(|(number, _)| number).collect();
                }
                9 => response.message = value.text(),
                10 => {
                    let parts = fields(value.bytes())?;
                    let part = |number| parts.iter().find(|(n, _)| *n == number).map_or(0, |(_, value)| value.int());
                    response.version = (part(1), part(2));
                }
                _ => {}
            }
        }
        Some(response)
    }
}

impl Notification {
    fn parse(value: Value<'_>) -> Option<Self> {
        let mut notification = Self::default();
        for (field, value) in fields(value.bytes())? {
            match field {
                1 => notification.script = value.text(),
                2 => notification.pid = value.int(),
                _ => {}
            }
        }
        Some(notification)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let mut bytes = Writer::default();
        bytes.number(1, 6);
        bytes.flag(2, true);
        bytes.message(5, |notify| {
            notify.text(1, "post-restore");
            notify.number(2, 4711);
        });
        let response = Response::parse(&bytes.finish()).unwrap();
        assert_eq!((response.kind, response.success), (Some(Kind::Notify), true));
        assert_eq!(response.notification, Notification { script: "post-restore".into(), pid: 4711 });

        let mut bytes = Writer::default();
        bytes.number(1, 10);
        bytes.flag(2, true);
        bytes.message(10, |version| {
            version.number(1, 4);
            version.number(2, 2);
            version.number(4, 1);
        });
        assert_eq!(Response::parse(&bytes.finish()).unwrap().version, (4, 2));
        assert_eq!(Response::parse(&[0x08]), None);
    }

    #[test]
    fn questions_keep_the_connection() {
        assert_eq!(question(Kind::Version, None), [0x08, 10, 0x20, 1]);
        assert_eq!(question(Kind::FeatureCheck, Some(Feature::LazyPages)), [0x08, 9, 0x20, 1, 0x2a, 2, 0x10, 1]);
        assert_eq!(noted(false), [0x08, 6, 0x18, 0]);
    }
}
