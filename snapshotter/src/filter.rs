//! containerd's filter expressions, as far as snapshots have fields: `name==x`, `kind!=active`, `labels."a.b"==c`,
//! `labels.seen`; a comma means "and". Several filters mean "or".

use crate::{Error, Info, Result};

/// One filter: conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    field: Field,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Present,
    Equals(String),
    Differs(String),
}

impl Filter {
    /// Understands one filter expression.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what containerd would refuse, and for `~=`, which needs regular expressions.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::Invalid { what: format!("filter {text:?}: {why}") };
        let mut rest = text;
        let mut conditions = Vec::new();
        loop {
            let (path, after) = field_path(rest).ok_or_else(|| invalid("a field is expected"))?;
            let field = Field::parse(&path).ok_or_else(|| invalid("snapshots have no such field"))?;
            let (test, after) = if let Some(after) = after.strip_prefix("==") {
                let (value, after) = value(after).ok_or_else(|| invalid("a value is expected"))?;
                (Test::Equals(value), after)
            } else if let Some(after) = after.strip_prefix("!=") {
                let (value, after) = value(after).ok_or_else(|| invalid("a value is expected"))?;
                (Test::Differs(value), after)
            } else if after.starts_with("~=") {
                return Err(invalid("regular expressions are not supported"));
            } else {
                (Test::Present, after)
            };
            conditions.push(Condition { field, test });
            rest = match after.strip_prefix(',') {
                Some(after) => after,
                None if after.is_empty() => return Ok(Self(conditions)),
                None => return Err(invalid("an operator or a comma is expected")),
            };
        }
    }

    /// Whether a snapshot fits.
    #[must_use]
    pub fn fits(&self, info: &Info) -> bool {
        self.0.iter().all(|condition| {
            let value = condition.field.of(info);
            match &condition.test {
                Test::Present => value.is_some(),
                Test::Equals(wanted) => value.as_deref() == Some(wanted),
                Test::Differs(unwanted) => value.as_deref() != Some(unwanted),
            }
        })
    }
}

impl Field {
    fn parse(path: &[String]) -> Option<Self> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["name"] => Some(Self::Name),
            ["parent"] => Some(Self::Parent),
            ["kind"] => Some(Self::Kind),
            ["labels", key @ ..] if !key.is_empty() => Some(Self::Label(key.join("."))),
            _ => None,
        }
    }

    fn of(&self, info: &Info) -> Option<String> {
        match self {
            Self::Name => Some(info.name.clone()),
            Self::Parent => Some(info.parent.clone().unwrap_or_default()),
            Self::Kind => Some(info.kind.to_string()),
            Self::Label(key) => info.labels.get(key).cloned(),
        }
    }
}

/// Parts joined by dots, each a word or quoted; and what follows.
fn field_path(mut text: &str) -> Option<(Vec<String>, &str)> {
    let mut path = Vec::new();
    loop {
        let (part, rest) = if text.starts_with('"') { quoted(text)? } else { word(text, is_field_symbol)? };
        path.push(part);
        match rest.strip_prefix('.') {
            Some(rest) => text = rest,
            None => return Some((path, rest)),
        }
    }
}

fn value(text: &str) -> Option<(String, &str)> {
    if text.starts_with('"') {
        quoted(text)
    } else {
        word(text, |symbol| !matches!(symbol, ',' | '"') && !symbol.is_whitespace())
    }
}

fn is_field_symbol(symbol: char) -> bool {
    symbol.is_alphanumeric() || matches!(symbol, '_' | '-' | '/')
}

fn word(text: &str, belongs: impl Fn(char) -> bool) -> Option<(String, &str)> {
    let end = text.find(|symbol| !belongs(symbol)).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// A text in double quotes, where a backslash protects a quote or a backslash.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut symbols = text.strip_prefix('"')?.char_indices();
    let mut inner = String::new();
    while let Some((at, symbol)) = symbols.next() {
        match symbol {
            '"' => return Some((inner, &text[at + 2..])),
            '\\' => match symbols.next()?.1 {
                escaped @ ('"' | '\\') => inner.push(escaped),
                _ => return None,
            },
            symbol => inner.push(symbol),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use dhow_api::Timestamp;

    use super::*;
    use crate::Kind;

    #[test]
    fn fits() {
        let info = Info {
            name: "sha256:ab".to_owned(),
            parent: None,
            kind: Kind::Committed,
            created: Timestamp::new(0, 0),
            updated: Timestamp::new(0, 0),
            labels: [("a.b/c".to_owned(), "x,\"y".to_owned()), ("plain".to_owned(), "1".to_owned())].into(),
        };
        for (filter, want) in [
            ("name==sha256:ab", Some(true)),
            ("name!=sha256:ab", Some(false)),
            ("kind==committed", Some(true)),
            ("kind==active", Some(false)),
            ("parent==\"\"", Some(true)),
            ("labels.plain==1,kind==committed", Some(true)),
            ("labels.plain==1,kind==view", Some(false)),
            ("labels.\"a.b/c\"==\"x,\\\"y\"", Some(true)),
            ("labels.\"a.b/c\"", Some(true)),
            ("labels.none", Some(false)),
            ("labels.none!=x", Some(true)),
            ("labels", None),
            ("nonsense==1", None),
            ("name~=a", None),
            ("name==", None),
            ("name=x", None),
            ("", None),
            ("name==a,", None),
            ("name==\"a", None),
        ] {
            assert_eq!(Filter::parse(filter).ok().map(|filter| filter.fits(&info)), want, "{filter}");
        }
    }
}
