//! What the programs cost, held by the table in docs/programs.md.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use netd::datapath::{Foreign, Mac};

use crate::{
    fixture::{A, Fixture, UPLINK, index},
    packet::{L4, SYN, back, out},
};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/programs.md");
const BEGIN: &str = "<!-- begin verified instructions -->\n";
const END: &str = "<!-- end verified instructions -->\n";

/// What the number may differ by: another compiler arranges the same program a little differently.
const TOLERANCE: f64 = 0.02;

/// How much more it may be than on any kernel of the table, on one that is of none of their series: each verifier counts differently, and
/// of small programs a third more has been seen.
const OTHER_VERIFIER: f64 = 0.5;

/// A column for each kernel.
struct Table<'a> {
    kernels: Vec<&'a str>,
    /// Verified instructions by program.
    rows: BTreeMap<&'a str, Vec<f64>>,
}

impl<'a> Table<'a> {
    fn of(document: &'a str) -> Option<Self> {
        let (_, rest) = document.split_once(BEGIN)?;
        let (table, _) = rest.split_once(END)?;
        let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim);
        let mut lines = table.lines();
        let kernels = cells(lines.next()?).skip(1).collect();
        let rows = lines.skip(1).map(|line| {
            let mut cells = cells(line);
            Some((cells.next()?, cells.map(str::parse).collect::<Result<_, _>>().ok()?))
        });
        Some(Self { kernels, rows: rows.collect::<Option<_>>()? })
    }

    /// The table with what was found on a kernel.
    fn with(&self, kernel: &str, found: &BTreeMap<&str, u32>) -> String {
        let column = self.column(kernel);
        let mut kernels = self.kernels.clone();
        put(&mut kernels, column, kernel);
        let mut table =
            format!("| program | {} |\n| ---{} |\n", kernels.join(" | "), " | ---:".repeat(kernels.len()));
        for (program, &count) in found {
            let mut row = self.rows.get(program).cloned().unwrap_or_else(|| vec![0.0; self.kernels.len()]);
            put(&mut row, column, f64::from(count));
            let row: Vec<_> = row.iter().map(f64::to_string).collect();
            writeln!(table, "| {program} | {} |", row.join(" | ")).unwrap();
        }
        table
    }

    /// The kernel of the same series.
    fn column(&self, kernel: &str) -> Option<usize> {
        self.kernels.iter().position(|other| series(other) == series(kernel))
    }

    fn allows(&self, kernel: &str, program: &str, found: u32) -> bool {
        let (Some(row), found) = (self.rows.get(program), f64::from(found)) else { return false };
        match self.column(kernel) {
            Some(column) => (found - row[column]).abs() <= row[column] * TOLERANCE,
            None => found <= row.iter().copied().fold(0.0, f64::max) * (1.0 + OTHER_VERIFIER),
        }
    }
}

fn put<T>(row: &mut Vec<T>, column: Option<usize>, value: T) {
    match column {
        Some(column) => row[column] = value,
        None => row.push(value),
    }
}

/// Major and minor.
fn series(kernel: &str) -> Vec<&str> {
    kernel.split(['.', '-']).take(2).collect()
}

#[test]
fn verified_instructions_are_those_in_the_table() {
    let fixture = Fixture::new();
    // These programs are loaded when there is something to attach them to.
    fixture.tunnel();
    fixture.segment();
    fixture.sockets();
    fixture.datapath.put_foreign(index("up0"), Foreign { mac: Mac::new(UPLINK), forwards: 0 }).unwrap();
    let programs = fixture.datapath.status().unwrap().programs;
    let found: BTreeMap<_, _> = programs.iter().map(|it| (it.name.as_str(), it.instructions)).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let kernel = kernel.trim();
    let document = fs::read_to_string(TABLE).expect(TABLE);
    let table = Table::of(&document).expect("a table");
    let new = table.with(kernel, &found);
    assert!(found.keys().eq(table.rows.keys()), "put into {TABLE}:\n{new}");
    for (program, count) in found {
        assert!(table.allows(kernel, program, count), "{program}: {count}; put into {TABLE}:\n{new}");
    }
}

#[test]
fn a_flow_is_one_record_and_two_keys() {
    let fixture = Fixture::new();
    let mut count = 0;
    for v6 in [false, true] {
        for own in 0..50 {
            for sent in [L4::Udp(2000 + own, 53), L4::Tcp(2000 + own, 80, SYN)] {
                fixture.assert_leaves(A, &out(A, v6, sent));
                fixture.assert_returns(A, &back(v6, sent.reply()));
                fixture.assert_leaves(A, &out(A, v6, sent));
            }
        }
        count += 100;
        assert_eq!(fixture.drawn(u32::from(v6)), 100);
    }
    assert_eq!(fixture.keys(), [200, 200]);
    assert_eq!(fixture.flows(), count);
}
