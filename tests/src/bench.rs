//! The benchmark: what a path costs, as ratios to a direct veth pair measured in the same run.

mod floor;
mod load;
mod prog;
mod report;
mod setup;

use std::net::SocketAddr;
use std::time::Duration;

pub use floor::Floor;
pub use load::{End, Load};
pub use prog::{Cost, costs};
pub use report::{Machine, report, report_costs};
pub use setup::{Direct, Docker, Netd, Setup};

use crate::lab::{Family, at};

/// From where to where a load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Between two containers of one network.
    Bridge,
    /// From a container to the outside, behind the host's address.
    Masquerade,
}

impl Route {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bridge, Self::Masquerade];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "same bridge",
            Self::Masquerade => "masquerade",
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
    const PORT: u16 = 7000;
    let mut samples = Vec::new();
    for _ in 0..plan.rounds {
        for (family, load) in families.iter().flat_map(|family| Load::ALL.map(|load| (*family, load))) {
            for setup in setups {
                for &route in setup.routes() {
                    let (client, server, address) = setup.ends(family, route);
                    let address: SocketAddr = at(address, PORT);
                    let rate = load.run(client, server, address, plan.time, plan.core);
                    let sample = Sample { family, route, setup: setup.name(), load, rate };
                    progress(&sample);
                    samples.push(sample);
                }
            }
        }
    }
    samples
}
