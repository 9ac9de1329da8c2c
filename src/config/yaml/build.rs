//! The tree from parser events: without recursion, and with a limit on everything that a hostile file could inflate:
//! depth, number of values (after aliases are copied in), and text.

use std::collections::HashMap;

use saphyr_parser::Event;
use saphyr_parser::Parser;
use saphyr_parser::ScalarStyle;
use saphyr_parser::ScanError;
use saphyr_parser::Span;
use saphyr_parser::Tag;

use super::tree::{Content, Entry, Node, Origin, Scalar};
use crate::config::diagnostics::{Diagnostic, Diagnostics, Location};

/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Most values in a file, with the copies that aliases make.
const MAX_NODES: usize = 1_000_000;
/// Most text in a file, with the copies that aliases make, in bytes.
const MAX_TEXT: usize = 32 * 1024 * 1024;

/// Reads a file of one document. Repeated keys are reported and left out; anything that makes the tree doubtful is
/// the error.
pub(crate) fn parse(text: &str, diagnostics: &mut Diagnostics) -> Result<Node, Diagnostic> {
    let mut builder =
        Builder { stack: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0, text: 0, diagnostics };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| not_yaml(&error, text))?;
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                let help = "keep one of them; \"---\" starts a new document";
                return Err(Diagnostic::new(start(span), "the file holds several documents", help));
            }
        }
        builder.event(event, span)?;
    }
    builder.root.filter(|root| !root.is_null()).ok_or_else(|| {
        Diagnostic::new(
            None,
            "the file is empty",
            "\"homing config example\" prints a commented configuration to start with",
        )
    })
}

fn not_yaml(error: &ScanError, text: &str) -> Diagnostic {
    let marker = error.marker();
    let line = text.lines().nth(marker.line().saturating_sub(1)).unwrap_or_default();
    let tabbed = line.trim_start_matches(' ').starts_with('\t');
    let help = if tabbed {
        "indent with spaces, not with tabs"
    } else if line.contains("${") {
        "within { } and [ ] an expansion needs quotes: \"${NAME}\""
    } else {
        "look at the indentation and the quotes here and on the line above"
    };
    Diagnostic::new(
        Location::point(marker.line(), marker.col() + 1),
        format!("this is not YAML: {}", error.info()),
        help,
    )
}

fn start(span: Span) -> Location {
    Location::point(span.start.line(), span.start.col() + 1)
}

fn extent(span: Span) -> Location {
    let (line, end_line) = (span.start.line(), span.end.line().max(span.start.line()));
    // A value of several lines is underlined to the end of its first.
    let length = if line == end_line { span.end.col().saturating_sub(span.start.col()) } else { usize::MAX };
    Location { line, column: span.start.col() + 1, length, end_line, end_column: span.end.col() + 1 }
}

/// A list or map that has begun and not ended.
struct Frame {
    location: Location,
    anchor: usize,
    /// Deepest nesting below, with copies.
    depth: usize,
    /// Values and text below, with copies, to know what an alias costs.
    nodes: usize,
    text: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, lines: HashMap<String, usize>, key: Option<(String, Location)> },
}

/// A finished value with what it costs to copy.
#[derive(Clone)]
struct Finished {
    node: Node,
    depth: usize,
    nodes: usize,
    text: usize,
    quoted_key: bool,
}

struct Builder<'f> {
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Finished>,
    nodes: usize,
    text: usize,
    diagnostics: &'f mut Diagnostics,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain || string_tag(tag.as_deref(), span)?;
                // An empty value has no text of its own; the parser may stand in a tilde at the next token.
                let empty = span.start.index() == span.end.index();
                let text = if empty && !quoted { String::new() } else { text.into_owned() };
                let location = if empty { self.empty_location(span) } else { extent(span) };
                let length = text.len();
                let node =
                    Node { content: Content::Scalar(Scalar { text, quoted }), location, origin: Origin::Literal };
                self.finish(Finished { node, depth: 0, nodes: 1, text: length, quoted_key: quoted }, anchor)
            }
            Event::Alias(anchor) => {
                let Some((depth, nodes, text)) = self.anchors.get(&anchor).map(|one| (one.depth, one.nodes, one.text))
                else {
                    return Err(Diagnostic::new(
                        extent(span),
                        "an alias stands inside the value that it means",
                        "write the value out",
                    ));
                };
                self.afford(depth, nodes, text, start(span))?;
                self.anchors.get(&anchor).cloned().map_or(Ok(()), |copy| self.attach(copy))
            }
            Event::SequenceStart(anchor, tag) => {
                string_tag(tag.as_deref(), span)?;
                self.begin(span, anchor, Inside::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                string_tag(tag.as_deref(), span)?;
                self.begin(span, anchor, Inside::Map { entries: Vec::new(), lines: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            _ => Ok(()),
        }
    }

    /// Where an empty value is shown: at its key.
    fn empty_location(&self, span: Span) -> Location {
        match self.stack.last().map(|frame| &frame.inside) {
            Some(Inside::Map { key: Some((_, location)), .. }) => *location,
            _ => start(span),
        }
    }

    fn begin(&mut self, span: Span, anchor: usize, inside: Inside) -> Result<(), Diagnostic> {
        let location = if span.start.index() == span.end.index() { start(span) } else { extent(span) };
        self.stack.push(Frame { location, anchor, depth: 0, nodes: 1, text: 0, inside });
        if self.stack.len() > MAX_DEPTH {
            return Err(too_deep(location));
        }
        Ok(())
    }

    fn end(&mut self, span: Span) -> Result<(), Diagnostic> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let mut location = frame.location;
        // A flow collection on one line is underlined whole; a block collection at its first key.
        if span.end.line() == location.line && span.end.col() >= location.column {
            location.length = span.end.col() + 1 - location.column;
        }
        (location.end_line, location.end_column) = (span.end.line().max(location.line), span.end.col() + 1);
        let content = match frame.inside {
            Inside::List(items) => Content::List(items),
            Inside::Map { entries, .. } => {
                if location.length <= 1
                    && let Some(first) = entries.first()
                {
                    location.length = first.key_location.length;
                }
                Content::Map(merge(entries, self.diagnostics))
            }
        };
        let node = Node { content, location, origin: Origin::Literal };
        let finished =
            Finished { node, depth: frame.depth + 1, nodes: frame.nodes, text: frame.text, quoted_key: true };
        self.finish(finished, frame.anchor)
    }

    fn finish(&mut self, finished: Finished, anchor: usize) -> Result<(), Diagnostic> {
        // The parts of a list or map were counted when they were finished themselves.
        let own_text = if matches!(finished.node.content, Content::Scalar(_)) { finished.text } else { 0 };
        self.afford(0, 1, own_text, finished.node.location)?;
        if anchor > 0 {
            self.afford(0, finished.nodes, finished.text, finished.node.location)?;
            self.anchors.insert(anchor, finished.clone());
        }
        self.attach(finished)
    }

    /// Counts before anything is copied.
    fn afford(&mut self, depth: usize, nodes: usize, text: usize, location: Location) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text = self.text.saturating_add(text);
        if self.stack.len() + depth > MAX_DEPTH {
            return Err(too_deep(location));
        }
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            let help =
                format!("at most {MAX_NODES} values and 32 MiB of text, where an alias counts like what it stands for");
            return Err(Diagnostic::new(location, "the file holds too many values", help));
        }
        Ok(())
    }

    fn attach(&mut self, finished: Finished) -> Result<(), Diagnostic> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(finished.node);
            return Ok(());
        };
        frame.depth = frame.depth.max(finished.depth);
        frame.nodes = frame.nodes.saturating_add(finished.nodes);
        frame.text = frame.text.saturating_add(finished.text);
        match &mut frame.inside {
            Inside::List(items) => items.push(finished.node),
            Inside::Map { entries, lines, key } => match key.take() {
                None => *key = Some(as_key(finished)?),
                Some((key, key_location)) => {
                    if let Some(line) = lines.get(&key) {
                        let help = format!("the first is on line {line}; keep one of them");
                        self.diagnostics.problem(key_location, format!("key {key:?} is written twice"), help);
                        return Ok(());
                    }
                    lines.insert(key.clone(), key_location.line);
                    entries.push(Entry { key, key_location, value: finished.node });
                }
            },
        }
        Ok(())
    }
}

fn too_deep(location: Location) -> Diagnostic {
    Diagnostic::new(location, "the file is nested too deeply", format!("at most {MAX_DEPTH} levels"))
}

fn string_tag(tag: Option<&Tag>, span: Span) -> Result<bool, Diagnostic> {
    let Some(tag) = tag else { return Ok(false) };
    match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => Ok(true),
        (true, "int" | "bool" | "null" | "float" | "seq" | "map") => Ok(false),
        _ => Err(Diagnostic::new(
            start(span),
            "YAML tags are not understood here",
            "write the value without its \"!\" tag",
        )),
    }
}

fn as_key(finished: Finished) -> Result<(String, Location), Diagnostic> {
    let location = finished.node.location;
    match finished.node.content {
        Content::Scalar(scalar) => {
            // Tells the merge key from a quoted "<<", which is a key like any other.
            let text = if finished.quoted_key && scalar.text == "<<" { "\"<<\"".to_owned() } else { scalar.text };
            Ok((text, location))
        }
        _ => Err(Diagnostic::new(
            location,
            "a key must be a word",
            "a list or a mapping cannot be a key; a value in { } needs a key before it",
        )),
    }
}

/// `<<: *common` takes the keys of a map (or of several, the first wins) that are not written here.
fn merge(mut entries: Vec<Entry>, diagnostics: &mut Diagnostics) -> Vec<Entry> {
    let Some(at) = entries.iter().position(|entry| entry.key == "<<") else { return entries };
    let Entry { value, .. } = entries.remove(at);
    let sources = match value.content {
        Content::List(items) => items,
        _ => vec![value],
    };
    for source in sources {
        let Content::Map(merged) = source.content else {
            diagnostics.problem(source.location, "\"<<\" needs a mapping", "write an alias of one: \"<<: *name\"");
            continue;
        };
        for entry in merged {
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry);
            }
        }
    }
    entries
}
