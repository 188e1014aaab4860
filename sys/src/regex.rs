//! POSIX extended regular expressions (regcomp(3)): what crun's `--regex` means. The C library has them already.

use std::ffi::CString;
use std::mem::MaybeUninit;

use crate::{Errno, Result};

/// A compiled expression.
pub struct Regex(Box<libc::regex_t>);

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Regex")
    }
}

impl Regex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// `EINVAL` for one that is none.
    pub fn new(expression: &str) -> Result<Self> {
        let expression = CString::new(expression).map_err(|_nul| Errno::EINVAL)?;
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::uninit());
        // SAFETY: the expression is a C string that lives longer than the call, and the memory is a regex_t's to be filled.
        let code =
            unsafe { libc::regcomp(compiled.as_mut_ptr(), expression.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        if code != 0 {
            return Err(Errno::EINVAL);
        }
        // SAFETY: regcomp has succeeded, so it has filled it.
        Ok(Self(unsafe { compiled.assume_init() }))
    }

    /// Whether it matches anywhere in a text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: `self.0` was compiled by regcomp and not freed, the text is a C string, and with REG_NOSUB no matches are written.
        let code = unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) };
        code == 0
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled by regcomp, and nobody uses it after this.
        unsafe { libc::regfree(&raw mut *self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_anywhere() {
        for (expression, text, expected) in [
            ("^a.*", "abc", true),
            ("b", "abc", true),
            ("^b", "abc", false),
            ("(x|c)$", "abc", true),
            ("", "abc", true),
        ] {
            assert_eq!(Regex::new(expression).unwrap().is_match(text), expected, "{expression}");
        }
        for wrong in ["(", "[", "a\0"] {
            assert_eq!(Regex::new(wrong).unwrap_err(), Errno::EINVAL, "{wrong}");
        }
    }
}
