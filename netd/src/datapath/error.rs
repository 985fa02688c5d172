//! What fails between the daemon and the kernel, with the name of what it was about.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What went wrong between the daemon and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object was refused: by the verifier, or for a feature that the kernel lacks.
    #[error("loading the datapath: {0}")]
    Load(#[from] aya::EbpfError),
    /// The log of the programs could not be opened.
    #[error("the datapath's log: {0}")]
    Log(#[from] aya_log::Error),
    /// As [`Error::Load`], for one program.
    #[error("program {name}: {source}")]
    Program {
        /// The program's name.
        name: &'static str,
        /// What the kernel said.
        source: aya::programs::ProgramError,
    },
    /// An endpoint's neighbours could not be told its address.
    #[error("advertising an address by interface {interface}: {source}")]
    Advertise {
        /// The endpoint's port.
        interface: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host's own connections could not be listed, or ended.
    #[error("sock_diag(7): {source}")]
    Connections {
        /// What the kernel said.
        source: io::Error,
    },
    /// A map operation failed.
    #[error("map {name}: {source}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// A map has no room for more.
    #[error("{name}, a table of the datapath, is full: it has room for {capacity} entries")]
    Full {
        /// The map's name.
        name: &'static str,
        /// How many it takes.
        capacity: u32,
    },
    /// A pinned map is not what this build would make.
    #[error(
        "pinned map {path}: its {what} is {found}, this netd needs {expected}; `netd daemon --cleanup` removes what the other netd left"
    )]
    Abi {
        /// The pin.
        path: PathBuf,
        /// Which property differs.
        what: &'static str,
        /// What the pinned map has.
        found: u32,
        /// What this build needs.
        expected: u32,
    },
    /// A link could not be made, found or replaced.
    #[error("link {path}: {source}")]
    Link {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: aya::programs::links::LinkError,
    },
    /// A file of the pin directory.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object was built without a program that this daemon attaches.
    #[error("the datapath has no program {0}")]
    NoProgram(&'static str),
    /// The object was built without a map that this daemon uses.
    #[error("the datapath has no map {0}")]
    NoMap(&'static str),
    /// An interface that does not exist (any more).
    #[error("interface {0} does not exist")]
    NoInterface(u32),
    /// A number that no map has room for.
    #[error("{what} {number} is beyond the {limit} that the datapath has room for")]
    Limit {
        /// What is numbered.
        what: &'static str,
        /// Its number.
        number: u32,
        /// The first number that does not fit.
        limit: u32,
    },
}

/// Names the file that a call failed for.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}
