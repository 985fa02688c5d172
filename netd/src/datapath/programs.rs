//! Programs and where they are attached.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::fs::symlink,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use netd_common::{addr::IfIndex, event::Sweep};

use super::{Error, at};

/// A program that is attached to interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) name: &'static str,
    direction: TcAttachType,
}

pub(super) const FROM_CONTAINER: Hook = Hook { name: "from_container", direction: TcAttachType::Ingress };
pub(super) const TO_SEGMENT: Hook = Hook { name: "to_segment", direction: TcAttachType::Ingress };
pub(super) const FROM_UPLINK: Hook = Hook { name: "from_uplink", direction: TcAttachType::Ingress };
pub(super) const TO_UPLINK: Hook = Hook { name: "to_uplink", direction: TcAttachType::Egress };
pub(super) const FROM_TUNNEL: Hook = Hook { name: "from_tunnel", direction: TcAttachType::Ingress };
pub(super) const TO_TUNNEL: Hook = Hook { name: "to_tunnel", direction: TcAttachType::Egress };
pub(super) const FROM_HOST: Hook = Hook { name: "from_host", direction: TcAttachType::Egress };
pub(super) const FORWARDED: Hook = Hook { name: "forwarded", direction: TcAttachType::Egress };
pub(super) const HOOKS: [Hook; 8] =
    [FROM_CONTAINER, FROM_HOST, TO_SEGMENT, FROM_UPLINK, TO_UPLINK, FROM_TUNNEL, TO_TUNNEL, FORWARDED];

pub(super) const ADVERTISE: &str = "advertise";
const SWEEP: &str = "sweep";

/// What every host needs. Few have tunnels or segments: their programs are loaded when there is one.
const EVERYWHERE: [&str; 5] = [FROM_CONTAINER.name, FROM_UPLINK.name, TO_UPLINK.name, ADVERTISE, SWEEP];

/// How often a load that a signal interrupts is tried; libbpf's own number.
const LOAD_ATTEMPTS: u32 = 5;

/// The programs, and where they and their links are pinned.
pub(super) struct Programs {
    ebpf: Ebpf,
    pins: PathBuf,
    links: PathBuf,
}

/// Of which build the pinned programs are: a symbolic link to nothing, for a bpffs holds no other text.
const BUILD: &str = "build";

/// What tells one build's programs from another's; `None` if they log, for what they log into is not pinned. Another compiler's
/// library may compute another: then programs are loaded that need not have been.
pub(super) fn build(object: &[u8], log_level: u8) -> Option<String> {
    if log_level > 0 {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    object.hash(&mut hasher);
    Some(format!("{:016x}", hasher.finish()))
}

impl Programs {
    /// Takes the programs that are pinned, if they are of the same `build`; else loads [`EVERYWHERE`], side by side: the verifier
    /// takes its time for each of them, on the CPU of whoever asks.
    pub(super) fn load(mut ebpf: Ebpf, pins: &Path, build: Option<&str>) -> Result<Self, Error> {
        let (pins, links) = (pins.join("programs"), pins.join("links"));
        keep_only(&pins, build)?;
        thread::scope(|scope| {
            let loads: Vec<_> = ebpf
                .programs_mut()
                .filter_map(|(name, program)| {
                    let name = EVERYWHERE.into_iter().find(|&everywhere| everywhere == name)?;
                    let pin = pins.join(name);
                    Some(scope.spawn(move || obtain(name, program, &pin)))
                })
                .collect();
            loads.into_iter().try_for_each(|load| load.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        Ok(Self { ebpf, pins, links })
    }

    fn program_mut(&mut self, name: &'static str) -> Result<&mut Program, Error> {
        self.ebpf.program_mut(name).ok_or(Error::NoProgram(name))
    }

    /// The program, loaded and pinned.
    pub(super) fn loaded(&mut self, name: &'static str) -> Result<&mut Program, Error> {
        let pin = self.pins.join(name);
        let program = self.program_mut(name)?;
        if program.fd().is_err() {
            obtain(name, program, &pin)?;
        }
        Ok(program)
    }

    /// The same, of a program for packets.
    fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        self.loaded(name)?.try_into().map_err(|source| Error::Program { name, source })
    }

    /// The loaded programs by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.ebpf.programs().filter(|(_, program)| program.fd().is_ok())
    }

    /// Where the link of a program that sockets call is pinned.
    pub(super) fn call_pin(&self, name: &str) -> PathBuf {
        self.links.join(name)
    }

    fn pin(&self, hook: Hook, interface: IfIndex) -> PathBuf {
        self.links.join(format!("{}-{}", hook.name, interface.0))
    }

    /// Puts the new programs into all pinned links.
    pub(super) fn adopt_links(&mut self) -> Result<(), Error> {
        for hook in HOOKS {
            for interface in self.attached(hook)? {
                let path = self.pin(hook, interface);
                let link = PinnedLink::from_pin(&path)
                    .map_err(|source| Error::Link { path: path.clone(), source })?;
                let link = SchedClassifierLink::try_from(FdLink::from(link))
                    .map_err(|source| Error::Link { path: path.clone(), source })?;
                let program = self.classifier(hook.name)?;
                match program.attach_to_link(link).and_then(|link| program.take_link(link)) {
                    // The pin alone is to hold it: see `detach`.
                    Ok(link) => drop(link),
                    // The interface is gone, and took the attachment with it: only the pin is left.
                    Err(error) if is_defunct(&error) => unpin(&path)?,
                    Err(source) => return Err(Error::Program { name: hook.name, source }),
                }
            }
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, hook: Hook, interface: IfIndex) -> Result<(), Error> {
        let path = self.pin(hook, interface);
        if path.exists() {
            return Ok(());
        }
        // Of an interface that is not there, nix says that its name is empty.
        let name = nix::net::if_::if_indextoname(interface.0).unwrap_or_default();
        let name = name.to_string_lossy();
        if name.is_empty() {
            return Err(Error::NoInterface(interface.0));
        }
        // netd hears the outside first and has the last word towards it; other programs stand in between.
        let order = match hook {
            TO_UPLINK | TO_TUNNEL => LinkOrder::last(),
            _ => LinkOrder::first(),
        };
        let program = self.classifier(hook.name)?;
        let failed = |source| Error::Program { name: hook.name, source };
        let link = program
            .attach_with_options(&name, hook.direction, TcAttachOptions::TcxOrder(order))
            .map_err(failed)?;
        let link = program.take_link(link).map_err(failed)?;
        let link = FdLink::try_from(link).map_err(|source| Error::Link { path: path.clone(), source })?;
        link.pin(&path).map_err(|error| at(&path)(io::Error::other(error)))?;
        Ok(())
    }

    /// Detaches a program, or removes what is left of an attachment whose interface is gone. The pin is the last reference:
    /// without it the kernel detaches. Not an error if there is none.
    pub(super) fn detach(&self, hook: Hook, interface: IfIndex) -> Result<(), Error> {
        unpin(&self.pin(hook, interface))
    }

    /// The interfaces that a program is attached to.
    pub(super) fn attached(&self, hook: Hook) -> Result<BTreeSet<IfIndex>, Error> {
        let mut interfaces = BTreeSet::new();
        for entry in fs::read_dir(&self.links).map_err(at(&self.links))? {
            let name = entry.map_err(at(&self.links))?.file_name();
            let pinned = pinned_link(&name).filter(|(program, _)| *program == hook.name);
            interfaces.extend(pinned.map(|(_, interface)| interface));
        }
        Ok(interfaces)
    }

    /// Has the kernel carry out a sweep. Returns how many flows it ended, and the kernel's time in jiffies.
    pub(super) fn sweep(&self, order: &Sweep) -> Result<(u32, u64), Error> {
        let failed = |source| Error::Program { name: SWEEP, source };
        let mut answer = Sweep::default();
        let options = TestRunOptions {
            data_in: Some(bytemuck::bytes_of(order)),
            data_out: Some(bytemuck::bytes_of_mut(&mut answer)),
            ..TestRunOptions::new()
        };
        let program = self.ebpf.program(SWEEP).ok_or(Error::NoProgram(SWEEP))?;
        let program: &SchedClassifier = program.try_into().map_err(failed)?;
        let result = program.test_run(options).map_err(failed)?;
        Ok((result.return_value, answer.now))
    }
}

/// Which program a pinned link attaches, and to what: see [`Programs::pin`].
pub(super) fn pinned_link(pin: &OsStr) -> Option<(&str, IfIndex)> {
    let (program, index) = pin.to_str()?.rsplit_once('-')?;
    Some((program, IfIndex(index.parse().ok()?)))
}

/// Makes the programs that are pinned under `pins` nobody's.
pub(super) fn disown(pins: &Path) -> Result<(), Error> {
    unpin(&pins.join("programs").join(BUILD))
}

/// Removes the pins of programs that are not of `build`. Where they are attached they stay until others take their place.
fn keep_only(pins: &Path, build: Option<&str>) -> Result<(), Error> {
    let mark = pins.join(BUILD);
    let found = fs::read_link(&mark).ok();
    if found.is_some() && found.as_deref() == build.map(Path::new) {
        return Ok(());
    }
    // The mark first: what a daemon leaves that dies here is nobody's.
    unpin(&mark)?;
    for entry in fs::read_dir(pins).map_err(at(pins))? {
        unpin(&entry.map_err(at(pins))?.path())?;
    }
    build.map_or(Ok(()), |build| symlink(build, &mark).map_err(at(&mark)))
}

/// Removes a pin, if it is there.
fn unpin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(at(path)),
    }
}

/// Takes the program that is pinned at `pin`, or loads it and pins it there. What sockets call is always loaded: it is small.
fn obtain(name: &'static str, program: &mut Program, pin: &Path) -> Result<(), Error> {
    if let Program::SchedClassifier(classifier) = program
        && pin.exists()
    {
        *classifier = SchedClassifier::from_pin(pin).map_err(|source| Error::Program { name, source })?;
        return Ok(());
    }
    load(name, program)?;
    unpin(pin)?;
    program.pin(pin).map_err(|error| at(pin)(io::Error::other(error)))
}

/// Loads a program. A signal to this process, the end of a child's for instance, makes the verifier give up with EAGAIN:
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/verifier.c>
fn load(name: &'static str, program: &mut Program) -> Result<(), Error> {
    let mut attempts = 1;
    loop {
        let loaded = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        match loaded {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && attempts < LOAD_ATTEMPTS =>
            {
                attempts += 1;
            }
            loaded => return loaded.map_err(|source| Error::Program { name, source }),
        }
    }
}

fn is_defunct(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOLINK),
        _ => false,
    }
}
