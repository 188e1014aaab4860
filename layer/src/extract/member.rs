//! What an entry's name says it is: a file, or one of the marks that layers keep in names.

use crate::{Error, LayerPath, Result};

/// An entry's name, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// The layer's own root directory.
    Root,
    /// A file of that path.
    File(LayerPath),
    /// The layers below lose that path (`.wh.NAME`).
    Whiteout(LayerPath),
    /// The layers below lose all that is in that directory (`.wh..wh..opq`).
    Opaque(LayerPath),
    /// AUFS's own (`.wh..wh.*`), of no meaning to others.
    Ignored,
}

impl Member {
    pub(super) fn parse(raw: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Error::Refused { name: LayerPath::lossy(raw), why: why.to_owned() };
        if raw.is_empty() {
            return Err(refuse("an empty name"));
        }
        let Some(path) = LayerPath::parse(raw) else {
            return Err(refuse("`..` or NUL in the name"));
        };
        let Some((parent, base)) = path.split() else { return Ok(Self::Root) };
        let mut depth = 0;
        for part in parent.components() {
            depth += 1;
            if part.starts_with(AUFS_PREFIX) {
                return Ok(Self::Ignored);
            }
            // Made as it stands, it would read as a whiteout when this layer is written again.
            if part.starts_with(WHITEOUT_PREFIX) {
                return Err(refuse("a whiteout as a directory"));
            }
        }
        if depth > DEPTH_MAX {
            return Err(refuse("more than 4096 directories deep"));
        }
        if base == OPAQUE_NAME {
            return Ok(Self::Opaque(parent));
        }
        if base.starts_with(AUFS_PREFIX) {
            return Ok(Self::Ignored);
        }
        match base.strip_prefix(WHITEOUT_PREFIX) {
            None => Ok(Self::File(path)),
            Some(b"" | b"." | b"..") => Err(refuse("a whiteout of no name")),
            Some(name) => Ok(Self::Whiteout(parent.join(name))),
        }
    }
}

/// Before the name of what is deleted (OCI image-spec, layer.md).
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// In a directory that hides all below it.
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const DEPTH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let path = |text: &str| LayerPath::parse(text.as_bytes()).unwrap();
        for (raw, want) in [
            ("./", Some(Member::Root)),
            ("/", Some(Member::Root)),
            ("/etc//x/", Some(Member::File(path("etc/x")))),
            ("a/.wh.b", Some(Member::Whiteout(path("a/b")))),
            (".wh.b", Some(Member::Whiteout(path("b")))),
            ("a/.wh..wh..opq", Some(Member::Opaque(path("a")))),
            (".wh..wh..opq", Some(Member::Opaque(path("")))),
            (".wh..wh.plnk", Some(Member::Ignored)),
            (".wh..wh.plnk/12.34", Some(Member::Ignored)),
            (".wh..hidden", Some(Member::Whiteout(path(".hidden")))),
            ("a.wh.b", Some(Member::File(path("a.wh.b")))),
            ("", None),
            ("../a", None),
            ("a/..", None),
            (".wh.", None),
            (".wh..", None),
            ("a/.wh...", None),
            (".wh.a/b", None),
            ("a\0b", None),
        ] {
            assert_eq!(Member::parse(raw.as_bytes()).ok(), want, "{raw:?}");
        }
    }
}
