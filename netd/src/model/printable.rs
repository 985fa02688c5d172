//! Text of others on a terminal or in a log.

/// A line in which no character acts: Docker takes any name for a network, one that clears the screen or forges a line of the
/// log as well.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_told_and_all_else_left() {
        assert_eq!(printable("bücher 'a\\b'"), "bücher 'a\\b'");
        assert_eq!(printable("a\x1b[2J\r\nb\u{9b}"), "a\\u{1b}[2J\\r\\nb\\u{9b}");
    }
}
