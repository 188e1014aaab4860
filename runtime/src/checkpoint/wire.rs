//! protobuf's wire format, as far as criu's messages use it: variable-length numbers, and bytes with their length in front.
//!
//! Written by hand because the messages are flat and few: a protobuf library would be larger than what starts containers.

/// A message being written. Fields stand in the order of the calls, which protobuf does not mind.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// A number, a member of an enumeration, or a truth value.
    pub(super) fn number(&mut self, field: u32, value: i64) {
        self.key(field, VARINT);
        // A negative number is the one that is as many bits in two's complement.
        self.varint(value.cast_unsigned());
    }

    /// A truth value; what is false is left out, as it is criu's default for all of them.
    pub(super) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    /// A string.
    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A message in this one.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// What has been written.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A message that is finished.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number of any type.
    Number(u64),
    /// A string, or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// As a number of 32 bits with a sign; 0 when it is none.
    pub(super) fn int(self) -> i32 {
        match self {
            // Sent with 64 bits, of which the upper half only repeats the sign.
            Self::Number(number) => number as u32 as i32,
            Self::Bytes(_) => 0,
        }
    }

    /// As text.
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// As bytes; none when it is a number.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

/// The fields of a message with their numbers; `None` when it is cut off or damaged.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).ok()?;
        match key & 7 {
            VARINT => fields.push((number, Value::Number(varint(&mut bytes)?))),
            BYTES => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                fields.push((number, Value::Bytes(value)));
                bytes = rest;
            }
            // Of a fixed length: no field that is known, but it may come.
            FIXED64 => bytes = bytes.split_at_checked(8)?.1,
            FIXED32 => bytes = bytes.split_at_checked(4)?.1,
            _ => return None,
        }
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mutation::rounds;

    #[test]
    fn the_bytes_are_protobufs() {
        let mut message = Writer::default();
        message.number(1, 150);
        message.text(2, "testing");
        message.message(3, |inner| inner.number(1, -1));
        message.flag(4, false);
        let mut expected = vec![0x08, 0x96, 0x01, 0x12, 7];
        expected.extend(b"testing");
        expected.extend([0x1a, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(message.finish(), expected);
        let fields = fields(&expected).unwrap();
        assert_eq!(fields[..2], [(1, Value::Number(150)), (2, Value::Bytes(b"testing"))]);
        assert_eq!(super::fields(fields[2].1.bytes()).unwrap()[0].1.int(), -1);
    }

    #[test]
    fn what_is_damaged_is_refused() {
        for bytes in [
            &[0x08][..],
            &[0x12, 5, b'a'],
            &[0x0b],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
        assert_eq!(fields(&[0x0d, 1, 2, 3, 4, 0x08, 1]), Some(vec![(1, Value::Number(1))]));
    }

    proptest! {
        #![proptest_config(rounds(256))]

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(fields(&bytes));
        }

        #[test]
        fn what_is_written_is_read(number in any::<i64>(), text in ".{0,20}") {
            let mut message = Writer::default();
            message.number(16, number);
            message.text(2000, &text);
            let bytes = message.finish();
            prop_assert_eq!(fields(&bytes).unwrap(), vec![(16, Value::Number(number.cast_unsigned())), (2000, Value::Bytes(text.as_bytes()))]);
        }
    }
}
