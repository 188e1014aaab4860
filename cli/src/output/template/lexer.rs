//! Splits a template into text and actions, and an action into tokens.

use super::{TemplateError, syntax};

/// A stretch of the template.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// Copied as it stands.
    Text(String),
    /// What stood between the braces.
    Action(Vec<Token>),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.` alone
    Dot,
    /// `.Name`
    Field(String),
    /// `$name`; `$` alone has an empty name.
    Variable(String),
    /// A function or keyword.
    Word(String),
    Text(String),
    Number(serde_json::Number),
    Open,
    Close,
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Splits `text`; honours `{{-` and `-}}`, drops comments.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let mut plain = &rest[..start];
        rest = &rest[start + 2..];
        if trim {
            plain = plain.trim_start();
        }
        if let Some(after) = rest.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace)) {
            plain = plain.trim_end();
            rest = after;
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        let end = action_end(rest).ok_or_else(|| syntax("an action is not closed by }}"))?;
        let mut body = &rest[..end];
        rest = &rest[end + 2..];
        trim = body.ends_with('-') && body[..body.len() - 1].ends_with(char::is_whitespace);
        if trim {
            body = &body[..body.len() - 1];
        }
        let body = body.trim();
        if !(body.starts_with("/*") && body.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(body)?));
        }
    }
    let plain = if trim { rest.trim_start() } else { rest };
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.to_owned()));
    }
    Ok(pieces)
}

/// Where `}}` stands outside of strings.
fn action_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut i = 0;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(b'"'), b'\\') => i += 1,
            (Some(q), b) if q == b => quote = None,
            (None, b @ (b'"' | b'`')) => quote = Some(b),
            (None, b'}') if bytes.get(i + 1) == Some(&b'}') => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let name_end = |text: &str| text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        let (token, used) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' => quoted(rest)?,
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| syntax("a string is not closed"))?;
                (Token::Text(rest[1..=end].to_owned()), end + 2)
            }
            '.' => match name_end(&rest[1..]) {
                0 => (Token::Dot, 1),
                end => (Token::Field(rest[1..=end].to_owned()), end + 1),
            },
            '$' => {
                let end = name_end(&rest[1..]);
                (Token::Variable(rest[1..=end].to_owned()), end + 1)
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => {
                let end = rest[1..].find(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(rest.len(), |i| i + 1);
                let number = rest[..end].trim_start_matches('+');
                let parsed = serde_json::from_str(number).map_err(|_bad| syntax(format!("bad number {number:?}")))?;
                (Token::Number(parsed), end)
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = name_end(rest);
                (Token::Word(rest[..end].to_owned()), end)
            }
            other => return Err(syntax(format!("unexpected {other:?} in an action"))),
        };
        let after = &rest[used..];
        tokens.push(token);
        // `.A.B` continues a chain only without a space; with one, it is a new argument.
        rest = after.trim_start();
        if after.len() != rest.len() && rest.starts_with('.') {
            tokens.push(Token::Word(String::new()));
        }
    }
    Ok(tokens)
}

/// A double-quoted string with Go's escapes, and how many bytes it takes.
fn quoted(text: &str) -> Result<(Token, usize), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), i + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some(c @ ('"' | '\\' | '\'')) => value.push(c),
                _ => return Err(syntax("unknown escape in a string")),
            },
            c => value.push(c),
        }
    }
    Err(syntax("a string is not closed"))
}
