//! A cgroup that its container may divide, because it owns it: v2 only, where that is safe.

use std::path::Path;

use dhow_sys::Errno;

use super::Cgroup;
use super::error::{CgroupError, Result};

/// What a delegated cgroup's owner has to own, by a kernel that does not say so itself (before Linux 4.15).
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

impl Cgroup {
    /// Gives it to a user of the host's, without its limits. Does nothing on v1.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        let [member] = self.members.as_slice() else { return Ok(()) };
        if !self.is_v2() {
            return Ok(());
        }
        let listed = std::fs::read_to_string(Path::new("/sys/kernel/cgroup/delegate")).ok();
        let files = listed.as_ref().map_or_else(|| FILES.to_vec(), |text| text.lines().collect());
        let error = |file: &str, source| {
            let path = member.dir.path().join(file);
            CgroupError::File { verb: "change the owner of", path, source }
        };
        member.dir.give_to(uid).map_err(|e| error("", e))?;
        for file in files {
            match member.dir.give_file_to(file, uid) {
                // Not every cgroup has all of them.
                Err(Errno::ENOENT) => {}
                other => other.map_err(|e| error(file, e))?,
            }
        }
        Ok(())
    }
}
