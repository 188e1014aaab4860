//! Values that are sent, each of which knows its signature.

/// A value of D-Bus.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    ObjectPath(String),
    Signature(String),
    /// The signature of the items, which an empty array can't tell.
    Array(String, Vec<Self>),
    Struct(Vec<Self>),
    Variant(Box<Self>),
}

impl Value {
    /// An array of bytes.
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().copied().map(Self::Byte).collect())
    }

    /// A name with a value of any type.
    pub(crate) fn property(name: &str, value: Self) -> Self {
        Self::Struct(vec![name.into(), Self::Variant(Box::new(value))])
    }

    /// The signature of its type.
    pub(crate) fn signature(&self) -> String {
        let single = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::Int16(_) => "n",
            Self::Uint16(_) => "q",
            Self::Int32(_) => "i",
            Self::Uint32(_) => "u",
            Self::Int64(_) => "x",
            Self::Uint64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::ObjectPath(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(items, _) => return format!("a{items}"),
            Self::Struct(fields) => return format!("({})", fields.iter().map(Self::signature).collect::<String>()),
        };
        single.to_owned()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
