//! A network namespace under /run/netns, for as long as the value lives.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, panic, thread};

use nix::sched::{CloneFlags, setns};

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "netdlab";

/// A network namespace of a unique name, removed on drop. Its loopback is up.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// A new one; `role` is the end of its name.
    pub fn new(role: &str) -> Self {
        Self::add(unique(role))
    }

    /// Another one of its name, once it is gone.
    pub fn again(self) -> Self {
        let name = self.name.clone();
        drop(self);
        Self::add(name)
    }

    fn add(name: String) -> Self {
        run(Command::new("ip").args(["netns", "add", &name]));
        let ns = Self::named(name);
        ns.ip("link set lo up");
        ns
    }

    fn named(name: String) -> Self {
        let path = Path::new(DIRECTORY).join(&name);
        let file = File::open(&path).unwrap_or_else(|e| panic!("opening {}: {e}", path.display()));
        Self { name, file }
    }

    /// The namespace of a process under a name of its own; `role` is the end of it. It outlives the process until this
    /// goes.
    pub fn of_process(role: &str, pid: u32) -> Self {
        let name = unique(role);
        run(Command::new("ip").args(["netns", "attach", &name, &pid.to_string()]));
        Self::named(name)
    }

    /// Its name under /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `ip` on it, arguments separated by blanks, and returns what it printed.
    pub fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// A link's address, as `ip` writes it.
    pub fn link_address(&self, link: &str) -> String {
        let json = self.ip(&format!("-json link show dev {link}"));
        let links: serde_json::Value = serde_json::from_str(&json).expect("ip -json");
        links[0]["address"].as_str().expect("a link's address").to_owned()
    }

    /// The same, as a frame has it.
    pub fn mac(&self, link: &str) -> Vec<u8> {
        self.link_address(link)
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).expect("an address of ip -json"))
            .collect()
    }

    /// Waits until an interface has a carrier: what is sent before is lost.
    pub fn await_carrier(&self, interface: &str) {
        let up = || self.ip(&format!("link show dev {interface}")).contains("state UP");
        super::until(&format!("{interface} of {} has a carrier", self.name), up);
    }

    /// Names of its links, addresses and routes: what was configured, without what comes and goes by itself (carrier,
    /// link-local addresses).
    pub fn configuration(&self) -> String {
        let json = self.ip("-json link show");
        let links: Vec<serde_json::Value> = serde_json::from_str(&json).expect("ip -json");
        let links: Vec<_> = links.iter().filter_map(|link| link["ifname"].as_str()).collect();
        let addresses = self.ip("-oneline address show scope global");
        let routes = self.ip("-4 route show") + &self.ip("-6 route show");
        let routes = routes.replace(" linkdown", "");
        let routes: Vec<_> =
            routes.lines().filter(|route| !route.starts_with("fe80::")).map(str::trim_end).collect();
        format!("{}\n{addresses}{}\n", links.join(" "), routes.join("\n"))
    }

    /// Whether this kernel has a setting.
    pub fn has_sysctl(&self, key: &str) -> bool {
        self.enter(|| sysctl_path(key).exists())
    }

    /// Writes a setting of this namespace, for example `net.ipv4.ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = sysctl_path(key);
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|e| panic!("setting {key} to {value}: {e}"));
    }

    /// Reads a setting of this namespace.
    pub fn read_sysctl(&self, key: &str) -> String {
        let path = sysctl_path(key);
        let value = self.enter(|| fs::read_to_string(&path)).unwrap_or_else(|e| panic!("reading {key}: {e}"));
        value.trim().to_owned()
    }

    /// Runs a function in it, on a thread of its own. Sockets that it makes stay in the namespace wherever they go.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.join();
                function()
            });
            inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into it.
    pub fn join(&self) {
        self.entrance()();
    }

    /// Moves the thread that calls it into this namespace.
    pub fn entrance(&self) -> impl Fn() + Send + 'static {
        let (name, file) = (self.name.clone(), self.file.try_clone().expect("duplicating a descriptor"));
        move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("entering {name}: {e}"));
        }
    }

    /// A command that will run in it.
    pub fn command(&self, program: &str) -> Command {
        let file = self.file.try_clone().expect("duplicating a descriptor");
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(move || Ok(setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?)) };
        command
    }

    /// A counter of /proc/net/netstat or /proc/net/snmp, for example `TcpExt` `TCPSynRetrans`.
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let table = self.enter(|| {
            let read = |file| fs::read_to_string(file).unwrap_or_else(|e| panic!("reading {file}: {e}"));
            read("/proc/thread-self/net/snmp") + &read("/proc/thread-self/net/netstat")
        });
        let mut rows = table.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let (names, values) =
            rows.next().zip(rows.next()).unwrap_or_else(|| panic!("no counters of {group}"));
        let mut columns = names.split(' ').zip(values.split(' '));
        let (_, value) =
            columns.find(|(column, _)| *column == name).unwrap_or_else(|| panic!("no counter {name}"));
        value.parse().expect("a counter")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Runs a command and returns its standard output; panics with its standard error if it fails.
pub(super) fn run(command: &mut Command) -> String {
    // A terminal's Ctrl-C is for the lab alone, which still needs such commands to remove itself.
    let output = command.process_group(0).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// A name that no namespace has had.
fn unique(role: &str) -> String {
    static ORPHANS: Once = Once::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    ORPHANS.call_once(remove_orphans);
    format!("{}{}-{role}", prefix(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

fn remove(name: &str) {
    let output = Command::new("ip").args(["netns", "delete", name]).process_group(0).output();
    if !output.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("removing the namespace {name}: {output:?}");
    }
}

/// What the names of this process's namespaces and directories begin with.
pub(super) fn prefix() -> String {
    format!("{PREFIX}-{}-", process::id())
}

/// Removes what labs left behind whose process was killed.
fn remove_orphans() {
    let is_orphan = |name: &str| {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-')?.split('-').next()?.parse::<u32>().ok());
        owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| is_orphan(name))
    };
    names(Path::new(DIRECTORY)).for_each(|name| remove(&name));
    for name in names(&env::temp_dir()) {
        // Another lab may be at it as well.
        let _ = fs::remove_dir_all(env::temp_dir().join(name));
    }
}
