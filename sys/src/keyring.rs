//! Session keyrings (keyctl(2)).

use std::ffi::CStr;

use crate::Result;
use crate::raw::check;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;
/// The keyring's own user may search it.
const USER_SEARCH: u32 = 0x0008_0000;

/// A serial number of a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyring(i32);

/// Joins the session keyring of this name, or makes it. Processes of the same name share it.
///
/// # Errors
/// `ENOSYS` without keys in the kernel, `EDQUOT` when the user has too many, `EPERM` behind a filter.
pub fn join_session(name: &CStr) -> Result<Keyring> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let id = check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(Keyring(i32::try_from(id).unwrap_or_default()))
}

impl Keyring {
    /// Lets processes of the keyring's user find it, so that a later exec into the container can join it.
    ///
    /// # Errors
    /// `EACCES` when the keyring is somebody else's.
    pub fn allow_user_search(self) -> Result<()> {
        let mut text = [0_u8; 256];
        let size = text.len();
        // SAFETY: the kernel writes at most `size` bytes into `text`.
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, self.0, text.as_mut_ptr(), size) })?;
        // "keyring;uid;gid;permissions in hex;name"
        let text = String::from_utf8_lossy(&text);
        let field = text.split(';').nth(3).unwrap_or_default();
        let permissions = u32::from_str_radix(field, 16).unwrap_or(0x3f01_0000) | USER_SEARCH;
        // SAFETY: two integers.
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, self.0, permissions) }).map(drop)
    }
}
