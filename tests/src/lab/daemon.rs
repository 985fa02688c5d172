//! The host under test: a namespace with mounts of its own, and the netd daemon that runs there.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{env, thread};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::{prctl, signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Namespace, http, until};

/// A host: its network namespace, its mounts, and a directory for the daemon's state, socket and log.
pub struct Host {
    /// Its network namespace.
    pub ns: Namespace,
    /// Keeps the mounts, and with them the pins of a daemon that is dead.
    mounts: File,
    directory: TempDir,
    daemon: Mutex<Option<Child>>,
}

impl Host {
    /// A host of its own, wired to nothing; nothing runs on it yet.
    pub fn new() -> Self {
        let ns = Namespace::new("host");
        let directory = tempfile::Builder::new()
            .prefix(&super::namespace::prefix())
            .tempdir()
            .expect("a temporary directory");
        let mounts = ns.enter(|| private_mounts(&directory.path().join("sys")));
        Self { ns, mounts, directory, daemon: Mutex::new(None) }
    }

    /// Where the daemon keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Where the daemon keeps its socket, and its bpffs.
    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("netd.sock")
    }

    /// The socket of the daemon's that a container engine speaks to.
    pub fn plugin_socket(&self) -> PathBuf {
        self.run_dir().join("plugin.sock")
    }

    /// What all its daemons have printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A command that will run on this host: in its network namespace, with its mounts.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let (net, mounts) = (File::open(self.ns.path()), self.mounts.try_clone());
        let (net, mounts) = (net.expect("opening the namespace"), mounts.expect("duplicating a descriptor"));
        let mut command = Command::new(program.as_ref());
        let enter = move || {
            setns(net.as_fd(), CloneFlags::CLONE_NEWNET)?;
            setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
            // Nothing outlives the lab.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec only setns(2) and prctl(2) are called, which are async-signal-safe.
        unsafe { command.pre_exec(enter) };
        // A terminal's Ctrl-C is for the lab alone, which ends what runs on the host.
        command.process_group(0);
        command
    }

    /// Runs a function on a thread of its own with this host's mounts.
    pub(super) fn within_mounts<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // The file system's root and working directory are shared among threads, and would keep this one out.
                unshare(CloneFlags::CLONE_FS).expect("leaving the other threads");
                setns(self.mounts.as_fd(), CloneFlags::CLONE_NEWNS).expect("entering the host's mounts");
                function()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `netd daemon` with this host's directories, no configuration file but this host's own, and more arguments.
    pub fn daemon_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(netd_binary());
        command.arg("daemon").arg("--config").arg(self.config_path());
        command.arg("--state-dir").arg(self.state_dir()).arg("--run-dir").arg(self.run_dir());
        command.arg("--plugin-socket").arg(self.plugin_socket());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs `netd daemon` where it must end by itself, and returns what it said.
    pub fn daemon_ends(&self, arguments: &[&str]) -> Output {
        self.ends(&mut self.daemon_command(arguments))
    }

    /// Runs a command that must end by itself.
    pub fn ends(&self, command: &mut Command) -> Output {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
        until(&format!("{command:?} ends"), || child.try_wait().expect("waiting for netd").is_some());
        child.wait_with_output().expect("waiting for netd")
    }

    /// `netd daemon --cleanup`, which must succeed.
    pub fn cleanup(&self) {
        let output = self.daemon_ends(&["--cleanup"]);
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    /// Gives the host name servers of its own; once.
    pub fn resolve_by(&self, servers: &[IpAddr]) {
        let path = self.directory.path().join("resolv.conf");
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        fs::write(&path, text).expect("writing resolv.conf");
        super::namespace::run(self.command("mount").arg("--bind").arg(&path).arg("/etc/resolv.conf"));
    }

    /// Writes the daemon's configuration.
    pub fn configure(&self, json: &str) {
        fs::write(self.config_path(), json).expect("writing the configuration");
    }

    /// Starts netd and waits until its socket answers.
    pub fn start(&self, arguments: &[&str]) {
        if !self.config_path().exists() {
            self.configure("{}");
        }
        let log = File::options().create(true).append(true).open(self.log_path()).expect("opening the log");
        let mut command = self.daemon_command(arguments);
        command.stdout(log.try_clone().expect("duplicating a descriptor")).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let earlier = self.child().replace(child);
        assert!(earlier.is_none(), "this host runs netd already");
        until("the daemon answers", || {
            let status = self.child().as_mut().expect("started above").try_wait().expect("waiting for netd");
            assert!(status.is_none(), "netd ended while it started: {status:?}");
            self.get("/_ping").is_some_and(|(status, _)| status == 200)
        });
    }

    /// Whether a daemon was started and not ended.
    pub fn runs(&self) -> bool {
        self.child().is_some()
    }

    /// Kills the daemon where it stands (SIGKILL).
    pub fn kill(&self) {
        self.end(Signal::SIGKILL);
    }

    /// Asks the daemon to end (SIGTERM), and waits until it has; it must do so with success.
    pub fn stop(&self) {
        let status = self.end(Signal::SIGTERM);
        assert!(status.success(), "netd ended with {status}");
    }

    /// Has the daemon read its configuration again (SIGHUP). What comes of it is in its log, and comes later.
    pub fn hang_up(&self) {
        let pid = self.child().as_ref().expect("netd does not run").id();
        signal::kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP).expect("signalling netd");
    }

    /// The daemon's resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// As much of it as is no file's, but what the daemon has written: its heap, for the most part.
    pub fn written(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> u64 {
        let pid = self.child().as_ref().expect("netd does not run").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("reading the daemon's status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
        line.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).expect("a number of kB") * 1024
    }

    fn end(&self, signal: Signal) -> std::process::ExitStatus {
        let mut child = self.child().take().expect("netd does not run");
        signal::kill(Pid::from_raw(child.id().cast_signed()), signal).expect("signalling netd");
        child.wait().expect("waiting for netd")
    }

    /// `netd` as a client of the daemon; arguments separated by blanks.
    pub fn client(&self, arguments: &str) -> Command {
        let mut command = self.command(netd_binary());
        command.args(arguments.split_whitespace());
        command.env("NETD_HOST", format!("unix://{}", self.socket().display())).stdin(Stdio::null());
        command
    }

    /// Runs `netd` as a client, which must succeed, and returns what it printed.
    pub fn netd(&self, arguments: &str) -> String {
        super::namespace::run(&mut self.client(arguments))
    }

    /// Runs `netd` as a client with `--json`.
    pub fn netd_json(&self, arguments: &str) -> serde_json::Value {
        let json = self.netd(&format!("{arguments} --json"));
        serde_json::from_str(&json)
            .unwrap_or_else(|e| panic!("netd {arguments} --json printed no JSON: {e}: {json}"))
    }

    /// Runs `netd` as a client, which must fail, and returns what it said on standard error.
    pub fn netd_fails(&self, arguments: &str) -> String {
        let output = self.client(arguments).output().expect("running netd");
        refused(&format!("netd {arguments}"), &output)
    }

    /// Asks the daemon's socket for a path: status and body, or `None` if nothing answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http::get(UnixStream::connect(self.socket()).ok()?, path).ok()
    }

    /// Sends the daemon's socket one request, with a body of JSON if there is one.
    pub fn call(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> http::Answer {
        match body {
            None => self.send(method, path, &[], &[]),
            Some(json) => {
                let headers = [("Content-Type", "application/json")];
                self.send(method, path, &headers, json.to_string().as_bytes())
            }
        }
    }

    /// Sends the daemon's socket one request that may be of any kind.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> http::Answer {
        let answer = http::send(self.dial(), method, path, headers, body);
        answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// A connection to the daemon's socket.
    pub fn dial(&self) -> UnixStream {
        UnixStream::connect(self.socket()).expect("connecting to the daemon")
    }

    /// What the daemon's socket serves under `/metrics`.
    pub fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics").expect("the daemon answers");
        assert_eq!(status, 200, "{body}");
        body
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        // After a panic the daemon must still be found, to be ended.
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("daemon.json")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("---- netd on {} ----\n{}----", self.ns.name(), self.log());
        }
    }
}

/// Standard error of a command that must have failed.
pub(super) fn refused(what: &str, output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "{what} should have failed: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    error
}

/// Moves the calling thread into mounts of its own: /sys shows its network namespace, and new namespaces under
/// /run/netns still appear, and go. The new /sys is mounted at `sys` first, to take the control groups over.
fn private_mounts(sys: &Path) -> File {
    const NONE: Option<&str> = None;
    const CGROUPS: &str = "fs/cgroup";
    unshare(CloneFlags::CLONE_NEWNS).expect("making a mount namespace");
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE).expect("making mounts private");
    fs::create_dir(sys).expect("a directory for /sys");
    mount(Some("sysfs"), sys, Some("sysfs"), MsFlags::empty(), NONE).expect("mounting sysfs");
    let (old, new) = (Path::new("/sys").join(CGROUPS), sys.join(CGROUPS));
    mount(Some(&old), &new, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .expect("keeping the control groups");
    mount(Some(sys), "/sys", NONE, MsFlags::MS_MOVE, NONE).expect("moving sysfs to /sys");
    File::open("/proc/thread-self/ns/mnt").expect("opening the mount namespace")
}

/// The `netd` under test, of the same profile as this program.
///
/// Cargo builds the library of a dependency, not its programs, so this asks it to build (at most once in a
/// process, and nothing to do under `cargo xtask test`, which has built the workspace). Where no cargo runs this
/// program, what lies beside it is taken.
pub fn netd_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let own = env::current_exe().expect("the path of this program");
        let mut profile = own.parent().expect("a program lies in a directory");
        if profile.ends_with("deps") {
            profile = profile.parent().expect("target/PROFILE/deps");
        }
        if let Some(cargo) = env::var_os("CARGO") {
            let target = profile.parent().expect("target/PROFILE");
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--workspace", "--exclude", "netd-ebpf", "--bin", "netd"]);
            build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
            build.arg("--target-dir").arg(target);
            // What cargo tells this program of its package is no news of netd's: some build scripts would run again for it.
            for (name, _) in env::vars_os() {
                if ["CARGO_PKG_", "CARGO_MANIFEST_"]
                    .iter()
                    .any(|start| name.to_string_lossy().starts_with(start))
                {
                    build.env_remove(name);
                }
            }
            if profile.ends_with("release") {
                build.arg("--release");
            }
            super::namespace::run(&mut build);
        }
        let binary = profile.join("netd");
        assert!(binary.exists(), "there is no {}: build it with `cargo build --bin netd`", binary.display());
        binary
    })
}
