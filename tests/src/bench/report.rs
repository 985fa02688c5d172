//! Figures as a page of Markdown.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Calls, Containers, Cost, Crowd, Load, Plan, Ports, Route, Sample};
use crate::lab::Family;

/// Where and when.
#[derive(Clone, Debug)]
pub struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    date: String,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let date = Command::new("date").args(["-u", "+%F %H:%M UTC"]).output().expect("running date");
        Self {
            processor: model.map_or("an unnamed processor", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().expect("the number of cores").get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
        }
    }
}

/// Median, least and greatest of what one figure was in all rounds.
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(samples: &[Sample], family: Family, route: Option<Route>, setup: &str, load: Load) -> Option<Self> {
        let rates = samples
            .iter()
            .filter(|s| {
                (s.family, s.setup, s.load) == (family, setup, load)
                    && (s.route == route || s.route.is_none())
            })
            .map(|s| s.rate);
        Self::among(rates.collect())
    }

    fn among(mut rates: Vec<f64>) -> Option<Self> {
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        let median = match rates.len() {
            0 => return None,
            odd if odd % 2 == 1 => rates[middle],
            _ => f64::midpoint(rates[middle - 1], rates[middle]),
        };
        Some(Self { median, least: rates[0], greatest: rates[rates.len() - 1] })
    }

    fn show(&self, load: Load) -> String {
        let (scale, digits, unit) =
            if load == Load::TcpStream { (1e9, 2, " Gbit/s") } else { (1.0, 0, "/s") };
        let [median, least, greatest] =
            [self.median, self.least, self.greatest].map(|rate| format!("{:.digits$}", rate / scale));
        format!("{median}{unit} ({least} to {greatest})")
    }
}

/// The page: machine, command, and a table for each route and family.
pub fn report(machine: &Machine, command: &str, plan: Plan, samples: &[Sample]) -> String {
    let Plan { rounds, time, .. } = plan;
    let Machine { processor, cores, kernel, date } = machine;
    let mut page = format!(
        "# Benchmarks

Written by `{command}` on {date}: {processor}, {cores} cores, Linux {kernel}.

Client and server are pinned to one core. Each figure is the median (least to greatest) of {rounds} rounds of {time:?};
all set-ups run in turn in each round. Requests and responses are one byte. Ratios are of medians.
The measure is a veth pair between two namespaces; the kernel's figures are its bridge and conntrack with the rules
that dockerd 28 writes for its default bridge, with one port published and no proxy (on loopback Docker has nothing but the
proxy, which is not here). The floor is a redirect alone: netd's ways, with programs of four
instructions that redirect whatever comes, and neither look at it nor translate it.
"
    );
    let mut setups: Vec<&str> = Vec::new();
    for sample in samples {
        if !setups.contains(&sample.setup) {
            setups.push(sample.setup);
        }
    }
    for family in [Family::V4, Family::V6] {
        if samples.iter().all(|s| s.family != family) {
            continue;
        }
        for route in Route::ALL {
            let version = if family == Family::V4 { "IPv4" } else { "IPv6" };
            let _ = write!(page, "\n## {version}, {}\n\n", route.name());
            page += &table(samples, family, route, &setups);
        }
    }
    page
}

/// The part of the page about many published ports.
pub fn report_ports(ports: &[Ports]) -> String {
    let mut page = "
## Many published ports

Published by one `netd publish`; connect, request and close from the outside through one port of them, IPv4; the daemon's
resident memory afterwards.

"
    .to_owned();
    let head = ["", "published in", "TCP connect/request/close", "of one port's", "memory"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let spreads: Vec<_> = ports.iter().filter_map(|ports| Spread::among(ports.rates.clone())).collect();
    for (ports, spread) in ports.iter().zip(&spreads) {
        rows.push(vec![
            ports.what.to_owned(),
            format!("{:.0?}", ports.published),
            spread.show(Load::TcpConnect),
            format!("{:.2}", spread.median / spreads[0].median),
            format!("{:.1} MB", ports.memory as f64 / 1e6),
        ]);
    }
    page += &align(rows);
    page
}

/// The part of the page about attaching containers.
pub fn report_attachments(calls: &[Calls], crowd: &Crowd) -> String {
    let mut page = "
## Attaching containers by CNI

Each with a published port, in turn: netd, and the reference plugins bridge, host-local and portmap, on hosts of their own.
A call is a process, as a runtime starts it. Medians; of the first and the last tenth to see whether it grows.

"
    .to_owned();
    let head = ["", "median", "least", "greatest", "first tenth", "last tenth"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for Calls { verb, plugin, times } in calls {
        let spread = |times: &[Duration]| Spread::among(times.iter().map(Duration::as_secs_f64).collect());
        let tenth = times.len().div_ceil(10);
        let parts = [times.as_slice(), &times[..tenth], &times[times.len() - tenth..]];
        let [Some(all), Some(first), Some(last)] = parts.map(spread) else { continue };
        let shown = [all.median, all.least, all.greatest, first.median, last.median];
        rows.push(vec![format!("{verb}, {plugin}")]);
        rows.last_mut()
            .expect("pushed above")
            .extend(shown.map(|seconds| format!("{:.1} ms", seconds * 1e3)));
    }
    page += &align(rows);
    let Crowd { endpoints, memory, restart, lost, sent } = crowd;
    let _ = writeln!(
        page,
        "
With {endpoints} endpoints on one network the daemon has {:.1} MB. Killed and started again it answers after {restart:.1?};
of a stream of {sent} datagrams between two of them {lost} were lost meanwhile.",
        *memory as f64 / 1e6
    );
    page
}

/// The part of the page about Docker Engine's containers: netd's after the engine's own, in pairs.
pub fn report_containers(containers: &[Containers]) -> String {
    let mut page = "
## Containers of Docker Engine

From `docker run --detach` to the end of `docker rm --force`, in turn: on a bridge network of the engine's own, with its rules
and its proxy, and on a network of netd's driver. The ratio is netd's median to the engine's: below 1, netd is faster.

"
    .to_owned();
    let mut rows = vec![["", "median", "least", "greatest", "to the engine's"].map(str::to_owned).to_vec()];
    for pair in containers.chunks(2) {
        let times = |kind: &Containers| kind.times.iter().map(Duration::as_secs_f64).collect();
        let spreads: Vec<_> = pair.iter().filter_map(|kind| Spread::among(times(kind))).collect();
        for (kind, spread) in pair.iter().zip(&spreads) {
            let mut row = vec![kind.what.to_owned()];
            row.extend(
                [spread.median, spread.least, spread.greatest].map(|time| format!("{:.0} ms", time * 1e3)),
            );
            row.push(format!("{:.2}", spread.median / spreads[0].median));
            rows.push(row);
        }
    }
    page += &align(rows);
    page
}

/// The part of the page about single programs: `empty` is what one costs that returns at once.
pub fn report_costs(empty: f64, costs: &[Cost]) -> String {
    let mut page = format!(
        "
## Nanoseconds a packet

By BPF_PROG_TEST_RUN, over the {empty:.0} ns of a program that returns at once. Masquerade changes address and port of TCP; its
packet comes from its external address every other time, so that the container is one that may send from any.

"
    );
    let mut rows = vec![["", "IPv4", "IPv6", "budget"].map(str::to_owned).to_vec()];
    for pair in costs.chunks(2) {
        let mut row = vec![pair[0].name.to_owned()];
        row.extend(pair.iter().map(|cost| format!("{:.0}", cost.nanoseconds)));
        row.push(format!("{:.0}", pair[0].budget));
        rows.push(row);
    }
    page += &align(rows);
    page
}

fn table(samples: &[Sample], family: Family, route: Route, setups: &[&str]) -> String {
    // All to the first, and the last to those between.
    let last = setups.len() - 1;
    let ratios: Vec<(usize, usize)> =
        (1..=last).map(|of| (of, 0)).chain((1..last).map(|to| (last, to))).collect();
    let mut head = vec![String::new()];
    head.extend(setups.iter().map(|&setup| setup.to_owned()));
    head.extend(ratios.iter().map(|&(of, to)| format!("{} / {}", short(setups[of]), short(setups[to]))));
    let mut rows = vec![head];
    for load in Load::ALL {
        let spreads: Vec<_> =
            setups.iter().map(|setup| Spread::of(samples, family, Some(route), setup, load)).collect();
        let mut row = vec![load.name().to_owned()];
        row.extend(spreads.iter().map(|spread| spread.as_ref().map_or("-".to_owned(), |s| s.show(load))));
        row.extend(ratios.iter().map(|&(of, to)| match (&spreads[of], &spreads[to]) {
            (Some(of), Some(to)) => format!("{:.2}", of.median / to.median),
            _ => "-".to_owned(),
        }));
        rows.push(row);
    }
    align(rows)
}

/// Rows of cells, the first of them the head, as a table of Markdown.
fn align(mut rows: Vec<Vec<String>>) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    rows.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    let mut table = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(table, "| {cell:width$} ");
        }
        table += "|\n";
    }
    table
}

/// The first word of a set-up's name.
fn short(setup: &str) -> &str {
    setup.split([',', ' ']).next().unwrap_or(setup)
}
