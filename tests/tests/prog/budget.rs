//! What the programs cost, held by the table in docs/programs.md.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use netd::datapath::Mac;

use crate::{
    fixture::{A, Fixture, UPLINK, index},
    packet::{L4, SYN, back, out},
};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/programs.md");
const BEGIN: &str = "<!-- begin verified instructions -->\n";
const END: &str = "<!-- end verified instructions -->\n";

/// What the number may differ by: another compiler arranges the same program a little differently.
const TOLERANCE: f64 = 0.02;

/// The kernel that the table was measured on, and its rows: program and verified instructions.
fn recorded(document: &str) -> Option<(&str, BTreeMap<&str, f64>)> {
    let (_, rest) = document.split_once(BEGIN)?;
    let (table, _) = rest.split_once(END)?;
    let (_, rest) = table.split_once("Kernel ")?;
    let (kernel, _) = rest.split_once('\n')?;
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        Some((cells.next()?, cells.next()?.parse().ok()?))
    });
    Some((kernel, rows.collect()))
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
    fixture.datapath.put_foreign(index("up0"), Mac::new(UPLINK)).unwrap();
    let programs = fixture.datapath.status().unwrap().programs;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let kernel = kernel.trim();
    let mut table = format!("Kernel {kernel}\n\n| program | verified instructions |\n| --- | ---: |\n");
    let mut rows: Vec<_> = programs.iter().collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    for program in rows {
        writeln!(table, "| {} | {} |", program.name, program.instructions).unwrap();
    }

    let document = fs::read_to_string(TABLE).unwrap_or_default();
    let (measured_on, recorded) =
        recorded(&document).unwrap_or_else(|| panic!("no table in {TABLE}; put this there:\n{table}"));
    // Another kernel's verifier counts differently: there the table is an upper bound and no more.
    let same_kernel = series(measured_on) == series(kernel);
    assert_eq!(recorded.len(), programs.len(), "put into {TABLE}:\n{table}");
    for program in &programs {
        let expected = recorded.get(program.name.as_str()).copied().unwrap_or_default();
        let found = f64::from(program.instructions);
        let within =
            found <= expected * (1.0 + TOLERANCE) && (!same_kernel || found >= expected * (1.0 - TOLERANCE));
        assert!(within, "{}: {found} instead of {expected}; put into {TABLE}:\n{table}", program.name);
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
