//! A real Docker Engine on the host under test: with its network namespace and mounts, beside its netd.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, write};
use tempfile::TempDir;

use super::{Docker, Host, Namespace, http, namespace, until};

/// Where an engine looks for plugins, and nowhere else for a socket.
const PLUGINS: &str = "/run/docker/plugins";
/// The control groups of this machine.
const CGROUPS: &str = "/sys/fs/cgroup";
/// How long an engine takes to start, at most: it starts containerd first.
const PATIENCE: Duration = Duration::from_secs(60);
/// The programs of busybox that the tests run in containers.
const APPLETS: [&str; 5] = ["sh", "sleep", "ip", "ping", "nslookup"];

/// An engine with a data directory of its own and one image, `busybox`.
///
/// It, containerd and the shims are in one control group, and its containers in another: what is in there when this goes
/// is killed.
pub struct Engine<'a> {
    host: &'a Host,
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
        let mut engine = Engine { host: self, directory, arguments, daemon: None };
        fs::write(engine.path("daemon.json"), "{}").expect("writing the engine's configuration");
        fs::create_dir(engine.own_group()).expect("making a control group");
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
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &self.group()]);
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("duplicating a descriptor")).stderr(log);
        let procs = File::options().write(true).open(self.own_group().join("cgroup.procs"));
        let procs = procs.expect("opening a control group");
        // SAFETY: between fork and exec only write(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(move || Ok(write(procs.as_fd(), b"0").map(drop)?)) };
        let child = command.spawn();
        let child = child.unwrap_or_else(|e| panic!("dockerd, which `cargo xtask setup` installs: {e}"));
        let earlier = self.daemon.replace(child);
        assert!(earlier.is_none(), "it runs already");
        let deadline = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended = self.daemon.as_mut().expect("started above").try_wait().expect("waiting for dockerd");
            assert!(ended.is_none(), "dockerd ended while it started: {ended:?}");
            assert!(Instant::now() < deadline, "dockerd does not answer within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        }
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
        let bin = self.path("image/bin");
        fs::create_dir_all(&bin).expect("a directory for the image");
        let busybox = "/bin/busybox";
        fs::copy(busybox, bin.join("busybox")).unwrap_or_else(|e| {
            panic!("{busybox} of busybox-static, which `cargo xtask setup` installs: {e}")
        });
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).expect("linking a program of busybox");
        }
        let image = self.path("image.tar");
        namespace::run(
            Command::new("tar")
                .arg("--create")
                .arg("--file")
                .arg(&image)
                .arg("--directory")
                .args([&self.path("image"), Path::new(".")]),
        );
        self.docker().ok(&format!("import {} busybox", image.display()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// The control group of its containers, below the root.
    fn group(&self) -> String {
        let name = self.directory.path().file_name().expect("a directory has a name");
        format!("/{}", name.to_string_lossy())
    }

    /// The control group that it is in itself, of version 2.
    fn own_group(&self) -> PathBuf {
        let roots = ["", "unified"].map(|root| Path::new(CGROUPS).join(root));
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists());
        let root = root.expect("cgroup2 is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified");
        root.join(format!("{}-engine", &self.group()[1..]))
    }

    /// All the control groups that it and its containers are in, those within another one first.
    fn groups(&self) -> Vec<PathBuf> {
        let directories = |path: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
        };
        let root = Path::new(CGROUPS);
        let hierarchies = directories(root).into_iter().filter(|path| path.join("cgroup.procs").exists());
        let mut groups: Vec<_> = hierarchies.map(|path| path.join(&self.group()[1..])).collect();
        groups.extend([root.join(&self.group()[1..]), self.own_group()]);
        groups.retain(|path| path.exists());
        let mut at = 0;
        while let Some(group) = groups.get(at).cloned() {
            groups.extend(directories(&group));
            at += 1;
        }
        groups.reverse();
        groups
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            let groups = self.groups();
            if groups.is_empty() {
                break;
            }
            for group in groups {
                let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
                    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                let _ = fs::remove_dir(&group);
            }
            if Instant::now() > deadline {
                eprintln!("control groups of dockerd's stay: {:?}", self.groups());
                break;
            }
            thread::sleep(Duration::from_millis(5));
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
