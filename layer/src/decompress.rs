//! What a blob is compressed with, found from its first bytes, and the bytes inside.
//!
//! gzip may be several members in a row (pigz, estargz), zstd several frames, some of them skippable (zstd:chunked); both
//! are read to the end of the stream, and a stream that ends inside one is an error. xz and bzip2 are not layers' formats.

use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// A plain tar.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// The compression whose magic number `start` has; [`Compression::None`] when it has no known one.
    /// Four bytes decide.
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, which zstd:chunked and pzstd may put first.
            [kind, 0x2a, 0x4d, 0x18, ..] if (0x50..=0x5f).contains(kind) => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// The uncompressed bytes of a stream whose compression was found from its start.
pub struct Decoder<R: Read> {
    compression: Compression,
    inner: Inner<Source<R>>,
}

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

enum Inner<S: BufRead> {
    Plain(S),
    Gzip(Box<MultiGzDecoder<S>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, S>>),
}

impl<R: Read> Decoder<R> {
    /// Reads the first bytes of `reader` and decides.
    ///
    /// # Errors
    /// When the stream cannot be read, or starts as xz or bzip2 does.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(MAGIC_LEN);
        reader.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        refuse_foreign(&start)?;
        let source = BufReader::with_capacity(INPUT_BUFFER, Cursor::new(start).chain(reader));
        let inner = match compression {
            Compression::None => Inner::Plain(source),
            Compression::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Inner::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { compression, inner })
    }

    /// What was found.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The underlying reader, wherever it stands.
    pub fn into_inner(self) -> R {
        match self.inner {
            Inner::Plain(source) => source,
            Inner::Gzip(decoder) => decoder.into_inner(),
            Inner::Zstd(decoder) => decoder.finish(),
        }
        .into_inner()
        .into_inner()
        .1
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(source) => source.read(buffer),
            Inner::Gzip(decoder) => decoder.read(buffer),
            Inner::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: Read> fmt::Debug for Decoder<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Decoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

fn refuse_foreign(start: &[u8]) -> io::Result<()> {
    let name = match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A'] => "bzip2",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is no compression of OCI layers")))
}

const MAGIC_LEN: usize = 6;
const INPUT_BUFFER: usize = 256 << 10;
/// 128 MiB, the window that RFC 8878's decoders need not exceed; a frame that wants more is refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let mut decoder = Decoder::new(bytes)?;
        let mut out = Vec::new();
        decoder.read_to_end(&mut out)?;
        Ok((decoder.compression(), out))
    }

    #[test]
    fn finds_each_compression() {
        let text = b"some text, some text".repeat(1000);
        assert_eq!(inflate(&text).unwrap(), (Compression::None, text.clone()));
        assert_eq!(inflate(&gzip(&text)).unwrap(), (Compression::Gzip, text.clone()));
        let frame = zstd::encode_all(&text[..], 3).unwrap();
        assert_eq!(inflate(&frame).unwrap(), (Compression::Zstd, text));
        assert_eq!(inflate(b"").unwrap(), (Compression::None, Vec::new()));
        assert_eq!(inflate(b"ab").unwrap(), (Compression::None, b"ab".to_vec()));
    }

    #[test]
    fn reads_members_and_frames_in_a_row() {
        let members = [gzip(b"one"), gzip(b""), gzip(b"two")].concat();
        assert_eq!(inflate(&members).unwrap().1, b"onetwo");
        let skippable = [&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
        let frames = [
            skippable.clone(),
            zstd::encode_all(&b"one"[..], 1).unwrap(),
            skippable.clone(),
            zstd::encode_all(&b"two"[..], 1).unwrap(),
            skippable,
        ]
        .concat();
        assert_eq!(inflate(&frames).unwrap(), (Compression::Zstd, b"onetwo".to_vec()));
    }

    #[test]
    fn truncated_and_flipped_streams_fail() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        for good in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            for cut in [good.len() - 1, good.len() / 2, 20] {
                assert!(inflate(&good[..cut]).is_err(), "cut at {cut}");
            }
        }
        let mut bad = gzip(&text);
        let middle = bad.len() / 2;
        bad[middle] ^= 0x10;
        assert!(inflate(&bad).is_err());
        let mut trailing = gzip(b"x");
        trailing.extend_from_slice(b"garbage behind it");
        assert!(inflate(&trailing).is_err());
    }

    #[test]
    fn refuses_windows_beyond_the_limit_and_foreign_formats() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        assert!(inflate(&encoder.finish().unwrap()).is_err());
        assert!(inflate(b"\xfd7zXZ\0rest").unwrap_err().to_string().contains("xz"));
    }
}
