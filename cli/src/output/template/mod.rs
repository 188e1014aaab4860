//! The part of Go's text templates that `--format` is used with: fields, indexes, pipelines, `if`, `range`, `with`,
//! variables, comparisons, and docker's functions (`json`, `join`, `split`, `upper`, …), over JSON values.
//!
//! ```text
//! {{.State.Status}}   {{json .}}   {{index .Config.Labels "a.b"}}
//! {{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.IPAddress}}{{end}}
//! ```

mod eval;
mod lexer;
mod parser;

use serde_json::Value;

pub(crate) use eval::shown;
use parser::Node;

/// A template that was parsed.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

/// Why a template is refused or fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TemplateError {
    /// The text is no template.
    #[error("template parsing error: {why}")]
    Syntax {
        /// What is wrong.
        why: String,
    },
    /// It does not fit the data.
    #[error("template execution error: {why}")]
    Execution {
        /// What is wrong.
        why: String,
    },
}

impl Template {
    /// Parses `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parser::parse(text)? })
    }

    /// Renders it with `data` as the dot.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data)
    }
}

fn syntax(why: impl Into<String>) -> TemplateError {
    TemplateError::Syntax { why: why.into() }
}

fn execution(why: impl Into<String>) -> TemplateError {
    TemplateError::Execution { why: why.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: &str) -> Result<String, TemplateError> {
        let data = json!({
            "Name": "web",
            "Size": 42,
            "Rate": 1.5,
            "Up": true,
            "Gone": null,
            "State": {"Status": "running", "Pid": 7},
            "Labels": {"a.b": "c", "x": "y"},
            "Names": ["one", "two"],
            "None": [],
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": null},
        });
        Template::parse(text)?.render(&data)
    }

    #[test]
    fn renders() {
        for (text, want) in [
            ("plain", "plain"),
            ("{{.Name}}", "web"),
            ("{{ .State.Status }}", "running"),
            ("{{.Size}} {{.Rate}} {{.Up}}", "42 1.5 true"),
            ("{{.Gone}}", "<no value>"),
            ("{{json .State}}", r#"{"Pid":7,"Status":"running"}"#),
            ("{{json .Name}}", r#""web""#),
            ("{{.State}}", "map[Pid:7 Status:running]"),
            ("{{.Names}}", "[one two]"),
            ("{{index .Labels \"a.b\"}}", "c"),
            ("{{index .Labels \"zz\"}}", "<no value>"),
            ("{{index .Names 1}}", "two"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{range .Names}}<{{.}}>{{end}}", "<one><two>"),
            ("{{range .None}}x{{else}}empty{{end}}", "empty"),
            ("{{range $i, $n := .Names}}{{$i}}={{$n}};{{end}}", "0=one;1=two;"),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a.b=c;x=y;"),
            (
                "{{range $p, $conf := .Ports}}{{$p}} {{if $conf}}{{(index $conf 0).HostPort}}{{end}};{{end}}",
                "80/tcp 8080;90/tcp ;",
            ),
            ("{{if .Up}}yes{{else}}no{{end}}", "yes"),
            ("{{if .None}}yes{{else if .Gone}}maybe{{else}}no{{end}}", "no"),
            ("{{if eq .State.Status \"running\"}}up{{end}}", "up"),
            ("{{if and .Up (gt .Size 40)}}big{{end}}", "big"),
            ("{{if not .Up}}x{{end}}", ""),
            ("{{with .State}}{{.Pid}}/{{$.Name}}{{end}}", "7/web"),
            ("{{$x := .Name}}{{$x}}{{$x = \"z\"}}{{$x}}", "webz"),
            ("{{join .Names \", \"}}", "one, two"),
            ("{{upper .Name}} {{.Name | upper | lower}} {{title .Name}}", "WEB web Web"),
            ("{{len .Names}} {{len .Name}}", "2 3"),
            (
                "{{printf \"%s-%d %q %v %5s|%-5s|%%\" .Name .Size .Name .Up .Name .Name}}",
                "web-42 \"web\" true   web|web  |%",
            ),
            ("{{println .Name}}", "web\n"),
            ("a {{- .Name -}} b", "awebb"),
            ("{{/* nothing */}}x", "x"),
            ("{{split \"a,b\" \",\"}}", "[a b]"),
            ("{{truncate .State.Status 3}}", "run"),
            ("{{range .Names}}{{if eq . \"two\"}}{{break}}{{end}}{{.}}{{end}}", "one"),
            ("{{slice .Name 1}} {{slice .Name 0 2}}", "eb we"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses() {
        for bad in [
            "{{",
            "{{.Name",
            "{{end}}",
            "{{if .Up}}",
            "{{nope .}}",
            "{{range .Names}}",
            "{{.Name}",
            "{{index}}x{{",
            "{{\"a}}",
        ] {
            let shown = render(bad);
            assert!(shown.is_err() || bad == "{{.Name}", "{bad}: {shown:?}");
        }
        for bad in ["{{.Nothing}}", "{{.Name.X}}", "{{index .Names 9}}", "{{$y}}", "{{len .Size}}"] {
            assert!(
                matches!(render(bad), Err(TemplateError::Execution { .. } | TemplateError::Syntax { .. })),
                "{bad}"
            );
        }
    }
}
