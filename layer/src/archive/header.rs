//! One 512-byte header block.

use super::BLOCK;
use super::sparse::Segment;

/// What a header is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TypeFlag {
    File,
    HardLink,
    Symlink,
    Device { block: bool },
    Directory,
    Fifo,
    GnuSparse,
    GnuLongName,
    GnuLongLink,
    Pax,
    PaxGlobal,
}

/// The fields of a header, decoded.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) type_flag: TypeFlag,
    /// The type flag is the NUL of the oldest tars.
    pub(super) v7_type: bool,
    pub(super) name: Vec<u8>,
    pub(super) link_name: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    /// Major and minor, for devices only: elsewhere the fields may hold anything.
    pub(super) device: Option<(u32, u32)>,
    pub(super) gnu_sparse: Option<GnuSparse>,
}

/// The start of an old-style GNU sparse map.
#[derive(Debug)]
pub(super) struct GnuSparse {
    pub(super) segments: Vec<Segment>,
    pub(super) extended: bool,
    pub(super) real_size: u64,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, String> {
        let raw = tar::Header::from_byte_slice(block);
        let old = raw.as_old();
        verify_checksum(block, &old.cksum)?;
        let v7_type = old.linkflag[0] == 0;
        let type_flag = type_flag(old.linkflag[0])?;
        let device = match type_flag {
            TypeFlag::Device { .. } => Some(device(raw)?),
            _ => None,
        };
        let gnu_sparse = match (type_flag, raw.as_gnu()) {
            (TypeFlag::GnuSparse, Some(gnu)) => Some(GnuSparse::parse(gnu)?),
            _ => None,
        };
        Ok(Self {
            type_flag,
            v7_type,
            name: full_name(raw, block),
            link_name: text(&old.linkname).to_vec(),
            // Some writers put the file type's bits above the permissions.
            mode: u32::try_from(number(&old.mode, "mode")? & 0o7777).unwrap_or_default(),
            uid: number(&old.uid, "owner")?,
            gid: number(&old.gid, "group")?,
            size: unsigned(&old.size, "size")?,
            mtime: number(&old.mtime, "time")?,
            device,
            gnu_sparse,
        })
    }
}

impl GnuSparse {
    fn parse(gnu: &tar::GnuHeader) -> Result<Self, String> {
        let mut segments = Vec::new();
        for raw in &gnu.sparse {
            push_segment(raw, &mut segments)?;
        }
        Ok(Self { segments, extended: gnu.isextended[0] != 0, real_size: unsigned(&gnu.realsize, "real size")? })
    }
}

/// Adds what one slot of a sparse map says; an empty slot says nothing.
pub(super) fn push_segment(raw: &tar::GnuSparseHeader, segments: &mut Vec<Segment>) -> Result<(), String> {
    if raw.offset[0] != 0 && raw.numbytes[0] != 0 {
        segments.push(Segment {
            offset: unsigned(&raw.offset, "sparse offset")?,
            len: unsigned(&raw.numbytes, "sparse length")?,
        });
    }
    Ok(())
}

/// The contents of a GNU long name: a text with one or more NULs behind it.
pub(super) fn long_text(mut raw: Vec<u8>) -> Option<Vec<u8>> {
    let end = raw.iter().position(|byte| *byte == 0).unwrap_or(raw.len());
    if raw[end..].iter().any(|byte| *byte != 0) {
        return None;
    }
    raw.truncate(end);
    Some(raw)
}

/// A number that must not be negative.
fn unsigned(field: &[u8], what: &str) -> Result<u64, String> {
    u64::try_from(number(field, what)?).map_err(|_negative| format!("a negative {what}"))
}

/// Octal digits between spaces and NULs (nothing at all is zero), or GNU's base-256: the first bit set, the rest a
/// big-endian two's complement.
fn number(field: &[u8], what: &str) -> Result<i64, String> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            // The marker bit is not part of the number; it becomes a copy of the sign.
            let byte = match (index, negative) {
                (0, false) => byte & 0x7f,
                _ => *byte,
            };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_overflow| format!("a {what} beyond 64 bits"));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|byte| !matches!(byte, 0 | b' ')) || digits.iter().any(|byte| !matches!(byte, b'0'..=b'7')) {
        return Err(format!("a {what} that is no number"));
    }
    // At most twelve digits of three bits.
    Ok(digits.iter().fold(0, |value, digit| value * 8 + i64::from(digit - b'0')))
}

fn verify_checksum(block: &[u8; BLOCK], field: &[u8; 8]) -> Result<(), String> {
    let stored = number(field, "checksum")?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (index, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    // Some old systems summed signed bytes.
    if stored == unsigned || stored == signed { Ok(()) } else { Err("a wrong header checksum".to_owned()) }
}

fn type_flag(byte: u8) -> Result<TypeFlag, String> {
    Ok(match byte {
        b'0' | 0 | b'7' => TypeFlag::File,
        b'1' => TypeFlag::HardLink,
        b'2' => TypeFlag::Symlink,
        b'3' => TypeFlag::Device { block: false },
        b'4' => TypeFlag::Device { block: true },
        b'5' => TypeFlag::Directory,
        b'6' => TypeFlag::Fifo,
        b'S' => TypeFlag::GnuSparse,
        b'L' => TypeFlag::GnuLongName,
        b'K' => TypeFlag::GnuLongLink,
        b'x' => TypeFlag::Pax,
        b'g' => TypeFlag::PaxGlobal,
        other => return Err(format!("an entry of unknown type {:?}", char::from(other))),
    })
}

fn device(raw: &tar::Header) -> Result<(u32, u32), String> {
    let (major, minor) = match (raw.as_ustar(), raw.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return Err("a device in a header without device numbers".to_owned()),
    };
    let part = |field: &[u8; 8], what: &str, most: i64| {
        u32::try_from(number(field, what)?)
            .ok()
            .filter(|value| i64::from(*value) <= most)
            .ok_or_else(|| format!("a {what} out of range"))
    };
    // What the kernel's 32-bit device number holds.
    Ok((part(major, "major number", 0xfff)?, part(minor, "minor number", 0xf_ffff)?))
}

/// The name with its prefix, where the format has one.
fn full_name(raw: &tar::Header, block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&raw.as_old().name);
    let prefix = if let Some(ustar) = raw.as_ustar() {
        // star ends its header in "tar" and keeps times in the last 24 bytes of the prefix.
        let len = if &block[508..] == b"tar\0" { 131 } else { ustar.prefix.len() };
        text(&ustar.prefix[..len])
    } else if let Some(gnu) = raw.as_gnu() {
        // Go before 1.8 wrote a ustar prefix under GNU's magic, where the access time belongs; images of that age exist.
        let prefix = text(&block[345..500]);
        if number(&gnu.atime, "time").is_err() && prefix.is_ascii() { prefix } else { b"" }
    } else {
        b""
    };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_octal_and_base_256() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"644\0junk", None),
            (b"\x80\0\0\0\0\0\x01\x00", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field, "x").ok(), want, "{field:?}");
        }
    }
}
