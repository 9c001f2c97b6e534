//! Reads the part of YAML that compose files consist of: mappings and lists in blocks, and lists and mappings of plain
//! values in one line. Anything else is read as text.

/// A key or an item of a list, with its value and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The key; `-` for an item of a list.
    pub(super) key: String,
    /// The value on the same line, without quotes; empty if there is none.
    pub(super) value: String,
    pub(super) children: Vec<Node>,
}

impl Node {
    /// Returns the child with this key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.children.iter().find(|child| child.key == key)
    }

    /// Returns the items of a list, or the value itself if there is only one.
    pub(super) fn items(&self) -> Vec<&Node> {
        let items: Vec<&Node> = self.children.iter().filter(|child| child.key == "-").collect();
        if items.is_empty() && !self.value.is_empty() { vec![self] } else { items }
    }

    /// Returns the pairs of a mapping, or of a list of `NAME=value`. A name without a value has `None`.
    pub(super) fn pairs(&self) -> Vec<(&str, Option<&str>)> {
        self.children
            .iter()
            .map(|child| match child.key.as_str() {
                "-" => match child.value.split_once('=') {
                    Some((name, value)) => (name.trim(), Some(value)),
                    None => (child.value.trim(), None),
                },
                key => (key, Some(child.value.as_str()).filter(|value| !value.is_empty())),
            })
            .collect()
    }
}

/// Parses a text. Lines that are not understood are left out.
pub(super) fn parse(text: &str) -> Node {
    // The open nodes, with their columns; the first is the root.
    let mut open: Vec<(usize, Node)> = vec![(0, Node::default())];
    for line in text.lines() {
        let line = without_comment(line);
        let content = line.trim_start();
        if content.is_empty() || content.starts_with("---") || content.starts_with('%') {
            continue;
        }
        // An item of a list may be in the same column as the key that it belongs to, so it counts as half a column
        // further to the right.
        let mut column = 2 * (line.len() - content.len()) + 2;
        let mut content = content;
        while let Some(item) = content.strip_prefix("- ").or_else(|| (content == "-").then_some("")) {
            close(&mut open, column + 1);
            let trimmed = item.trim_start();
            column += 2 * (1 + content.len() - 1 - trimmed.len());
            open.push((column - 1, Node { key: "-".to_owned(), ..Node::default() }));
            content = trimmed;
            if key_of(content).is_none() && !content.starts_with("- ") {
                set_value(&mut open.last_mut().expect("one was just added").1, content);
                content = "";
            }
        }
        if let Some((key, value)) = key_of(content) {
            close(&mut open, column);
            let mut node = Node { key: unquoted(key), ..Node::default() };
            set_value(&mut node, value);
            open.push((column, node));
        }
    }
    close(&mut open, 1);
    open.pop().map(|(_, root)| root).unwrap_or_default()
}

/// Closes the nodes that begin in this column or further to the right.
fn close(open: &mut Vec<(usize, Node)>, column: usize) {
    while open.len() > 1 && open.last().is_some_and(|(other, _)| *other >= column) {
        let (_, node) = open.pop().expect("there are several");
        open.last_mut().expect("the root stays").1.children.push(node);
    }
}

/// Splits `key: value`. Returns `None` if the text is not such a pair.
fn key_of(content: &str) -> Option<(&str, &str)> {
    let at = match content.chars().next()? {
        quote @ ('"' | '\'') => content[1..].find(quote)? + 2,
        _ => 0,
    };
    let rest = &content[at..];
    let colon = rest.find(": ").or_else(|| rest.strip_suffix(':').map(str::len))?;
    Some((content[..at + colon].trim(), content[at + colon + 1..].trim()))
}

/// Sets the value of a node: a list or mapping in one line becomes children, other text the value.
fn set_value(node: &mut Node, text: &str) {
    // An anchor, such as `&database`, names the value.
    let text = match text.strip_prefix('&').map(|rest| rest.split_once(' ')) {
        Some(Some((_, rest))) => rest.trim(),
        Some(None) => "",
        None => text,
    };
    let inside = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    if let Some(items) = inside('[', ']') {
        let items =
            split(items).into_iter().map(|item| Node { key: "-".to_owned(), value: item, children: Vec::new() });
        node.children.extend(items);
    } else if let Some(pairs) = inside('{', '}') {
        for (key, value) in split(pairs).iter().filter_map(|pair| pair.split_once(':')) {
            node.children.push(Node { key: unquoted(key), value: unquoted(value), children: Vec::new() });
        }
    } else {
        node.value = unquoted(text);
    }
}

/// Splits a text at its commas outside of quotes, and removes the quotes.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut quote) = (vec![String::new()], None);
    for character in text.chars() {
        match character {
            ',' if quote.is_none() => parts.push(String::new()),
            '"' | '\'' if quote.is_none() => {
                quote = Some(character);
                parts.last_mut().expect("never empty").push(character);
            }
            other => {
                quote = quote.filter(|quote| *quote != other);
                parts.last_mut().expect("never empty").push(other);
            }
        }
    }
    parts.iter().map(|part| unquoted(part)).filter(|part| !part.is_empty()).collect()
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inside = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    match (inside('"'), inside('\'')) {
        (Some(inside), _) => inside.replace("\\\"", "\"").replace("\\\\", "\\"),
        (None, Some(inside)) => inside.replace("''", "'"),
        (None, None) => text.to_owned(),
    }
}

/// Returns a line without the comment at its end.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        match character {
            '#' if quote.is_none() && before.is_whitespace() => return line[..at].trim_end(),
            '"' | '\'' if quote.is_none() && !before.is_alphanumeric() => quote = Some(character),
            other if quote == Some(other) => quote = None,
            _ => {}
        }
        before = character;
    }
    line.trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_lists_and_mappings_are_read() {
        let text = "# a comment\nversion: '3'\nservices:\n  db: # the database\n    image: \"postgres:16\"\n    environment:\n      \
                    POSTGRES_DB: shop\n      POSTGRES_PASSWORD: 'p#x''y'\n      EMPTY:\n    ports:\n    - \"5432:5432\"\n    \
                    - target: 5432\n      published: 5433\n  other:\n    environment:\n      - POSTGRES_DB=a=b # x\n      - \
                    PASSED\n    ports: [ '1:2', 3:4 ]\n    build: { context: ., target: dev }\nvolumes: {}\n";
        let root = parse(text);
        let services = root.get("services").expect("services");
        let db = services.get("db").expect("a service");
        assert_eq!(db.get("image").map(|image| image.value.as_str()), Some("postgres:16"));
        let pairs = db.get("environment").map(Node::pairs).unwrap_or_default();
        assert_eq!(pairs, [("POSTGRES_DB", Some("shop")), ("POSTGRES_PASSWORD", Some("p#x'y")), ("EMPTY", None)]);
        let ports = db.get("ports").map(Node::items).unwrap_or_default();
        assert_eq!(ports[0].value, "5432:5432");
        assert_eq!(ports[1].get("published").map(|port| port.value.as_str()), Some("5433"));
        let other = services.get("other").expect("a service");
        let pairs = other.get("environment").map(Node::pairs).unwrap_or_default();
        assert_eq!(pairs, [("POSTGRES_DB", Some("a=b")), ("PASSED", None)]);
        let ports: Vec<_> = other.get("ports").map(Node::items).unwrap_or_default();
        assert_eq!(ports.iter().map(|port| port.value.as_str()).collect::<Vec<_>>(), ["1:2", "3:4"]);
        assert_eq!(
            other.get("build").and_then(|build| build.get("target")).map(|node| node.value.as_str()),
            Some("dev")
        );
        assert!(root.get("volumes").is_some_and(|node| node.children.is_empty()));
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        for text in
            ["", "-", "- - a: b", ":", "'", "a: \"", "\t- x", "a:\n- b\n- c: d\n  e: f\ng: [", "é: ü # ß", "? x"]
        {
            let _ = parse(text);
        }
        let root = parse("a:\n- b\n- c: d\n  e: f\ng: h\n");
        let items = root.get("a").map(Node::items).unwrap_or_default();
        assert_eq!((items.len(), items[0].value.as_str()), (2, "b"));
        assert_eq!(items[1].get("e").map(|node| node.value.as_str()), Some("f"));
        assert_eq!(root.get("g").map(|node| node.value.as_str()), Some("h"));
    }
}
