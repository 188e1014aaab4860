//! Mount options as mount(8) and the OCI runtime specification name them, sorted by what they act on.
//!
//! Pure: nothing here looks at the machine. What is not known by name is an option of the file system itself.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use crate::mountfd::{Change, Context, Propagation, attr, set_attr};
use crate::{Errno, Result};

/// A parsed option list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    /// Change what is mounted already.
    pub remount: bool,
    /// Of this mount alone.
    pub attributes: Attributes,
    /// Of this mount and all below it (`rro`, `rnosuid`, …).
    pub recursive: Attributes,
    /// In the order given; true: of all below as well.
    pub propagation: Vec<(Propagation, bool)>,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// Fill a new tmpfs with what it covers.
    pub copy_up: bool,
    /// Flags of the superblock, by fsconfig's names.
    pub superblock: Vec<&'static str>,
    /// The file system's own: key, value.
    pub data: Vec<(String, Option<String>)>,
}

/// Attribute bits to set and to clear; the last option named wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// [`attr`] bits.
    pub set: u64,
    /// [`attr`] bits.
    pub clear: u64,
}

impl Attributes {
    fn apply(&mut self, set: bool, bits: u64) {
        let (to, from) = if set { (&mut self.set, &mut self.clear) } else { (&mut self.clear, &mut self.set) };
        *to |= bits;
        *from &= !bits;
    }

    fn access_time(&mut self, way: u64) {
        self.set = self.set & !attr::ATIME | way;
        self.clear |= attr::ATIME;
    }

    fn change(self) -> Change<'static> {
        // The kernel wants the whole field of access time bits cleared whenever one of them is set.
        let atime = if self.set & attr::ATIME != 0 { attr::ATIME } else { 0 };
        Change { set: self.set, clear: self.clear | atime, ..Change::default() }
    }
}

/// Name, whether the bit is set, bit.
const BITS: [(&str, bool, u64); 12] = [
    ("ro", true, attr::RDONLY),
    ("rw", false, attr::RDONLY),
    ("nosuid", true, attr::NOSUID),
    ("suid", false, attr::NOSUID),
    ("nodev", true, attr::NODEV),
    ("dev", false, attr::NODEV),
    ("noexec", true, attr::NOEXEC),
    ("exec", false, attr::NOEXEC),
    ("nodiratime", true, attr::NODIRATIME),
    ("diratime", false, attr::NODIRATIME),
    ("nosymfollow", true, attr::NOSYMFOLLOW),
    ("symfollow", false, attr::NOSYMFOLLOW),
];

/// Name, way of keeping access times.
const TIMES: [(&str, u64); 6] = [
    ("noatime", attr::NOATIME),
    ("atime", attr::RELATIME),
    ("relatime", attr::RELATIME),
    ("norelatime", attr::RELATIME),
    ("strictatime", attr::STRICTATIME),
    ("nostrictatime", attr::RELATIME),
];

const SUPERBLOCK: [&str; 8] = ["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "silent"];

/// Accepted without effect: they are the default, or the new mount API has no equivalent that matters.
const WITHOUT_EFFECT: [&str; 5] = ["defaults", "loud", "iversion", "noiversion", "_netdev"];

const PROPAGATION: [(&str, Propagation); 4] = [
    ("private", Propagation::Private),
    ("slave", Propagation::Slave),
    ("shared", Propagation::Shared),
    ("unbindable", Propagation::Unbindable),
];

/// Values with commas in them, which have quotes around them for mount(2)'s sake; fsconfig takes them as they are.
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Every option name that is known here, for `features`; those of file systems are not among them.
pub fn names() -> impl Iterator<Item = String> {
    let own = |n: &&str| (*n).to_owned();
    let both = BITS.iter().map(|b| b.0).chain(TIMES.iter().map(|t| t.0)).chain(PROPAGATION.iter().map(|p| p.0));
    both.flat_map(|n| [n.to_owned(), format!("r{n}")])
        .chain(SUPERBLOCK.iter().map(own))
        .chain(WITHOUT_EFFECT.iter().map(own))
        .chain(["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"].iter().map(own))
}

impl Options {
    /// Sorts an option list.
    #[must_use]
    pub fn parse<S: AsRef<str>>(options: impl IntoIterator<Item = S>) -> Self {
        let mut parsed = Self::default();
        for option in options {
            let option = option.as_ref();
            if !option.is_empty() && !parsed.known(option) {
                let (key, value) = match option.split_once('=') {
                    Some((key, value)) if CONTEXTS.contains(&key) => (key, Some(value.trim_matches('"').to_owned())),
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (option, None),
                };
                parsed.data.push((key.to_owned(), value));
            }
        }
        parsed
    }

    /// What fsmount is to be told: attributes of a new mount, where every bit starts cleared.
    #[must_use]
    pub fn new_mount(&self) -> u64 {
        self.attributes.set
    }

    /// Takes the read-only attributes away, for a mount that is to be filled first; whether there were any.
    pub fn make_writable(&mut self) -> bool {
        let readonly = (self.attributes.set | self.recursive.set) & attr::RDONLY != 0;
        self.attributes.set &= !attr::RDONLY;
        self.recursive.set &= !attr::RDONLY;
        readonly
    }

    /// Whether a mount made with these differs in nothing from the one it was copied from.
    #[must_use]
    pub fn keeps_attributes(&self) -> bool {
        self.attributes == Attributes::default() && self.recursive == Attributes::default()
    }

    /// Applies attributes and recursive attributes to a mount that exists (a bind mount).
    ///
    /// # Errors
    /// mount_setattr's: `EPERM` when a bit is locked in this user namespace.
    pub fn change_attributes(&self, mount: &OwnedFd) -> Result<()> {
        if self.attributes != Attributes::default() {
            set_attr(mount.as_fd(), &self.attributes.change())?;
        }
        self.change_recursive(mount)
    }

    /// Applies the recursive attributes only.
    ///
    /// # Errors
    /// As [`Self::change_attributes`].
    pub fn change_recursive(&self, mount: &OwnedFd) -> Result<()> {
        if self.recursive == Attributes::default() {
            return Ok(());
        }
        set_attr(mount.as_fd(), &Change { recursive: true, ..self.recursive.change() })
    }

    /// Applies the propagation options, in their order.
    ///
    /// # Errors
    /// mount_setattr's.
    pub fn change_propagation(&self, mount: &OwnedFd) -> Result<()> {
        for &(propagation, recursive) in &self.propagation {
            let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
            set_attr(mount.as_fd(), &change)?;
        }
        Ok(())
    }

    /// Hands the superblock's flags and the file system's own options to a context. The error names the option.
    ///
    /// # Errors
    /// The option that was refused, and the errno.
    pub fn configure(&self, context: &Context) -> std::result::Result<(), (String, Errno)> {
        for flag in self.superblock.iter().filter(|f| **f != "silent") {
            set(context, flag, None)?;
        }
        self.data.iter().try_for_each(|(key, value)| set(context, key, value.as_deref()))
    }

    fn known(&mut self, option: &str) -> bool {
        let find = |name: &str| {
            let bit = BITS.iter().find(|b| b.0 == name).map(|b| Known::Bit(b.1, b.2));
            bit.or_else(|| TIMES.iter().find(|t| t.0 == name).map(|t| Known::Time(t.1)))
                .or_else(|| PROPAGATION.iter().find(|p| p.0 == name).map(|p| Known::Propagation(p.1)))
        };
        let (known, recursive) = match find(option) {
            Some(known) => (Some(known), false),
            None => (option.strip_prefix('r').and_then(find), true),
        };
        match (known, option) {
            (Some(Known::Bit(set, bits)), _) => self.of(recursive).apply(set, bits),
            (Some(Known::Time(way)), _) => self.of(recursive).access_time(way),
            (Some(Known::Propagation(propagation)), _) => self.propagation.push((propagation, recursive)),
            (None, "bind") => self.bind = Some(self.bind.unwrap_or(false)),
            (None, "rbind") => self.bind = Some(true),
            (None, "remount") => self.remount = true,
            (None, "tmpcopyup") => self.copy_up = true,
            (None, "idmap") => self.idmap = Some(false),
            (None, "ridmap") => self.idmap = Some(true),
            (None, other) => match SUPERBLOCK.iter().find(|s| **s == other) {
                Some(flag) => self.superblock.push(flag),
                None => return WITHOUT_EFFECT.contains(&other),
            },
        }
        true
    }

    fn of(&mut self, recursive: bool) -> &mut Attributes {
        if recursive { &mut self.recursive } else { &mut self.attributes }
    }
}

enum Known {
    Bit(bool, u64),
    Time(u64),
    Propagation(Propagation),
}

fn set(context: &Context, key: &str, value: Option<&str>) -> std::result::Result<(), (String, Errno)> {
    let text = || value.map_or_else(|| key.to_owned(), |v| format!("{key}={v}"));
    let c = |s: &str| CString::new(s).map_err(|_nul| (text(), Errno::EINVAL));
    let result = match value {
        Some(value) => context.set_string(&c(key)?, &c(value)?),
        None => context.set_flag(&c(key)?),
    };
    result.map_err(|e| (text(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts() {
        let parsed = Options::parse(["rbind", "ro", "rprivate", "rnosuid", "size=64k", "noatime", "quota", "sync"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(parsed.attributes.set, attr::RDONLY | attr::NOATIME);
        assert_eq!(parsed.recursive, Attributes { set: attr::NOSUID, clear: 0 });
        assert_eq!(parsed.propagation, [(Propagation::Private, true)]);
        assert_eq!(parsed.superblock, ["sync"]);
        assert_eq!(parsed.data, [("size".into(), Some("64k".into())), ("quota".into(), None)]);
    }

    #[test]
    fn quotes_around_a_label_are_for_mount_alone() {
        let parsed = Options::parse(["context=\"u:r:t:s0:c1,c2\"", "rootcontext=u:r:t", "name=\"x\""]);
        let value = |text: &str| Some(text.to_owned());
        let expected = [("context", "u:r:t:s0:c1,c2"), ("rootcontext", "u:r:t"), ("name", "\"x\"")];
        assert_eq!(parsed.data, expected.map(|(key, text)| (key.to_owned(), value(text))));
    }

    #[test]
    fn the_last_one_wins() {
        let parsed = Options::parse(["ro", "rw", "noatime", "strictatime", "rro", "defaults"]);
        assert_eq!(parsed.attributes, Attributes { set: attr::STRICTATIME, clear: attr::RDONLY | attr::ATIME });
        assert_eq!(parsed.recursive.set, attr::RDONLY);
        assert!(parsed.data.is_empty());
        // `relatime` and `rw` are names of their own, not recursive forms of something else.
        assert_eq!(Options::parse(["relatime"]).recursive, Attributes::default());
    }
}
