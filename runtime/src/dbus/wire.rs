//! Messages in bytes.
//!
//! ```text
//! l, type, flags, 1 │ body length │ serial │ header fields a(yv), padded to 8 │ body
//! ```
//! Every value is aligned to its own size from the start of the message (strings: 4, structs: 8).

use super::{BusError, Result, Value};

/// What a message is.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// Header fields, by their numbers.
pub(super) mod field {
    pub(crate) const PATH: u8 = 1;
    pub(crate) const INTERFACE: u8 = 2;
    pub(crate) const MEMBER: u8 = 3;
    pub(crate) const ERROR_NAME: u8 = 4;
    pub(crate) const REPLY_SERIAL: u8 = 5;
    pub(crate) const DESTINATION: u8 = 6;
    pub(crate) const SENDER: u8 = 7;
    pub(crate) const SIGNATURE: u8 = 8;
}

/// The part whose length does not vary.
pub(super) const FIXED: usize = 16;
/// More than any message that is waited for: what is greater is not read.
const GREATEST: usize = 1 << 20;

/// Values in bytes.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend_from_slice(&bytes);
    }

    fn length(&mut self, length: usize) {
        self.put(u32::try_from(length).expect("what we send is small").to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).expect("our signatures are short"));
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    /// Adds a value.
    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(on) => self.put(u32::from(*on).to_le_bytes()),
            Value::Int16(number) => self.put(number.to_le_bytes()),
            Value::Uint16(number) => self.put(number.to_le_bytes()),
            Value::Int32(number) => self.put(number.to_le_bytes()),
            Value::Uint32(number) => self.put(number.to_le_bytes()),
            Value::Int64(number) => self.put(number.to_le_bytes()),
            Value::Uint64(number) => self.put(number.to_le_bytes()),
            Value::Double(number) => self.put(number.to_le_bytes()),
            Value::Text(text) | Value::ObjectPath(text) => self.text(text),
            Value::Signature(signature) => self.signature(signature),
            Value::Array(items, values) => {
                self.length(0);
                let length = self.0.len() - 4;
                // The padding before the first item does not count.
                self.align(alignment(items));
                let start = self.0.len();
                values.iter().for_each(|value| self.value(value));
                let size = u32::try_from(self.0.len() - start).expect("what we send is small");
                self.0[length..length + 4].copy_from_slice(&size.to_le_bytes());
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|value| self.value(value));
            }
            Value::Variant(value) => {
                self.signature(&value.signature());
                self.value(value);
            }
        }
    }
}

/// Of the first type in a signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// A message to be sent: `fields` without the body's signature.
pub(super) fn encode(kind: u8, serial: u32, fields: &[(u8, Value)], body: &[Value]) -> Vec<u8> {
    let mut content = Writer::default();
    body.iter().for_each(|value| content.value(value));
    let field = |(code, value): (u8, Value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut list: Vec<_> = fields.iter().cloned().map(field).collect();
    if !body.is_empty() {
        let signature = body.iter().map(Value::signature).collect();
        list.push(field((field::SIGNATURE, Value::Signature(signature))));
    }
    let mut message = Writer(vec![b'l', kind, 0, 1]);
    message.length(content.0.len());
    message.put(serial.to_le_bytes());
    message.value(&Value::Array("(yv)".into(), list));
    message.align(8);
    message.0.extend(content.0);
    message.0
}

/// A message that has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// [`RETURN`], …
    pub(super) kind: u8,
    /// What it answers.
    pub(super) answers: Option<u32>,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(crate) sender: String,
    signature: String,
    body: Vec<u8>,
}

/// How long a message is, by its fixed part.
pub(super) fn length(fixed: &[u8; FIXED]) -> Result<usize> {
    let malformed = |problem| Err(BusError::Malformed { problem });
    if fixed[0] != b'l' {
        return malformed("it is not in little endian");
    }
    if fixed[3] != 1 {
        return malformed("its protocol is not version 1");
    }
    let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
    let (body, fields) = (number(4), number(12));
    if body > GREATEST || fields > GREATEST {
        return malformed("it is too long");
    }
    Ok((FIXED + fields).next_multiple_of(8) + body)
}

/// Reads a whole message, of the [`length`] that its fixed part tells.
pub(super) fn decode(bytes: &[u8]) -> Result<Message> {
    let mut reader = Reader { bytes, at: 1 };
    let mut message = Message { kind: reader.byte()?, ..Message::default() };
    reader.at = 4;
    let body = reader.number()? as usize;
    // Its own serial.
    reader.number()?;
    let end = reader.number()? as usize + FIXED;
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        let text = match reader.signature()?.as_str() {
            "s" | "o" => reader.text()?,
            "g" => reader.signature()?,
            "u" => {
                let number = reader.number()?;
                if code == field::REPLY_SERIAL {
                    message.answers = Some(number);
                }
                continue;
            }
            _ => return Err(BusError::Malformed { problem: "a header field of an unknown type" }),
        };
        match code {
            field::INTERFACE => message.interface = text,
            field::MEMBER => message.member = text,
            field::ERROR_NAME => message.error = text,
            field::SENDER => message.sender = text,
            field::SIGNATURE => message.signature = text,
            _ => {}
        }
    }
    reader.align(8)?;
    message.body = reader.take(body)?.to_vec();
    Ok(message)
}

impl Message {
    /// The texts (also object paths, and texts in a variant) at the front of the body, other than numbers before them.
    ///
    /// # Errors
    /// The body's signature is not `signature`, or it is cut off.
    pub(crate) fn texts(&self, signature: &str) -> Result<Vec<String>> {
        if self.signature != signature {
            return Err(BusError::Malformed { problem: "its content is of another type" });
        }
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut texts = Vec::new();
        for kind in signature.chars() {
            match kind {
                'u' => drop(reader.number()?),
                's' | 'o' => texts.push(reader.text()?),
                'v' if reader.signature()? == "s" => texts.push(reader.text()?),
                _ => return Err(BusError::Malformed { problem: "its content is of another type" }),
            }
        }
        Ok(texts)
    }

    /// What an error says.
    pub(super) fn explanation(&self) -> String {
        let text = self.signature.starts_with('s').then(|| Reader { bytes: &self.body, at: 0 }.text().ok()).flatten();
        text.unwrap_or_else(|| self.error.clone())
    }
}

/// Bytes, from the front to the back.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(BusError::Malformed { problem: "it is cut off" })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        let padding = self.at.next_multiple_of(to) - self.at;
        self.take(padding).map(drop)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32> {
        self.align(4)?;
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.number()? as usize;
        self.characters(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.byte()?);
        self.characters(length)
    }

    fn characters(&mut self, length: usize) -> Result<String> {
        let bytes = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(bytes).map_err(|_unspecific| BusError::Malformed { problem: "a text is not in UTF-8" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mutation::{damaged, damages, rounds};

    #[test]
    fn a_call_in_bytes() {
        let fields = [(field::PATH, Value::ObjectPath("/a".into())), (field::MEMBER, "M".into())];
        let message = encode(CALL, 7, &fields, &[Value::Uint64(1), "hi".into()]);
        let mut expected = b"l\x01\0\x01".to_vec();
        expected.extend(15_u32.to_le_bytes());
        expected.extend(7_u32.to_le_bytes());
        expected.extend(40_u32.to_le_bytes());
        expected.extend(b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0");
        expected.extend(b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0");
        expected.extend(b"\x08\x01g\0\x02ts\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0\x02\0\0\0hi\0");
        assert_eq!(message, expected);
    }

    #[test]
    fn an_array_of_properties_in_bytes() {
        let mut writer = Writer::default();
        writer.value(&Value::Array("(sv)".into(), vec![Value::property("A", Value::Bool(true))]));
        assert_eq!(writer.0, b"\x10\0\0\0\0\0\0\0\x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0");
        assert_eq!(Value::bytes(&[1]).signature(), "ay");
        let mut empty = Writer::default();
        empty.value(&Value::Array("(ss)".into(), Vec::new()));
        assert_eq!(empty.0, [0; 8], "an empty array is padded all the same");
    }

    #[test]
    fn an_answer_is_read() {
        let fields = [(field::REPLY_SERIAL, Value::Uint32(3)), (field::SENDER, ":1.0".into())];
        let bytes = encode(RETURN, 9, &fields, &[Value::Variant(Box::new("252".into()))]);
        let fixed: &[u8; FIXED] = bytes.first_chunk().unwrap();
        assert_eq!(length(fixed).unwrap(), bytes.len());
        let message = decode(&bytes).unwrap();
        assert_eq!((message.kind, message.answers, message.sender.as_str()), (RETURN, Some(3), ":1.0"));
        assert_eq!(message.texts("v").unwrap(), ["252"]);
        assert!(message.texts("s").is_err());
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut off after {cut}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let fixed = |body: u32, fields: u32| {
            let mut fixed = [b'l', RETURN, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            fixed[4..8].copy_from_slice(&body.to_le_bytes());
            fixed[12..].copy_from_slice(&fields.to_le_bytes());
            length(&fixed)
        };
        assert_eq!(fixed(3, 5).unwrap(), 27);
        assert!(fixed(u32::MAX, 0).is_err() && fixed(0, u32::MAX).is_err());
        let mut big_endian = [0; FIXED];
        big_endian[0] = b'B';
        assert!(length(&big_endian).is_err());
    }

    proptest! {
        #![proptest_config(rounds(1000))]

        #[test]
        fn a_damaged_message_is_read_or_refused(damages in damages()) {
            let fields = [
                (field::PATH, Value::ObjectPath("/org/freedesktop/systemd1".into())),
                (field::INTERFACE, "org.freedesktop.systemd1.Manager".into()),
                (field::MEMBER, "JobRemoved".into()),
                (field::REPLY_SERIAL, Value::Uint32(3)),
                (field::SENDER, ":1.0".into()),
            ];
            let body = [Value::Uint32(7), Value::ObjectPath("/a".into()), "unit".into(), "done".into()];
            let bytes = damaged(&encode(SIGNAL, 9, &fields, &body), &damages);
            let told = bytes.first_chunk().map(length);
            if let Some(Ok(told)) = told {
                prop_assert!(told <= 2 * (GREATEST + FIXED));
            }
            if let Ok(message) = decode(&bytes) {
                prop_assert!(message.body.len() <= bytes.len());
                drop(message.texts("uoss"));
                drop(message.explanation());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), fields in 0_u32..200) {
            let mut message = vec![b'l', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0];
            message.extend(fields.to_le_bytes());
            message.extend(&bytes);
            if let Ok(message) = decode(&message) {
                drop(message.texts("uoss"));
                drop(message.explanation());
            }
            drop(decode(&bytes));
        }
    }
}
