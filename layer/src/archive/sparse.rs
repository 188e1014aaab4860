//! Where the stored bytes of a sparse file belong.

use super::header::push_segment;
use super::{BLOCK, pax};

/// A run of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Segments ascend, do not overlap, end within the file, and are as long as what is stored.
pub(super) fn validate(segments: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    if size > i64::MAX as u64 {
        return Err("a sparse file beyond 2^63 bytes");
    }
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err("a sparse map out of order");
        }
        end =
            segment.offset.checked_add(segment.len).filter(|end| *end <= size).ok_or("a sparse map beyond its file")?;
        sum += segment.len;
    }
    if sum == stored { Ok(()) } else { Err("a sparse map that contradicts the size") }
}

/// Reads one continuation block of an old GNU map; tells whether another follows.
pub(super) fn extend(block: &[u8; BLOCK], segments: &mut Vec<Segment>) -> Result<bool, String> {
    let mut raw = tar::GnuExtSparseHeader::new();
    raw.as_mut_bytes().copy_from_slice(block);
    for slot in raw.sparse() {
        push_segment(slot, segments)?;
    }
    if segments.len() > SEGMENTS_MAX {
        return Err(TOO_MANY.to_owned());
    }
    Ok(raw.is_extended())
}

/// The map of GNU sparse 1.0: decimal numbers on lines of their own, the first of them the number of pairs, padded to
/// whole blocks.
#[derive(Debug, Default)]
pub(super) struct DataMap {
    fed: u64,
    digits: Vec<u8>,
    expected: Option<u64>,
    offset: Option<u64>,
    segments: Vec<Segment>,
}

impl DataMap {
    /// How much may be fed at most; `None` when the map is complete and its padding read.
    pub(super) fn bytes_needed(&self) -> Option<u64> {
        if self.is_complete() && self.fed.is_multiple_of(BLOCK as u64) {
            return None;
        }
        Some(BLOCK as u64 - self.fed % BLOCK as u64)
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.fed += bytes.len() as u64;
        for byte in bytes {
            if self.is_complete() {
                return Ok(());
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Err("a sparse map that is malformed");
                }
                continue;
            }
            let number = pax::decimal(&self.digits).map_err(|_text| "a sparse map that is malformed")?;
            self.digits.clear();
            match (self.expected, self.offset.take()) {
                (None, _) if number > SEGMENTS_MAX as u64 => return Err(TOO_MANY),
                (None, _) => self.expected = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => self.segments.push(Segment { offset, len: number }),
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<Segment> {
        self.segments
    }

    fn is_complete(&self) -> bool {
        self.expected == Some(self.segments.len() as u64)
    }
}

/// 16 MiB of memory; no real file has as many holes.
const SEGMENTS_MAX: usize = 1 << 20;
const TOO_MANY: &str = "a sparse map of more than a million segments";
