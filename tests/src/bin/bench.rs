//! Measures netd against a direct veth pair and against the kernel with Docker's rules, and writes what it found to
//! `docs/benchmarks.md`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use netd_tests::bench::{
    Direct, Docker, End, Floor, Machine, Netd, Plan, Setup, attachments, containers, costs, ports, report,
    report_attachments, report_containers, report_costs, report_ports, run,
};
use netd_tests::lab::Family;

/// netd against a direct veth pair and against the kernel with Docker's rules.
#[derive(Parser)]
struct Arguments {
    /// How often each figure is taken.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Seconds that each figure takes.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// The processor that client and server share; the last one if not given.
    #[arg(long)]
    core: Option<usize>,
    /// Containers that are attached and taken off by CNI.
    #[arg(long, default_value_t = 200)]
    attachments: usize,
    /// Endpoints on one network.
    #[arg(long, default_value_t = 1000)]
    crowd: usize,
    /// Containers of each kind that Docker Engine runs and removes.
    #[arg(long, default_value_t = 20)]
    containers: usize,
    /// One family instead of both.
    #[arg(long)]
    family: Option<Version>,
    /// Leaves a set-up out; the page is not written then.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Name>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// One end of a load: the benchmark starts itself so, in a namespace
    #[command(hide = true)]
    End(End),
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Redirect,
    Kernel,
    Netd,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(Command::End(end)) = &arguments.command {
        end.run().unwrap_or_else(|e| panic!("{e}"));
        return;
    }
    let cores = std::thread::available_parallelism().expect("the number of cores").get();
    let plan = Plan {
        rounds: arguments.rounds,
        time: Duration::from_secs_f64(arguments.seconds),
        core: arguments.core.unwrap_or(cores - 1),
    };
    let families = match arguments.family {
        None => Family::BOTH.to_vec(),
        Some(Version::V4) => vec![Family::V4],
        Some(Version::V6) => vec![Family::V6],
    };
    let mut setups: Vec<Box<dyn Setup>> = vec![Box::new(Direct::new())];
    if !arguments.without.contains(&Name::Redirect) {
        setups.push(Box::new(Floor::new()));
    }
    if !arguments.without.contains(&Name::Kernel) {
        setups.push(Box::new(Docker::new()));
    }
    if !arguments.without.contains(&Name::Netd) {
        setups.push(Box::new(Netd::new()));
    }
    let samples = run(plan, &setups, &families, |sample| {
        let route = sample.route.map_or("", |route| route.name());
        eprintln!(
            "{:?} {:26} {:24} {:12} {:.0}",
            sample.family,
            sample.load.name(),
            sample.setup,
            route,
            sample.rate
        );
    });
    let options: Vec<_> = std::env::args().skip(1).collect();
    let options = if options.is_empty() { String::new() } else { format!(" -- {}", options.join(" ")) };
    let page = report(&Machine::this(), &format!("cargo xtask bench{options}"), plan, &samples);
    let page = page + &report_ports(&ports(plan));
    let (calls, crowd) = attachments(arguments.attachments, arguments.crowd);
    let page = page + &report_attachments(&calls, &crowd);
    let page = page + &report_containers(&containers(arguments.containers));
    let (empty, costs) = costs();
    let page = page + &report_costs(empty, &costs);
    println!("{page}");
    if arguments.without.is_empty() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        fs::write(&path, page).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
    }
}
