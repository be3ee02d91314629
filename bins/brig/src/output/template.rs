//! The part of Go's templates that scripts use with `--format`: fields, pipelines, `if`, `range`, `with`, and docker's
//! functions (`json`, `join`, `split`, `upper`, `lower`, `title`, `println`, …). What is not understood is an error.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 64;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, variables: Vec<String>, body: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Assign { variable: String, value: Pipeline },
}

/// Commands, each of which gets the previous one's value as its last argument.
type Pipeline = Vec<Vec<Term>>;

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// `.A.B`: a path from the current value.
    Field(Vec<String>),
    /// `$` or `$name`, and a path from it.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    Nested(Vec<Vec<Term>>),
}

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.replace("\\n", "\n").replace("\\t", "\t");
        let mut parser = Parser { pieces: pieces(&text)?, position: 0 };
        let nodes = parser.block(0, &[]).context("parse the template")?;
        Ok(Self(nodes))
    }

    /// What the template makes of a value.
    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        let mut scope = Scope { root: value, variables: Vec::new() };
        let mut output = String::new();
        render(&self.0, value, &mut scope, &mut output).context("execute the template")?;
        Ok(output)
    }

    /// The first field it prints, which names a column.
    pub(crate) fn first_field(&self) -> Option<&str> {
        self.0.iter().find_map(|node| match node {
            Node::Print(pipeline) => pipeline.iter().flatten().find_map(|term| match term {
                Term::Field(path) => path.first().map(String::as_str),
                _ => None,
            }),
            _ => None,
        })
    }
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Literal(Value),
    Pipe,
    Open,
    Close,
    Comma,
    Define,
}

/// Splits text and `{{ actions }}`; `{{-` and `-}}` trim blanks.
fn pieces(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let before = &rest[..start];
        let inner = &rest[start + 2..];
        let end = inner.find("}}").context("a {{ is not closed by }}")?;
        let mut action = &inner[..end];
        let left = action.starts_with("- ");
        let right = action.ends_with(" -");
        action = action.strip_prefix("- ").unwrap_or(action);
        action = action.strip_suffix(" -").unwrap_or(action);
        let before = if trim { before.trim_start() } else { before };
        let before = if left { before.trim_end() } else { before };
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Action(tokens(action)?));
        trim = right;
        rest = &inner[end + 2..];
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

fn tokens(action: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut characters = action.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        match character {
            ' ' | '\t' | '\n' => {}
            '|' => tokens.push(Token::Pipe),
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            ',' => tokens.push(Token::Comma),
            ':' if characters.next_if(|(_, next)| *next == '=').is_some() => {
                tokens.push(Token::Define);
            }
            '"' | '`' => {
                let mut end = None;
                let mut escaped = false;
                for (index, next) in characters.by_ref() {
                    if next == character && !escaped {
                        end = Some(index);
                        break;
                    }
                    escaped = character == '"' && next == '\\' && !escaped;
                }
                let end = end.context("a string is not closed")?;
                let body = &action[start + 1..end];
                let value = if character == '`' {
                    body.to_owned()
                } else {
                    serde_json::from_str(&action[start..=end])
                        .context("a string has an unknown escape")?
                };
                tokens.push(Token::Literal(Value::String(value)));
            }
            _ => {
                let mut end = start + character.len_utf8();
                while let Some((index, next)) =
                    characters.next_if(|(_, next)| !" \t\n|(),\"`:".contains(*next))
                {
                    end = index + next.len_utf8();
                }
                tokens.push(word(&action[start..end]));
            }
        }
    }
    Ok(tokens)
}

fn word(text: &str) -> Token {
    match text {
        "true" => Token::Literal(Value::Bool(true)),
        "false" => Token::Literal(Value::Bool(false)),
        "nil" => Token::Literal(Value::Null),
        _ => match text.parse::<i64>() {
            Ok(number) => Token::Literal(number.into()),
            Err(_) => Token::Word(text.to_owned()),
        },
    }
}

struct Parser {
    pieces: Vec<Piece>,
    position: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Piece> {
        let piece = self.pieces.get_mut(self.position)?;
        self.position += 1;
        Some(std::mem::replace(piece, Piece::Text(String::new())))
    }

    /// Parses until one of `ends`, which stays for the caller; the whole template when there are none.
    fn block(&mut self, depth: usize, ends: &[&str]) -> Result<Vec<Node>> {
        if depth > MAX_DEPTH {
            bail!("blocks are nested too deeply");
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.next() {
            let action = match piece {
                Piece::Text(text) if text.is_empty() => continue,
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let keyword = match action.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            if ends.contains(&keyword.as_str()) {
                self.position -= 1;
                self.pieces[self.position] = Piece::Action(action);
                return Ok(nodes);
            }
            nodes.push(self.action(&keyword, &action, depth)?);
        }
        if ends.is_empty() { Ok(nodes) } else { bail!("a block is not closed by {{{{end}}}}") }
    }

    fn action(&mut self, keyword: &str, action: &[Token], depth: usize) -> Result<Node> {
        let rest = action.get(1..).unwrap_or_default();
        match keyword {
            "if" => {
                let condition = pipeline(rest)?;
                let (then, otherwise) = self.branches(depth)?;
                Ok(Node::If { condition, then, otherwise })
            }
            "with" => {
                let value = pipeline(rest)?;
                let (body, otherwise) = self.branches(depth)?;
                Ok(Node::With { value, body, otherwise })
            }
            "range" => {
                let (variables, over) = range_head(rest)?;
                let (body, otherwise) = self.branches(depth)?;
                Ok(Node::Range { over, variables, body, otherwise })
            }
            "end" | "else" => bail!("{{{{{keyword}}}}} without a block"),
            "define" | "template" | "block" => bail!("{{{{{keyword}}}}} is not supported"),
            _ => match action {
                [Token::Word(name), Token::Define, value @ ..] if name.starts_with('$') => {
                    Ok(Node::Assign { variable: name.clone(), value: pipeline(value)? })
                }
                _ => Ok(Node::Print(pipeline(action)?)),
            },
        }
    }

    /// The rest of a block: its body and, after `else`, the alternative.
    fn branches(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Node>)> {
        let body = self.block(depth + 1, &["end", "else"])?;
        let Some(Piece::Action(action)) = self.next() else {
            bail!("a block is not closed by {{{{end}}}}")
        };
        if action.first() != Some(&Token::Word("else".to_owned())) {
            return Ok((body, Vec::new()));
        }
        // `{{else if …}}` is an if of its own that shares this block's end.
        if let Some(Token::Word(keyword)) = action.get(1) {
            let keyword = keyword.clone();
            let nested = self.action(&keyword, &action[1..], depth + 1)?;
            return Ok((body, vec![nested]));
        }
        let otherwise = self.block(depth + 1, &["end"])?;
        self.next();
        Ok((body, otherwise))
    }
}

fn range_head(tokens: &[Token]) -> Result<(Vec<String>, Pipeline)> {
    let Some(define) = tokens.iter().position(|token| *token == Token::Define) else {
        return Ok((Vec::new(), pipeline(tokens)?));
    };
    let variables = tokens[..define]
        .iter()
        .filter_map(|token| match token {
            Token::Word(name) if name.starts_with('$') => Some(name.clone()),
            _ => None,
        })
        .collect();
    Ok((variables, pipeline(&tokens[define + 1..])?))
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline> {
    let mut position = 0;
    let parsed = parse_pipeline(tokens, &mut position, 0)?;
    if position != tokens.len() {
        bail!("a parenthesis is closed that was not opened");
    }
    Ok(parsed)
}

fn parse_pipeline(tokens: &[Token], position: &mut usize, depth: usize) -> Result<Pipeline> {
    if depth > MAX_DEPTH {
        bail!("parentheses are nested too deeply");
    }
    let mut commands = vec![Vec::new()];
    while let Some(token) = tokens.get(*position) {
        let term = match token {
            Token::Close => break,
            Token::Pipe => {
                commands.push(Vec::new());
                *position += 1;
                continue;
            }
            Token::Open => {
                *position += 1;
                let nested = parse_pipeline(tokens, position, depth + 1)?;
                if tokens.get(*position) != Some(&Token::Close) {
                    bail!("a parenthesis is not closed");
                }
                Term::Nested(nested)
            }
            Token::Literal(value) => Term::Literal(value.clone()),
            Token::Word(word) => term(word),
            Token::Comma | Token::Define => bail!("a comma or := stands where a value should"),
        };
        if let Some(command) = commands.last_mut() {
            command.push(term);
        }
        *position += 1;
    }
    if commands.iter().any(Vec::is_empty) {
        bail!("a value is missing");
    }
    Ok(commands)
}

fn term(word: &str) -> Term {
    let path =
        |text: &str| text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if let Some(fields) = word.strip_prefix('.') {
        Term::Field(path(fields))
    } else if word.starts_with('$') {
        let (name, fields) = word.split_once('.').unwrap_or((word, ""));
        Term::Variable(name.to_owned(), path(fields))
    } else {
        Term::Function(word.to_owned())
    }
}

struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
}

fn render(nodes: &[Node], dot: &Value, scope: &mut Scope<'_>, output: &mut String) -> Result<()> {
    let outer = scope.variables.len();
    for node in nodes {
        match node {
            Node::Text(text) => output.push_str(text),
            Node::Print(pipeline) => output.push_str(&text(&evaluate(pipeline, dot, scope)?)),
            Node::Assign { variable, value } => {
                let value = evaluate(value, dot, scope)?;
                scope.variables.push((variable.clone(), value));
            }
            Node::If { condition, then, otherwise } => {
                let branch =
                    if truth(&evaluate(condition, dot, scope)?) { then } else { otherwise };
                render(branch, dot, scope, output)?;
            }
            Node::With { value, body, otherwise } => {
                let value = evaluate(value, dot, scope)?;
                if truth(&value) {
                    render(body, &value, scope, output)?;
                } else {
                    render(otherwise, dot, scope, output)?;
                }
            }
            Node::Range { over, variables, body, otherwise } => {
                let items = items(evaluate(over, dot, scope)?)?;
                if items.is_empty() {
                    render(otherwise, dot, scope, output)?;
                }
                for (key, item) in items {
                    let outer = scope.variables.len();
                    match variables.as_slice() {
                        [] => {}
                        [one] => scope.variables.push((one.clone(), item.clone())),
                        [first, second, ..] => {
                            scope.variables.push((first.clone(), key));
                            scope.variables.push((second.clone(), item.clone()));
                        }
                    }
                    render(body, &item, scope, output)?;
                    scope.variables.truncate(outer);
                }
            }
        }
    }
    scope.variables.truncate(outer);
    Ok(())
}

/// The elements to range over, with their keys; a map's in the order of its keys.
fn items(value: Value) -> Result<Vec<(Value, Value)>> {
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(index, item)| (index.into(), item)).collect()
        }
        Value::Object(map) => {
            let mut items: Vec<_> = map.into_iter().collect();
            items.sort_by(|(left, _), (right, _)| left.cmp(right));
            items.into_iter().map(|(key, item)| (Value::String(key), item)).collect()
        }
        other => bail!("range cannot iterate over {other}"),
    })
}

fn evaluate(pipeline: &[Vec<Term>], dot: &Value, scope: &Scope<'_>) -> Result<Value> {
    let mut piped = None;
    for command in pipeline {
        piped = Some(call(command, piped, dot, scope)?);
    }
    Ok(piped.unwrap_or(Value::Null))
}

fn call(command: &[Term], piped: Option<Value>, dot: &Value, scope: &Scope<'_>) -> Result<Value> {
    let Some((head, rest)) = command.split_first() else { bail!("a value is missing") };
    let Term::Function(name) = head else {
        if !rest.is_empty() || piped.is_some() {
            bail!("a value is called as if it were a function");
        }
        return operand(head, dot, scope);
    };
    let arguments: Result<Vec<Value>> = rest.iter().map(|term| operand(term, dot, scope)).collect();
    let mut arguments = arguments?;
    arguments.extend(piped);
    function(name, &arguments)
}

fn operand(term: &Term, dot: &Value, scope: &Scope<'_>) -> Result<Value> {
    match term {
        Term::Field(path) => lookup(dot, path),
        Term::Variable(name, path) if name == "$" => lookup(scope.root, path),
        Term::Variable(name, path) => {
            let found = scope.variables.iter().rev().find(|(known, _)| known == name);
            lookup(&found.with_context(|| format!("undefined variable {name}"))?.1, path)
        }
        Term::Literal(value) => Ok(value.clone()),
        Term::Nested(pipeline) => evaluate(pipeline, dot, scope),
        Term::Function(name) => function(name, &[]),
    }
}

/// Follows a path of fields. A key that is not there is `<no value>`, as for Go's maps, but a field of something that
/// has none is an error.
fn lookup(value: &Value, path: &[String]) -> Result<Value> {
    let mut current = value;
    for name in path {
        current = match current {
            Value::Object(map) => match map.get(name) {
                Some(next) => next,
                None => map
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map_or(&Value::Null, |(_, next)| next),
            },
            Value::Null => &Value::Null,
            _ => bail!("can't evaluate field {name}"),
        };
    }
    Ok(current.clone())
}

fn function(name: &str, arguments: &[Value]) -> Result<Value> {
    let text_of = |index: usize| {
        arguments.get(index).map(text).with_context(|| format!("{name} needs an argument"))
    };
    Ok(match name {
        "json" => Value::String(arguments.first().context("json needs an argument")?.to_string()),
        "upper" => Value::String(text_of(0)?.to_uppercase()),
        "lower" => Value::String(text_of(0)?.to_lowercase()),
        "title" => Value::String(title(&text_of(0)?)),
        "print" => Value::String(arguments.iter().map(text).collect()),
        "println" => Value::String(arguments.iter().map(text).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => Value::String(printf(&text_of(0)?, arguments.get(1..).unwrap_or_default())),
        "len" => length(arguments.first().context("len needs an argument")?)?.into(),
        "join" => {
            let Some(Value::Array(items)) = arguments.first() else {
                return Ok(Value::String(String::new()));
            };
            Value::String(items.iter().map(text).collect::<Vec<_>>().join(&text_of(1)?))
        }
        "split" => Value::Array(text_of(0)?.split(&text_of(1)?).map(Value::from).collect()),
        "truncate" => {
            let length =
                arguments.get(1).and_then(Value::as_u64).context("truncate needs a length")?;
            Value::String(text_of(0)?.chars().take(usize::try_from(length)?).collect())
        }
        "index" => index(arguments)?,
        "eq" => Value::Bool(arguments.iter().skip(1).any(|other| arguments.first() == Some(other))),
        "ne" => Value::Bool(arguments.first() != arguments.get(1)),
        "not" => Value::Bool(!arguments.first().is_some_and(truth)),
        "and" => arguments
            .iter()
            .find(|value| !truth(value))
            .or_else(|| arguments.last())
            .cloned()
            .unwrap_or(Value::Null),
        "or" => arguments
            .iter()
            .find(|value| truth(value))
            .or_else(|| arguments.last())
            .cloned()
            .unwrap_or(Value::Null),
        "gt" | "ge" | "lt" | "le" => {
            let number = |at: usize| {
                arguments
                    .get(at)
                    .and_then(Value::as_f64)
                    .with_context(|| format!("{name} compares numbers"))
            };
            let (left, right) = (number(0)?, number(1)?);
            Value::Bool(match name {
                "gt" => left > right,
                "ge" => left >= right,
                "lt" => left < right,
                _ => left <= right,
            })
        }
        _ => bail!("function {name:?} not defined"),
    })
}

fn index(arguments: &[Value]) -> Result<Value> {
    let (first, keys) = arguments.split_first().context("index needs an argument")?;
    let mut current = first.clone();
    for key in keys {
        current = match (&current, key) {
            (Value::Object(map), Value::String(name)) => {
                map.get(name).cloned().unwrap_or(Value::Null)
            }
            (Value::Array(items), Value::Number(number)) => {
                let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
                at.and_then(|at| items.get(at))
                    .cloned()
                    .with_context(|| format!("index out of range: {number}"))?
            }
            (Value::Null, _) => Value::Null,
            _ => bail!("index cannot be applied to {current}"),
        };
    }
    Ok(current)
}

fn length(value: &Value) -> Result<usize> {
    Ok(match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        Value::Null => 0,
        other => bail!("len of {other}"),
    })
}

/// The verbs scripts use: each of them prints the next argument, `%q` in quotes.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut arguments = arguments.iter();
    let mut output = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            output.push(character);
            continue;
        }
        match characters.next() {
            Some('%') => output.push('%'),
            Some('q') => {
                output.push_str(&format!("{:?}", arguments.next().map(text).unwrap_or_default()));
            }
            Some(_) => output.push_str(&arguments.next().map(text).unwrap_or_default()),
            None => {}
        }
    }
    output
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|character| {
            let shown = if start { character.to_ascii_uppercase() } else { character };
            start = character == ' ';
            shown
        })
        .collect()
}

/// Go's idea of truth: everything but false, zero, nil and the empty.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<String> =
                map.iter().map(|(key, item)| format!("{key}:{}", text(item))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(template: &str, value: &Value) -> Result<String> {
        Template::parse(template)?.render(value)
    }

    #[test]
    fn templates_of_scripts_work() {
        let value = json!({
            "State": {"ExitCode": 137, "Running": false, "OOMKilled": true},
            "Names": ["a", "b"],
            "NetworkSettings": {"Networks": {"net": {"IPAddress": "172.18.0.2"}, "bridge": {"IPAddress": "172.17.0.2"}}},
            "Config": {"Labels": {"a.b": "c"}},
        });
        for (template, expected) in [
            ("{{.State.ExitCode}}", "137"),
            ("{{ .State.Running }}/{{.State.OOMKilled}}", "false/true"),
            ("{{json .Names}}", "[\"a\",\"b\"]"),
            ("{{.Names}}", "[a b]"),
            ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "172.17.0.2 172.18.0.2 "),
            (
                "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}};{{end}}",
                "bridge=172.17.0.2;net=172.18.0.2;",
            ),
            ("{{index .Config.Labels \"a.b\"}}", "c"),
            ("{{if .State.Running}}up{{else if .State.OOMKilled}}oom{{else}}down{{end}}", "oom"),
            ("{{join .Names \", \" | upper}}", "A, B"),
            ("{{with .State}}{{.ExitCode}}{{end}}", "137"),
            ("{{(index .Names 1) | title}}", "B"),
            ("{{len .Names}} {{eq .State.ExitCode 137}} {{not .State.Running}}", "2 true true"),
            ("{{printf \"%s-%d\" .Names .State.ExitCode}}", "[a b]-137"),
            ("{{$x := .State.ExitCode}}{{$x}}{{$.State.ExitCode}}", "137137"),
            ("a {{- 1 -}} b", "a1b"),
            ("{{.Missing}}", "<no value>"),
            ("plain", "plain"),
        ] {
            assert_eq!(rendered(template, &value).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let value = json!({"A": 1});
        for bad in [
            "{{.A",
            "{{if .A}}",
            "{{end}}",
            "{{nope .A}}",
            "{{.A.B}}",
            "{{range .A}}{{end}}",
            "{{(.A}}",
            "{{|}}",
            "{{template \"x\"}}",
            "{{$y}}",
        ] {
            assert!(rendered(bad, &value).is_err(), "{bad}");
        }
        let deep = format!("{}{}{}", "{{".to_owned(), "(".repeat(1000), "}}");
        assert!(rendered(&deep, &value).is_err());
    }
}
