//! Runs a template's tree over a JSON value.

use std::cmp::Ordering;

use serde_json::Value;

use super::parser::{Expr, Node};
use super::{TemplateError, execution};

/// Whether a block ran to its end.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Machine<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
}

pub(super) fn render(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut machine = Machine { root: data, variables: Vec::new(), out: String::new() };
    machine.run(nodes, data)?;
    Ok(machine.out)
}

impl Machine<'_> {
    fn run(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            flow = self.step(node, dot)?;
            if flow != Flow::Next {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn step(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(expr) => {
                let value = self.eval(expr, dot)?;
                self.out.push_str(&shown(&value));
            }
            Node::Set { name, declare, value } => {
                let value = self.eval(value, dot)?;
                if *declare {
                    self.variables.push((name.clone(), value));
                } else {
                    let place = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                    place.ok_or_else(|| execution(format!("undefined variable ${name}")))?.1 = value;
                }
            }
            Node::If { condition, then, otherwise } => {
                let holds = truth(&self.eval(condition, dot)?);
                return self.run(if holds { then } else { otherwise }, dot);
            }
            Node::With { value, then, otherwise } => {
                let value = self.eval(value, dot)?;
                return if truth(&value) { self.run(then, &value) } else { self.run(otherwise, dot) };
            }
            Node::Range { key, item, over, body, otherwise } => {
                let over = self.eval(over, dot)?;
                return self.range(key.as_ref(), item.as_ref(), &over, body, otherwise, dot);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        key: Option<&String>,
        item: Option<&String>,
        over: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let pairs: Vec<(Value, &Value)> = match over {
            Value::Array(list) => list.iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect(),
            Value::Object(map) => map.iter().map(|(k, v)| (Value::from(k.as_str()), v)).collect(),
            Value::Null => Vec::new(),
            other => return Err(execution(format!("range can't iterate over {}", shown(other)))),
        };
        if pairs.is_empty() {
            return self.run(otherwise, dot);
        }
        for (index, value) in pairs {
            let scope = self.variables.len();
            self.variables.extend(key.map(|name| (name.clone(), index)));
            self.variables.extend(item.map(|name| (name.clone(), value.clone())));
            let flow = self.run(body, value)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn eval(&self, expr: &Expr, dot: &Value) -> Result<Value, TemplateError> {
        match expr {
            Expr::Dot => Ok(dot.clone()),
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Variable(name) if name.is_empty() => Ok(self.root.clone()),
            Expr::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| execution(format!("undefined variable ${name}")))
            }
            Expr::Field(base, name) => match self.eval(base, dot)? {
                Value::Object(mut map) => {
                    map.remove(name).ok_or_else(|| execution(format!("map has no entry for key {name:?}")))
                }
                Value::Null => Err(execution(format!("nil has no field {name:?}"))),
                other => Err(execution(format!("can't evaluate field {name} in {}", shown(&other)))),
            },
            Expr::Call(name, arguments) => self.call(name, arguments, dot),
        }
    }

    fn call(&self, name: &str, arguments: &[Expr], dot: &Value) -> Result<Value, TemplateError> {
        // These two look at no more arguments than they need.
        if let "and" | "or" = name {
            let mut last = Value::Null;
            for argument in arguments {
                last = self.eval(argument, dot)?;
                if truth(&last) == (name == "or") {
                    break;
                }
            }
            return Ok(last);
        }
        let values = arguments.iter().map(|a| self.eval(a, dot)).collect::<Result<Vec<_>, _>>()?;
        function(name, &values)
    }
}

fn function(name: &str, values: &[Value]) -> Result<Value, TemplateError> {
    let wrong = || execution(format!("wrong arguments for {name}"));
    let text = |i: usize| values.get(i).and_then(Value::as_str).ok_or_else(wrong);
    let number = |i: usize| {
        let number = values.get(i).and_then(Value::as_u64).ok_or_else(wrong)?;
        usize::try_from(number).map_err(|_large| wrong())
    };
    Ok(match (name, values) {
        ("json", [value]) => Value::from(value.to_string()),
        ("index", [first, rest @ ..]) => rest.iter().try_fold(first.clone(), |base, key| index(&base, key))?,
        ("len", [Value::String(text)]) => Value::from(text.len()),
        ("len", [Value::Array(list)]) => Value::from(list.len()),
        ("len", [Value::Object(map)]) => Value::from(map.len()),
        ("len", [Value::Null]) => Value::from(0),
        ("slice", [_, ..]) => {
            let whole = text(0)?;
            let start = number(1)?;
            let end = if values.len() > 2 { number(2)? } else { whole.len() };
            Value::from(whole.get(start..end).ok_or_else(wrong)?)
        }
        ("not", [value]) => Value::from(!truth(value)),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            Value::from(rest.iter().any(|other| compare(first, other) == Some(Ordering::Equal)))
        }
        ("ne", [a, b]) => Value::from(compare(a, b) != Some(Ordering::Equal)),
        ("lt", [a, b]) => Value::from(compare(a, b).ok_or_else(wrong)?.is_lt()),
        ("le", [a, b]) => Value::from(compare(a, b).ok_or_else(wrong)?.is_le()),
        ("gt", [a, b]) => Value::from(compare(a, b).ok_or_else(wrong)?.is_gt()),
        ("ge", [a, b]) => Value::from(compare(a, b).ok_or_else(wrong)?.is_ge()),
        ("print", values) => Value::from(values.iter().map(shown).collect::<Vec<_>>().join(" ")),
        ("println", values) => Value::from(values.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n"),
        ("printf", [_, ..]) => Value::from(printf(text(0)?, &values[1..])?),
        ("join", [Value::Array(list), Value::String(gap)]) => {
            Value::from(list.iter().map(shown).collect::<Vec<_>>().join(gap))
        }
        ("join", [Value::Null, _]) => Value::from(""),
        ("split", [Value::String(text), Value::String(gap)]) => text.split(gap.as_str()).collect::<Vec<_>>().into(),
        ("upper", [_]) => Value::from(text(0)?.to_uppercase()),
        ("lower", [_]) => Value::from(text(0)?.to_lowercase()),
        ("title", [_]) => Value::from(title(text(0)?)),
        ("truncate", [_, _]) => Value::from(text(0)?.chars().take(number(1)?).collect::<String>()),
        ("pad", [_, _, _]) => {
            let (before, after) = (" ".repeat(number(1)?.min(4096)), " ".repeat(number(2)?.min(4096)));
            Value::from(format!("{before}{}{after}", text(0)?))
        }
        ("html" | "js" | "urlquery" | "call", _) => {
            return Err(execution(format!("function {name:?} is not supported")));
        }
        ("json" | "index" | "len" | "slice" | "not" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "printf", _)
        | ("join" | "split" | "upper" | "lower" | "title" | "truncate" | "pad", _) => return Err(wrong()),
        _ => return Err(execution(format!("function {name:?} is not defined"))),
    })
}

fn index(base: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (base, key) {
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or(Value::Null)),
        (Value::Array(list), Value::Number(at)) => at
            .as_u64()
            .and_then(|at| list.get(usize::try_from(at).ok()?))
            .cloned()
            .ok_or_else(|| execution(format!("index out of range: {at}"))),
        (Value::Null, _) => Err(execution("index of untyped nil")),
        _ => Err(execution(format!("can't index {} with {}", shown(base), shown(key)))),
    }
}

/// Go's notion of a value that is not empty.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(holds) => *holds,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    }
}

/// A value as Go's `%v` prints it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(inner).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", inner(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

fn inner(value: &Value) -> String {
    if value.is_null() { "<nil>".to_owned() } else { shown(value) }
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// `%s %v %d %q %%` with a width and `-`; other verbs are refused.
fn printf(format: &str, values: &[Value]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let mut width = 0_usize;
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            width = (width * 10 + digit as usize).min(4096);
            chars.next();
        }
        let verb = chars.next();
        let value = values.next().ok_or_else(|| execution("printf has fewer values than verbs"))?;
        let text = match verb {
            Some('s' | 'v' | 'd' | 't') => shown(value),
            Some('q') => format!("{:?}", shown(value)),
            _ => return Err(execution("printf knows only the verbs s, v, d, t and q")),
        };
        out.push_str(&if left { format!("{text:<width$}") } else { format!("{text:>width$}") });
    }
    Ok(out)
}
