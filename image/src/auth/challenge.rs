//! `WWW-Authenticate`: what a registry wants to see (RFC 9110 section 11.6.1).

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from a token service (distribution's "token authentication").
    Bearer { realm: String, service: Option<String>, scope: Option<String>, error: Option<String> },
}

/// Reads the challenges of one header's value. Unknown schemes are skipped; nonsense ends the reading.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        let (scheme, after) = rest.split_at(end);
        let (parameters, after) = parameters(after.trim_start());
        let find = |key: &str| {
            parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = find("realm")
        {
            challenges.push(Challenge::Bearer {
                realm,
                service: find("service"),
                scope: find("scope"),
                error: find("error"),
            });
        }
        rest = after.trim_start_matches([' ', ',', '\t']);
    }
    challenges
}

/// `key=value, key="value"`, until something else comes: that is the next challenge.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', ',', '\t']);
        let end = start.find(|c: char| !is_token(c)).unwrap_or(start.len());
        let (key, after) = start.split_at(end);
        let Some(value) = after.trim_start().strip_prefix('=').map(str::trim_start) else { return (found, rest) };
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        if key.is_empty() {
            return (found, "");
        }
        found.push((key.to_owned(), value));
        rest = after;
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => return (value, &text[place + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>, error: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope), error: own(error) }
    }

    #[test]
    fn parses() {
        for (header, want) in [
            ("", vec![]),
            ("Basic", vec![Challenge::Basic]),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic realm=x", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.example/token",
                    Some("registry.example"),
                    Some("repository:a/b:pull,push"),
                    None,
                )],
            ),
            (
                r#"BEARER  Realm = "https://a/\"q\"" , error=insufficient_scope"#,
                vec![bearer(r#"https://a/"q""#, None, None, Some("insufficient_scope"))],
            ),
            (
                r#"Negotiate, Basic realm="a, b", Bearer realm="https://t",service="s""#,
                vec![Challenge::Basic, bearer("https://t", Some("s"), None, None)],
            ),
            ("Bearer service=x", vec![]),
            (r#"Bearer realm="unclosed"#, vec![bearer("unclosed", None, None, None)]),
            ("=,=;", vec![]),
            ("Digest nonce=\"x\", qop=auth", vec![]),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(header in "\\PC{0,60}|[A-Za-z \",=\\\\]{0,60}") {
            parse(&header);
        }
    }
}
