//! Builds the tree of a template from its pieces.

use serde_json::Value;

use super::lexer::{Piece, Token, pieces};
use super::{TemplateError, syntax};

/// A statement.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Expr),
    /// `{{$name := …}}` and `{{$name = …}}`
    Set {
        name: String,
        declare: bool,
        value: Expr,
    },
    If {
        condition: Expr,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    With {
        value: Expr,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    Range {
        key: Option<String>,
        item: Option<String>,
        over: Expr,
        body: Vec<Self>,
        otherwise: Vec<Self>,
    },
    Break,
    Continue,
}

/// A value to compute.
#[derive(Debug)]
pub(super) enum Expr {
    Dot,
    Variable(String),
    Literal(Value),
    /// `base.name`
    Field(Box<Self>, String),
    Call(String, Vec<Self>),
}

/// Nesting beyond this is refused: the parser recurses.
const DEEPEST: usize = 64;

/// What ended a block.
enum End {
    Input,
    Closed,
    Else(Vec<Token>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut source = pieces(text)?.into_iter();
    match block(&mut source, 0)? {
        (nodes, End::Input) => Ok(nodes),
        (_, End::Closed) => Err(syntax("unexpected {{end}}")),
        (_, End::Else(_)) => Err(syntax("unexpected {{else}}")),
    }
}

fn block(source: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, End), TemplateError> {
    if depth > DEEPEST {
        return Err(syntax("blocks are nested too deeply"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = source.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let keyword = if let Some(Token::Word(word)) = tokens.first() { word.as_str() } else { "" };
        let tail = || tokens[1..].to_vec();
        match keyword {
            "end" => return Ok((nodes, End::Closed)),
            "else" => return Ok((nodes, End::Else(tail()))),
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "if" | "with" => nodes.push(conditional(keyword == "if", tail(), source, depth)?),
            "range" => nodes.push(range(tail(), source, depth)?),
            _ => nodes.push(simple(tokens)?),
        }
    }
    Ok((nodes, End::Input))
}

fn conditional(
    is_if: bool,
    tokens: Vec<Token>,
    source: &mut std::vec::IntoIter<Piece>,
    depth: usize,
) -> Result<Node, TemplateError> {
    let value = expression(tokens)?;
    let (then, end) = block(source, depth + 1)?;
    let otherwise = match end {
        End::Input => return Err(syntax("a block has no {{end}}")),
        End::Closed => Vec::new(),
        End::Else(mut more) => {
            more.retain(|t| *t != Token::Word(String::new()));
            match more.first() {
                None => otherwise(source, depth)?,
                Some(Token::Word(word)) if word == "if" || word == "with" => {
                    vec![conditional(word == "if", more[1..].to_vec(), source, depth + 1)?]
                }
                Some(_) => return Err(syntax("only if may follow else")),
            }
        }
    };
    Ok(if is_if { Node::If { condition: value, then, otherwise } } else { Node::With { value, then, otherwise } })
}

/// The block after a plain `{{else}}`.
fn otherwise(source: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Vec<Node>, TemplateError> {
    match block(source, depth + 1)? {
        (nodes, End::Closed) => Ok(nodes),
        _ => Err(syntax("a block has no {{end}}")),
    }
}

fn range(mut tokens: Vec<Token>, source: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Node, TemplateError> {
    let (mut key, mut item) = (None, None);
    if let Some(at) = tokens.iter().position(|t| *t == Token::Declare) {
        let over = tokens.split_off(at + 1);
        match &tokens[..at] {
            [Token::Variable(name)] => item = Some(name.clone()),
            [Token::Variable(first), Token::Comma, Token::Variable(second)] => {
                key = Some(first.clone());
                item = Some(second.clone());
            }
            _ => return Err(syntax("range declares one or two variables")),
        }
        tokens = over;
    }
    let over = expression(tokens)?;
    let (body, end) = block(source, depth + 1)?;
    let otherwise = match end {
        End::Input => return Err(syntax("a block has no {{end}}")),
        End::Closed => Vec::new(),
        End::Else(_) => otherwise(source, depth)?,
    };
    Ok(Node::Range { key, item, over, body, otherwise })
}

fn simple(tokens: Vec<Token>) -> Result<Node, TemplateError> {
    if let [Token::Variable(name), sign @ (Token::Declare | Token::Assign), value @ ..] = &tokens[..] {
        return Ok(Node::Set {
            name: name.clone(),
            declare: *sign == Token::Declare,
            value: expression(value.to_vec())?,
        });
    }
    Ok(Node::Print(expression(tokens)?))
}

fn expression(tokens: Vec<Token>) -> Result<Expr, TemplateError> {
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), depth: 0 };
    let expr = parser.pipeline()?;
    match parser.tokens.next() {
        None => Ok(expr),
        Some(token) => Err(syntax(format!("unexpected {token:?} in an action"))),
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

impl Parser {
    /// `command | command …`: the value so far becomes the last argument of the next command.
    fn pipeline(&mut self) -> Result<Expr, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(syntax("parentheses are nested too deeply"));
        }
        let mut value = self.command(None)?;
        while self.tokens.next_if_eq(&Token::Pipe).is_some() {
            value = self.command(Some(value))?;
        }
        self.depth -= 1;
        Ok(value)
    }

    fn command(&mut self, piped: Option<Expr>) -> Result<Expr, TemplateError> {
        self.skip_gap();
        let call = self.tokens.next_if(|t| matches!(t, Token::Word(w) if !is_literal(w)));
        let Some(Token::Word(name)) = call else {
            return match piped {
                None => self.operand(),
                Some(_) => Err(syntax("a pipe leads into something that is no function")),
            };
        };
        let mut arguments = Vec::new();
        while !matches!(self.tokens.peek(), None | Some(Token::Pipe | Token::Close)) {
            if self.skip_gap() {
                continue;
            }
            arguments.push(self.operand()?);
        }
        arguments.extend(piped);
        Ok(Expr::Call(name, arguments))
    }

    fn operand(&mut self) -> Result<Expr, TemplateError> {
        let mut expr = match self.tokens.next() {
            Some(Token::Dot) => Expr::Dot,
            Some(Token::Field(name)) => Expr::Field(Box::new(Expr::Dot), name),
            Some(Token::Variable(name)) => Expr::Variable(name),
            Some(Token::Text(text)) => Expr::Literal(Value::from(text)),
            Some(Token::Number(number)) => Expr::Literal(Value::Number(number)),
            Some(Token::Word(word)) if word == "true" => Expr::Literal(Value::Bool(true)),
            Some(Token::Word(word)) if word == "false" => Expr::Literal(Value::Bool(false)),
            Some(Token::Word(word)) if word == "nil" => Expr::Literal(Value::Null),
            Some(Token::Word(word)) if !word.is_empty() => Expr::Call(word, Vec::new()),
            Some(Token::Open) => {
                let inner = self.pipeline()?;
                self.tokens.next_if_eq(&Token::Close).ok_or_else(|| syntax("a parenthesis is not closed"))?;
                inner
            }
            Some(token) => return Err(syntax(format!("unexpected {token:?} in an action"))),
            None => return Err(syntax("a value is missing in an action")),
        };
        while let Some(Token::Field(name)) = self.tokens.next_if(|t| matches!(t, Token::Field(_))) {
            expr = Expr::Field(Box::new(expr), name);
        }
        Ok(expr)
    }

    /// Steps over the mark that the lexer leaves between `a` and `.b` in `a .b`.
    fn skip_gap(&mut self) -> bool {
        self.tokens.next_if_eq(&Token::Word(String::new())).is_some()
    }
}

fn is_literal(word: &str) -> bool {
    matches!(word, "true" | "false" | "nil" | "")
}
