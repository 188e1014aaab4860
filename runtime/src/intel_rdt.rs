//! `linux.intelRdt` in the kernel: a class of service is a directory of the resctrl file system.
//!
//! ```text
//! RESCTRL/<class>/schemata               its shares
//! RESCTRL/<class>/tasks                  who belongs to it; children are born into it
//! RESCTRL/<class>/mon_groups/<id>/tasks  whose use is counted
//! ```
//!
//! A class that config.json names belongs to whoever made it and stays; one of the container's own goes with it.

mod shares;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::plan::IntelRdt;
use crate::{Error, Result, mountinfo};

pub use shares::{BandwidthInfo, CacheInfo, Occupancy, Shares, Traffic};

/// A container's place in resctrl.
#[derive(Debug)]
pub(crate) struct Group {
    class: PathBuf,
    monitor: Option<PathBuf>,
    /// Whether it goes with the container.
    own: bool,
}

/// Where resctrl is mounted.
///
/// # Errors
/// [`Error::Config`] when it is not.
pub(crate) fn root() -> Result<PathBuf> {
    let mounts = mountinfo::own().map_err(Error::file("read", Path::new("/proc/self/mountinfo")))?;
    let resctrl = mounts.into_iter().find(|mount| mount.kind == "resctrl");
    resctrl.map(|mount| mount.path).ok_or_else(|| Error::config("linux.intelRdt", "no resctrl file system is mounted"))
}

impl Group {
    /// Where it is, or will be. Makes nothing.
    pub(crate) fn new(root: &Path, plan: &IntelRdt, id: &str) -> Self {
        let class = root.join(plan.clos_id.as_deref().unwrap_or(id));
        let monitor = plan.monitoring.then(|| class.join("mon_groups").join(id));
        Self { class, monitor, own: plan.clos_id.is_none() }
    }

    /// Makes what is missing, with its shares.
    ///
    /// # Errors
    /// [`Error::Config`] for a class that was to exist and does not, or that has other shares; [`Error::File`].
    pub(crate) fn create(&self, plan: &IntelRdt) -> Result<()> {
        let file = self.class.join("schemata");
        let exists = self.class.is_dir();
        if !self.own && exists {
            let present = std::fs::read_to_string(&file).map_err(Error::file("read", &file))?;
            if let Some(line) = plan.schemata.iter().find(|line| !is_part_of(line, &present)) {
                let problem = format!("{line:?} differs from what {} has", self.class.display());
                return Err(Error::config("linux.intelRdt.schemata", problem));
            }
        } else if !self.own && plan.schemata.is_empty() {
            let problem = format!("{} does not exist, and no schemata say how to make it", self.class.display());
            return Err(Error::config("linux.intelRdt.closID", problem));
        } else {
            self.change(plan)?;
        }
        self.monitor.as_deref().map_or(Ok(()), make)
    }

    /// Gives the class other shares; makes it, should it not be there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn change(&self, plan: &IntelRdt) -> Result<()> {
        make(&self.class)?;
        if plan.schemata.is_empty() {
            return Ok(());
        }
        let file = self.class.join("schemata");
        let text: String = plan.schemata.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, text).map_err(Error::file("write", &file))
    }

    /// Puts a process into it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn attach(&self, pid: i32) -> Result<()> {
        for group in [Some(&self.class), self.monitor.as_ref()].into_iter().flatten() {
            let tasks = group.join("tasks");
            std::fs::write(&tasks, pid.to_string()).map_err(Error::file("write", &tasks))?;
        }
        Ok(())
    }

    /// Removes what is the container's own. What is gone already is no error.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn remove(&self) -> Result<()> {
        for group in [self.monitor.as_ref(), self.own.then_some(&self.class)].into_iter().flatten() {
            match std::fs::remove_dir(group) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => other.map_err(Error::file("remove", group))?,
            }
        }
        Ok(())
    }
}

fn make(directory: &Path) -> Result<()> {
    match std::fs::create_dir(directory) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(Error::file("make", directory)),
    }
}

/// Whether every share of a line is as the file has it.
fn is_part_of(line: &str, present: &str) -> bool {
    let Some((resource, wanted)) = shares(line) else { return false };
    let has = present.lines().filter_map(shares).find(|(name, _)| *name == resource);
    has.is_some_and(|(_, has)| wanted.iter().all(|(id, value)| has.get(id) == Some(value)))
}

/// `L3:0=0f;1=f` → the resource, and its shares by cache: masks without leading zeroes, as the kernel pads them.
fn shares(line: &str) -> Option<(&str, BTreeMap<&str, String>)> {
    let (resource, list) = line.trim().split_once(':')?;
    let mut shares = BTreeMap::new();
    for share in list.split(';').filter(|share| !share.trim().is_empty()) {
        let (id, value) = share.split_once('=')?;
        shares.insert(id.trim(), value.trim().trim_start_matches('0').to_ascii_lowercase());
    }
    Some((resource, shares))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(clos_id: Option<&str>, schemata: &[&str], monitoring: bool) -> IntelRdt {
        let schemata = schemata.iter().map(ToString::to_string).collect();
        IntelRdt { clos_id: clos_id.map(str::to_owned), schemata, monitoring }
    }

    fn read(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_class_of_its_own_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(None, &["L3:0=f", "MB:0=20"], false);
        let group = Group::new(root.path(), &plan, "c");
        group.create(&plan).unwrap();
        group.attach(12).unwrap();
        assert_eq!(read(root.path().join("c/schemata")), "L3:0=f\nMB:0=20\n");
        let other = self::plan(None, &["L3:0=3"], false);
        Group::new(root.path(), &other, "c").change(&other).unwrap();
        assert_eq!(read(root.path().join("c/schemata")), "L3:0=3\n");
        assert_eq!(read(root.path().join("c/tasks")), "12");
        // In resctrl the files go with the directory.
        for file in ["c/schemata", "c/tasks"] {
            std::fs::remove_file(root.path().join(file)).unwrap();
        }
        group.remove().unwrap();
        assert!(!root.path().join("c").exists());
        group.remove().unwrap();
    }

    #[test]
    fn a_named_class_stays() {
        let root = tempfile::tempdir().unwrap();
        let gold = root.path().join("gold");
        std::fs::create_dir_all(gold.join("mon_groups")).unwrap();
        std::fs::write(gold.join("schemata"), "    MB:0=100;1=100\n    L3:0=00f;1=0ff\n").unwrap();
        let same = plan(Some("gold"), &["L3:0=F;1=ff"], true);
        let group = Group::new(root.path(), &same, "c");
        group.create(&same).unwrap();
        group.attach(7).unwrap();
        assert_eq!(read(gold.join("mon_groups/c/tasks")), "7");
        std::fs::remove_file(gold.join("mon_groups/c/tasks")).unwrap();
        group.remove().unwrap();
        assert!(gold.join("tasks").exists() && !gold.join("mon_groups/c").exists());
        let other = plan(Some("gold"), &["L3:0=1"], false);
        let error = Group::new(root.path(), &other, "c").create(&other).unwrap_err().to_string();
        assert!(error.starts_with("linux.intelRdt.schemata: "), "{error}");
    }

    #[test]
    fn a_named_class_without_shares_has_to_exist() {
        let root = tempfile::tempdir().unwrap();
        let bare = plan(Some("gold"), &[], false);
        let error = Group::new(root.path(), &bare, "c").create(&bare).unwrap_err().to_string();
        assert!(error.starts_with("linux.intelRdt.closID: "), "{error}");
        std::fs::create_dir(root.path().join("gold")).unwrap();
        std::fs::write(root.path().join("gold/schemata"), "L3:0=f\n").unwrap();
        Group::new(root.path(), &bare, "c").create(&bare).unwrap();
    }
}
