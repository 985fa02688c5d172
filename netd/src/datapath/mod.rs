//! The kernel half as the daemon sees it: programs, links and maps, pinned so that they outlive the daemon.
//!
//! ```text
//! <pins>/maps/NAME             every map of netd-ebpf/src/maps.rs
//! <pins>/programs/NAME         the programs in force
//! <pins>/programs/build        a symbolic link that says of which build they are
//! <pins>/links/NAME-IFINDEX    their attachments to interfaces
//! <pins>/links/NAME            their attachments to the control groups' root
//! ```
//!
//! `<pins>` carries [`netd_common::ABI_VERSION`], and maps that are found there are compared with what this build expects
//! before they are used. Every method is a few system calls long and may be called from any thread.

mod advertise;
mod clock;
mod connections;
mod counters;
mod error;
mod flows;
mod host;
mod maps;
mod object;
mod others;
mod prefix;
mod programs;
mod publish;
mod sockets;
mod status;

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Mutex,
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
pub use netd_common::{
    addr::{IfIndex, Ipv4, Ipv6, Mac},
    bridge::{self, Network as NetworkEntry},
    endpoint::{self, Endpoint as EndpointEntry},
    event::Refused,
    fdb::FdbKey,
    fib::Uplink as UplinkEntry,
    forwarded::Foreign,
    globals::{CLOSED4, CLOSED6},
    nat::PortRange,
    policy::Trusted,
    rate::Rate as RateEntry,
    stats::{EndpointTraffic, Traffic},
};

use self::{advertise::Advertiser, error::at, maps::Maps, programs::Programs, publish::Publications};
pub use self::{
    counters::Counters,
    error::Error,
    flows::{Count, FlowView},
    maps::Observed,
    sockets::netns_cookie,
    status::{LinkStatus, MapStatus, ProgramStatus, Status},
};
use crate::model::{HostPorts, Reserver};

/// The object that netd/build.rs made of netd-ebpf.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netd-ebpf"));

/// How to open the datapath.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory on a bpffs. Made if it is missing.
    pub pins: PathBuf,
    /// The host's own `net.ipv4.ip_local_port_range`, which masquerade leaves alone.
    pub host_ports: PortRange,
    /// What the programs log: 0 for nothing (the code is not even verified), 1 for errors to 5 for traces.
    pub log_level: u8,
}

/// The datapath, open.
pub struct Datapath {
    pins: PathBuf,
    programs: Mutex<Programs>,
    advertiser: Advertiser,
    maps: Mutex<Maps>,
    publications: Mutex<Publications>,
    flows: flows::Tables,
    events: Mutex<Option<RingBuf<MapData>>>,
    logger: Mutex<Option<EbpfLogger<&'static dyn log::Log>>>,
    /// Jiffies in a second.
    hz: u32,
}

impl Datapath {
    /// Adopts the maps that are pinned, and the programs if they are of this build; else loads them, and puts them into the
    /// links that are pinned. Traffic does not notice.
    ///
    /// # Errors
    ///
    /// [`Error::Abi`] if a pinned map differs in kind or size from what this build would make; nothing is changed then.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pins = options.pins.clone();
        for directory in ["maps", "programs", "links"] {
            let path = pins.join(directory);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        let maps_at = pins.join("maps");
        if !object::check(&maps_at)? {
            // The programs have other maps than those that are about to be made.
            programs::disown(&pins)?;
        }
        let mut ebpf = object::load(OBJECT, &maps_at, options.log_level)?;
        let flows = flows::Tables::take(&mut ebpf)?;
        let mut maps = Maps::take(&mut ebpf)?;
        let publications = Publications::take(&mut ebpf, &maps)?;
        let events = object::take_events(&mut ebpf)?;
        let logger = if options.log_level == 0 { None } else { Some(EbpfLogger::init(&mut ebpf)?) };
        let build = programs::build(OBJECT, options.log_level);
        let programs = Programs::load(ebpf, &pins, build.as_deref())?;
        let advertiser = Advertiser::open(&pins.join("programs"))?;
        let hz = clock::hz()?;
        maps.set_globals(hz, options.host_ports, netns_cookie().map_err(at("SO_NETNS_COOKIE".as_ref()))?)?;
        let datapath = Self {
            pins,
            programs: Mutex::new(programs),
            advertiser,
            maps: Mutex::new(maps),
            publications: Mutex::new(publications),
            flows,
            events: Mutex::new(Some(events)),
            logger: Mutex::new(logger),
            hz,
        };
        datapath.programs().adopt_links()?;
        datapath.programs().adopt_calls()?;
        Ok(datapath)
    }

    /// Removes every link, program and map that is pinned under `pins`: the kernel frees them once nobody holds them.
    /// A directory that does not exist is fine.
    pub fn remove_pins(pins: &Path) -> Result<(), Error> {
        // Links first: a program without its maps would still run.
        for directory in ["links", "programs", "maps"] {
            let path = pins.join(directory);
            let entries = match fs::read_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(at(&path))?,
            };
            for entry in entries {
                let file = entry.map_err(at(&path))?.path();
                fs::remove_file(&file).map_err(at(&file))?;
            }
            fs::remove_dir(&path).map_err(at(&path))?;
        }
        match fs::remove_dir(pins) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(at(pins)),
        }
    }

    /// An interface of this network namespace that the programs of another netd are attached to: one with other pins than these,
    /// whether its daemon runs or not. Two would translate each other's packets.
    pub fn interface_of_another(pins: &Path) -> Result<Option<String>, Error> {
        others::interface(pins).map_err(|error| at("if_nameindex(3)".as_ref())(error.into()))
    }

    /// The ring of refused flows, to whoever asks first.
    pub fn events(&self) -> Option<RingBuf<MapData>> {
        lock(&self.events).take()
    }

    /// Hands what the programs have logged since the last call to this process' logger. Nothing at log level 0.
    pub fn flush_log(&self) {
        if let Some(logger) = lock(&self.logger).as_mut() {
            logger.flush();
        }
    }

    fn programs(&self) -> std::sync::MutexGuard<'_, Programs> {
        lock(&self.programs)
    }

    fn maps(&self) -> std::sync::MutexGuard<'_, Maps> {
        lock(&self.maps)
    }

    /// Attaches `from_container` to the host's end of a veth. Attaching twice is attaching once.
    pub fn attach_port(&self, port: IfIndex) -> Result<(), Error> {
        self.programs().attach(programs::FROM_CONTAINER, port)
    }

    /// Detaches `from_container`. Not an error if it is not attached, or the port is gone and has taken the attachment with it.
    pub fn detach_port(&self, port: IfIndex) -> Result<(), Error> {
        self.programs().detach(programs::FROM_CONTAINER, port)
    }

    /// Attaches `to_segment` to a segment's bridge. Attaching twice is attaching once.
    pub fn attach_segment(&self, bridge: IfIndex) -> Result<(), Error> {
        self.programs().attach(programs::TO_SEGMENT, bridge)
    }

    /// Detaches `to_segment`. Not an error if it is not attached.
    pub fn detach_segment(&self, bridge: IfIndex) -> Result<(), Error> {
        self.programs().detach(programs::TO_SEGMENT, bridge)
    }

    /// Writes a network's entry, and has its bridge hear the host.
    pub fn put_network(&self, number: u32, entry: &NetworkEntry) -> Result<(), Error> {
        let left = self.maps().put_network(number, entry)?;
        let mut programs = self.programs();
        if let Some(bridge) = left {
            programs.detach(programs::FROM_HOST, bridge)?;
        }
        if entry.bridge.0 == 0 { Ok(()) } else { programs.attach(programs::FROM_HOST, entry.bridge) }
    }

    /// Clears a network's entry.
    pub fn remove_network(&self, number: u32) -> Result<(), Error> {
        self.put_network(number, &NetworkEntry::default())
    }

    /// Tells which network a prefix belongs to.
    pub fn put_subnet(&self, prefix: ipnet::IpNet, network: u32) -> Result<(), Error> {
        self.maps().put_subnet(prefix, network)
    }

    /// Forgets a prefix. Not an error if it is not known.
    pub fn remove_subnet(&self, prefix: ipnet::IpNet) -> Result<(), Error> {
        self.maps().remove_subnet(prefix)
    }

    /// Lets a destination see the own addresses of a network's containers, though they are masqueraded elsewhere.
    pub fn put_exempt(&self, network: u32, destination: ipnet::IpNet) -> Result<(), Error> {
        self.maps().put_exempt(network, destination)
    }

    /// Undoes [`Self::put_exempt`]. Not an error if it is not known.
    pub fn remove_exempt(&self, network: u32, destination: ipnet::IpNet) -> Result<(), Error> {
        self.maps().remove_exempt(network, destination)
    }

    /// Translates between an external address or prefix and what it stands for, in both directions, from now on.
    pub fn put_external(&self, external: ipnet::IpNet, internal: ipnet::IpNet) -> Result<(), Error> {
        self.maps().put_external(external, internal)?;
        // Flows to it that led outside lead back in.
        self.bump_fib_generation().map(drop)
    }

    /// Undoes [`Self::put_external`]. Not an error if it is not known.
    pub fn remove_external(
        &self,
        external: ipnet::IpNet,
        internal: Option<ipnet::IpNet>,
    ) -> Result<(), Error> {
        self.maps().remove_external(external, internal)?;
        self.bump_fib_generation().map(drop)
    }

    /// Writes an endpoint: its entry, its port, its station in the FDB, its addresses.
    pub fn put_endpoint(&self, slot: u32, entry: &EndpointEntry) -> Result<(), Error> {
        self.maps().put_endpoint(slot, entry)
    }

    /// Tells which link-local addresses an endpoint was given: no other on its link may speak under them.
    pub fn put_link_locals(
        &self,
        slot: u32,
        network: u32,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        self.maps().put_link_locals(slot, network, addresses)
    }

    /// Writes how fast an endpoint may send. Its entry's flags say whether that is asked for.
    pub fn put_rate(&self, slot: u32, rate: RateEntry) -> Result<(), Error> {
        self.maps().put_rate(slot, rate)
    }

    /// Removes an endpoint: no frame finds it any more, its flows are ended, its counters are zero.
    pub fn remove_endpoint(&self, slot: u32) -> Result<(), Error> {
        self.maps().remove_endpoint(slot)?;
        self.flows.end_of(&self.programs(), slot)?;
        Ok(())
    }

    /// Makes ports of the host lead to an endpoint, from its port `container` on.
    pub fn put_publication(
        &self,
        host: &HostPorts,
        endpoint: u32,
        container: u16,
        reserved_by: Reserver,
    ) -> Result<(), Error> {
        let is_endpoints = self.maps().is_endpoints(host.address);
        lock(&self.publications).put(host, endpoint, container, reserved_by, is_endpoints)
    }

    /// Makes ports of the host lead nowhere again. Not an error if they do not lead anywhere.
    pub fn remove_publication(&self, host: &HostPorts) -> Result<(), Error> {
        lock(&self.publications).remove(host)
    }

    /// Ends the flows that came to a published port which does not lead to their end any more, and returns how many; and the
    /// host's own TCP connections by such a port, if the kernel does that (`CONFIG_INET_DIAG_DESTROY`): else what they send is
    /// dropped, and they time out.
    pub fn end_unpublished(&self) -> Result<u32, Error> {
        let ended = self.flows.end_unpublished(&self.programs())?;
        if let Err(error) = self.end_dialled() {
            log::warn!("the host's own connections by ports that are published no more time out: {error}");
        }
        Ok(ended)
    }

    /// Makes every flow look its route up again. Returns the new generation.
    pub fn bump_fib_generation(&self) -> Result<u32, Error> {
        self.maps().bump_fib_generation()
    }

    /// What the maps and links hold.
    pub fn observe(&self) -> Result<Observed, Error> {
        let mut observed = self.maps().observe()?;
        observed.ports = self.programs().attached(programs::FROM_CONTAINER)?;
        observed.bridges = self.programs().attached(programs::FROM_HOST)?;
        observed.segments = self.programs().attached(programs::TO_SEGMENT)?;
        observed.publications = lock(&self.publications).observe()?;
        Ok(observed)
    }

    /// Which networks trust which uplinks.
    pub fn trusted(&self) -> Result<BTreeSet<Trusted>, Error> {
        self.maps().trusted()
    }

    /// Lets a network's published ports be reached at the endpoints' own addresses from an uplink.
    pub fn put_trusted(&self, pair: Trusted) -> Result<(), Error> {
        self.maps().put_trusted(pair)
    }

    /// Undoes [`Self::put_trusted`]. Not an error if it is not known.
    pub fn remove_trusted(&self, pair: Trusted) -> Result<(), Error> {
        self.maps().remove_trusted(pair)
    }

    /// Ends bindings, and flows that came to them, where networks have no endpoint-independent mapping or filtering any more;
    /// returns how many.
    pub fn end_unbound(&self) -> Result<u32, Error> {
        self.flows.end_unbound(&self.programs())
    }

    /// Ends the flows whose time is up; returns how many.
    pub fn sweep(&self) -> Result<u32, Error> {
        self.flows.end_expired(&self.programs())
    }

    /// Live flows.
    pub fn flows(&self) -> Result<Vec<FlowView>, Error> {
        self.flows.list(&self.programs(), self.hz)
    }

    /// The forwarding database: station and endpoint's slot.
    pub fn fdb(&self) -> Result<Vec<(FdbKey, u32)>, Error> {
        self.maps().fdb()
    }

    /// All counters, summed over the CPUs.
    pub fn counters(&self) -> Result<Counters, Error> {
        self.maps().counters()
    }

    /// The traffic of one endpoint's slot, summed over the CPUs.
    pub fn traffic(&self, slot: u32) -> Result<EndpointTraffic, Error> {
        self.maps().traffic(slot)
    }

    /// What is loaded, attached and filled.
    pub fn status(&self) -> Result<Status, Error> {
        let publications = lock(&self.publications).count();
        status::read(&self.pins, &self.programs(), &self.flows, &mut self.maps(), publications)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while the lock was held has left a map half written at worst; the next reconciliation mends that.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
