//! What is loaded, attached and filled.

use std::path::{Path, PathBuf};

use aya::{maps::MapInfo, util::KernelVersion};
use netd_common::addr::IfIndex;

use super::{
    Error,
    flows::{Count, Tables},
    maps::Maps,
    object::MAPS,
    programs::{HOOKS, Programs},
};

/// The datapath's state.
#[derive(Clone, Debug)]
pub struct Status {
    /// The version of the map layouts.
    pub abi: u32,
    /// Where everything is pinned.
    pub pins: PathBuf,
    /// The programs in force.
    pub programs: Vec<ProgramStatus>,
    /// Where they are attached.
    pub links: Vec<LinkStatus>,
    /// The maps and their fill.
    pub maps: Vec<MapStatus>,
    /// Records of the flow tables that are in use, IPv4 first.
    pub flows: [Count; 2],
    /// Kernel features that change what netd does, and whether they were found.
    pub features: Vec<(&'static str, bool)>,
}

/// A loaded program.
#[derive(Clone, Debug)]
pub struct ProgramStatus {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub id: u32,
    /// A hash of its instructions.
    pub tag: u64,
    /// Instructions that the verifier walked.
    pub instructions: u32,
    /// Bytes of machine code.
    pub jited: u32,
}

/// An attachment.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The program's name.
    pub program: &'static str,
    /// The interface's index; `None` for a program that sockets call.
    pub interface: Option<u32>,
}

/// A map.
#[derive(Clone, Debug)]
pub struct MapStatus {
    /// Its name.
    pub name: &'static str,
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel's name of its type.
    pub kind: String,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// What it has room for.
    pub max_entries: u32,
    /// What it holds; `None` where nobody counts.
    pub entries: Option<u64>,
}

pub(super) fn read(
    pins: &Path,
    programs: &Programs,
    flows: &Tables,
    maps: &mut Maps,
    publications: (u64, u64),
) -> Result<Status, Error> {
    let mut status = Status {
        abi: netd_common::ABI_VERSION,
        pins: pins.to_owned(),
        programs: Vec::new(),
        links: Vec::new(),
        maps: Vec::new(),
        flows: Default::default(),
        features: vec![
            ("fib_lookup_source", kernel_is_at_least(6, 7)),
            ("ipv6_checksum_flag", kernel_is_at_least(6, 16)),
        ],
    };
    for (name, program) in programs.iter() {
        let info = program.info().map_err(|source| Error::Program { name: "status", source })?;
        status.programs.push(ProgramStatus {
            name: name.to_owned(),
            id: info.id(),
            tag: info.tag(),
            instructions: info.verified_instruction_count().unwrap_or_default(),
            jited: info.size_jitted(),
        });
    }
    status.programs.sort_by(|a, b| a.name.cmp(&b.name));
    for hook in HOOKS {
        let attached = programs.attached(hook)?;
        let link = |index: IfIndex| LinkStatus { program: hook.name, interface: Some(index.0) };
        status.links.extend(attached.into_iter().map(link));
    }
    status.links.extend(programs.attached_calls().map(|program| LinkStatus { program, interface: None }));
    status.flows = flows.count()?;
    let [v4, v6] = status.flows.map(|count| count.flows + count.bindings);
    for definition in &MAPS {
        let name = definition.name;
        let info =
            MapInfo::from_pin(pins.join("maps").join(name)).map_err(|source| Error::Map { name, source })?;
        status.maps.push(MapStatus {
            name,
            id: info.id(),
            kind: format!("{:?}", definition.kind).to_lowercase(),
            key: info.key_size(),
            value: info.value_size(),
            max_entries: info.max_entries(),
            entries: match name {
                "FLOWS4" => Some(v4),
                "FLOWS6" => Some(v6),
                "PUBLICATIONS4" => Some(publications.0),
                "PUBLICATIONS6" => Some(publications.1),
                "FLOW_KEYS4" => Some(2 * v4),
                "FLOW_KEYS6" => Some(2 * v6),
                _ => maps.fill(name),
            },
        });
    }
    Ok(status)
}

/// Whether the running kernel is at least this version. One that cannot be told is taken for an old one.
pub(super) fn kernel_is_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|current| current >= KernelVersion::new(major, minor, 0))
}
