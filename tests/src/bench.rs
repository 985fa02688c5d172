//! The benchmark: what a path costs, as ratios to a direct veth pair measured in the same run.

mod cni;
mod engine;
mod floor;
mod load;
mod ports;
mod prog;
mod report;
mod setup;

use std::time::Duration;

pub use cni::{Calls, Crowd, attachments};
pub use engine::{Containers, containers};
pub use floor::Floor;
pub use load::{End, Load};
pub use ports::{Ports, ports};
pub use prog::{Cost, costs};
pub use report::{Machine, report, report_attachments, report_containers, report_costs, report_ports};
pub use setup::{Direct, Docker, Ends, Netd, Setup};

use crate::lab::Family;

/// From where to where a load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Between two containers of one network.
    Bridge,
    /// From a container to the outside, behind the host's address.
    Masquerade,
    /// From the outside to a container's port, published by the host.
    Published,
    /// From the host itself to the same port, by its loopback address.
    Loopback,
}

impl Route {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bridge, Self::Masquerade, Self::Published, Self::Loopback];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "same bridge",
            Self::Masquerade => "masquerade",
            Self::Published => "published port",
            Self::Loopback => "published port, by loopback",
        }
    }
}

/// One figure of one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// IPv4 or IPv6.
    pub family: Family,
    /// From where to where; a direct pair has no route and serves as the measure of both.
    pub route: Option<Route>,
    /// Name of the set-up.
    pub setup: &'static str,
    /// What ran.
    pub load: Load,
    /// Transactions a second, or bits a second for a stream.
    pub rate: f64,
}

/// The port that servers listen on, and that is published for those which have to be.
const PORT: u16 = 7000;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often each figure is taken.
    pub rounds: u32,
    /// How long each figure is taken for.
    pub time: Duration,
    /// The processor that client and server share.
    pub core: usize,
}

/// Runs all loads on all set-ups, round by round, so that what else happens on the machine falls on all alike.
///
/// `progress` is told of each figure as it comes.
pub fn run(
    plan: Plan,
    setups: &[Box<dyn Setup>],
    families: &[Family],
    mut progress: impl FnMut(&Sample),
) -> Vec<Sample> {
    let mut samples = Vec::new();
    for _ in 0..plan.rounds {
        for (family, load) in families.iter().flat_map(|family| Load::ALL.map(|load| (*family, load))) {
            for setup in setups {
                for &route in setup.routes() {
                    let rate = load.run(&setup.ends(family, route), plan.time, plan.core);
                    let sample = Sample { family, route, setup: setup.name(), load, rate };
                    progress(&sample);
                    samples.push(sample);
                }
            }
        }
    }
    samples
}
