//! A real Docker Engine on the host under test: with its network namespace and mounts, beside its netd.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{
    Docker, Host, Namespace, comes_true, control_group::ControlGroups, http, image, namespace, until,
};

/// Where an engine looks for plugins, and nowhere else for a socket.
const PLUGINS: &str = "/run/docker/plugins";
/// How long an engine takes to start, at most: it starts containerd first.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine with a data directory of its own and one image, `busybox`.
///
/// It, containerd and the shims are in one control group, and its containers in another: what is in there when this goes
/// is killed.
pub struct Engine<'a> {
    host: &'a Host,
    groups: ControlGroups,
    directory: TempDir,
    arguments: Vec<String>,
    daemon: Option<Child>,
}

impl Host {
    /// Starts Docker Engine here, where it finds netd's plugin.
    pub fn engine(&self, arguments: &[&str]) -> Engine<'_> {
        self.within_mounts(|| mount_plugins(&self.plugin_socket()));
        let directory = tempfile::Builder::new().prefix(&namespace::prefix()).tempdir();
        let directory = directory.expect("a temporary directory");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let groups = ControlGroups::of(directory.path());
        let mut engine = Engine { host: self, groups, directory, arguments, daemon: None };
        fs::write(engine.path("daemon.json"), "{}").expect("writing the engine's configuration");
        engine.start();
        engine.import();
        engine
    }
}

impl Engine<'_> {
    /// Starts it where it has ended, and waits until it answers.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("opening the log");
        let mut command = self.host.command("dockerd");
        command.arg("--config-file").arg(self.path("daemon.json"));
        command.arg("--data-root").arg(self.path("data")).arg("--exec-root").arg(self.path("exec"));
        command.arg("--pidfile").arg(self.path("pid")).arg("--host").arg(self.server());
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &self.groups.path()]);
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("duplicating a descriptor")).stderr(log);
        // SAFETY: between fork and exec only write(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(self.groups.entrance()) };
        let child = command.spawn();
        let child = child.unwrap_or_else(|e| panic!("dockerd, which `cargo xtask setup` installs: {e}"));
        let earlier = self.daemon.replace(child);
        assert!(earlier.is_none(), "it runs already");
        let started = comes_true(PATIENCE, || {
            let ended = self.daemon.as_mut().expect("started above").try_wait().expect("waiting for dockerd");
            assert!(ended.is_none(), "dockerd ended while it started: {ended:?}");
            self.answers()
        });
        assert!(started, "dockerd does not answer within {PATIENCE:?}");
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    /// Kills it where it stands, with containerd. Its containers go on.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// The engine's command line, of the engine's own version.
    pub fn docker(&self) -> Docker<'_> {
        let shipped = Path::new("/usr/bin/docker");
        let docker = self.host.docker_at(&self.server());
        if shipped.exists() { docker.of(shipped) } else { docker }
    }

    /// Runs a container that does nothing, with more arguments to `docker run`, and enters its network namespace.
    pub fn container(&self, name: &str, arguments: &str) -> Namespace {
        self.docker()
            .ok(&format!("run --detach --name {name} --stop-timeout 0 {arguments} busybox sleep 3600"));
        self.namespace_of(name)
    }

    /// The network namespace of a container that runs.
    pub fn namespace_of(&self, name: &str) -> Namespace {
        let pid = self.docker().ok(&format!("inspect --format {{{{.State.Pid}}}} {name}"));
        Namespace::of_process(name, pid.trim().parse().expect("a process id"))
    }

    fn end(&mut self, signal: Signal) {
        let mut child = self.daemon.take().expect("it does not run");
        signal::kill(Pid::from_raw(child.id().cast_signed()), signal).expect("signalling dockerd");
        child.wait().expect("waiting for dockerd");
        // Its containerd ends by itself, or with it, and must be gone before the next one starts.
        let socket = self.path("exec/containerd/containerd.sock");
        until("containerd ends", || UnixStream::connect(&socket).is_err());
        // Where process 1 takes no notice of orphans that end, containerd would seem to be there still.
        let _ = fs::remove_file(self.path("exec/containerd/containerd.pid"));
    }

    fn answers(&self) -> bool {
        let answer = UnixStream::connect(self.path("docker.sock"));
        answer.and_then(|stream| http::get(stream, "/_ping")).is_ok_and(|(status, _)| status == 200)
    }

    fn import(&self) {
        let image = image::build(&self.path("image"));
        self.docker().ok(&format!("import {} busybox", image.display()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
            eprintln!("---- dockerd on {} ----\n{}\n----", self.host.ns.name(), lines.join("\n"));
        }
    }
}

/// Gives the calling thread's mounts an empty /run/docker, in which the engine finds the plugin.
fn mount_plugins(socket: &Path) {
    const NONE: Option<&str> = None;
    let run = Path::new(PLUGINS).parent().expect("it is two levels deep");
    // It stays, empty: another engine's may be mounted there.
    fs::create_dir_all(run).expect("making /run/docker");
    mount(Some("tmpfs"), run, Some("tmpfs"), MsFlags::empty(), NONE).expect("mounting /run/docker");
    fs::create_dir(PLUGINS).expect("making the engine's plugin directory");
    symlink(socket, Path::new(PLUGINS).join("netd.sock")).expect("linking the plugin's socket");
}
