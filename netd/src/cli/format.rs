//! How values are printed for people.

use std::io::{self, Write as _};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::{api::view::Traffic, model::printable};

/// Writes `text` to the standard output. A reader that has seen enough is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A table without lines, two spaces between columns. Columns of `numbers` are aligned to the right. A cell may have lines; what
/// else would act on the terminal is escaped.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    numbers: &[usize],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| cell.split('\n').map(printable).collect::<Vec<_>>().join("\n")));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Bytes in powers of 1000: `3.4 kB`.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], " ")
}

/// A count, short: `12`, `3.4k`, `120M`.
pub(super) fn count(count: u64) -> String {
    scaled(count, 1, &["", "k", "M", "G", "T", "P", "E"], "")
}

fn scaled(value: u64, decimals: usize, units: &[&str], gap: &str) -> String {
    if value < 1000 {
        return format!("{value}{gap}{}", units[0]).trim_end().to_owned();
    }
    let mut scaled = value as f64;
    let mut unit = 0;
    // What would be printed as 1000 is 1 of the next unit.
    while scaled >= 999.5 && unit + 1 < units.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let decimals = if scaled < 9.95 { decimals } else { 0 };
    format!("{scaled:.decimals$}{gap}{}", units[unit])
}

/// Packets above bytes.
pub(super) fn traffic(traffic: Traffic) -> String {
    format!("{}\n{}", count(traffic.packets), bytes(traffic.bytes))
}

/// A time in its two greatest units: `12s`, `3m05s`, `2h10m`, `3d04h`.
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// JSON with a line for each value, indented by four spaces, otherwise as it was: order and spelling are the daemon's.
pub(super) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let (mut in_string, mut escaped) = (false, false);
    let mut previous = ' ';
    for c in json.trim().chars() {
        if in_string {
            out.push(c);
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            previous = '"';
            continue;
        }
        if c.is_whitespace() {
            continue;
        }
        if matches!(previous, '{' | '[') && !matches!(c, '}' | ']') {
            depth += 1;
            line_feed(&mut out, depth);
        }
        match c {
            '}' | ']' if !matches!(previous, '{' | '[') => {
                depth -= 1;
                line_feed(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line_feed(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = c == '"';
                out.push(c);
            }
        }
        previous = c;
    }
    out
}

fn line_feed(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (value, as_bytes, as_count) in [
            (0, "0 B", "0"),
            (999, "999 B", "999"),
            (1000, "1.0 kB", "1.0k"),
            (9_949, "9.9 kB", "9.9k"),
            (9_960, "10 kB", "10k"),
            (999_499, "999 kB", "999k"),
            (999_999, "1.0 MB", "1.0M"),
            (u64::MAX, "18 EB", "18E"),
        ] {
            assert_eq!((&*bytes(value), &*count(value)), (as_bytes, as_count));
        }
        for (seconds, text) in [
            (0.9, "0s"),
            (59.0, "59s"),
            (65.0, "1m05s"),
            (3600.0, "1h00m"),
            (90_000.0, "1d01h"),
            (-1.0, "0s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn json_is_indented_and_left_as_it_is() {
        assert_eq!(
            indent("[{\"B\":1,\"A\":\"x, {y}: \\\"z\\\" \\\\\",\"E\":{},\"L\":[ ],\"N\":[1,[null]]}]\n"),
            r#"[
    {
        "B": 1,
        "A": "x, {y}: \"z\" \\",
        "E": {},
        "L": [],
        "N": [
            1,
            [
                null
            ]
        ]
    }
]"#
        );
        assert_eq!(indent("[]"), "[]");
    }

    #[test]
    fn columns_are_two_spaces_apart_and_lines_end_where_their_text_does() {
        let rows = [["a".to_owned(), "1".to_owned()], ["bcd".to_owned(), "12".to_owned()]];
        assert_eq!(table(["NAME", "N"], &[1], rows.into_iter()), "NAME   N\na      1\nbcd   12\n");
        let acts = [["a\x1b[2Jb".to_owned()]];
        assert_eq!(table(["NAME"], &[], acts.into_iter()), "NAME\na\\u{1b}[2Jb\n");
    }
}
