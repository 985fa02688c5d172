//! Child processes: where they are looked for, and how their progress is shown.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, IsTerminal as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::host;

/// The workspace's root.
pub(crate) const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// How much of a failed step's output is worth showing.
const LAST_LINES: usize = 40;

/// `PATH` with the two places that it may lack: cargo's own programs, and after a plain `su` the system's.
static PATH: LazyLock<OsString> = LazyLock::new(|| {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = host::cargo_home().map(|home| home.join("bin")).into_iter().collect();
    directories.extend(env::split_paths(&path));
    directories.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(directories).unwrap_or(path)
});

/// A command with [`PATH`].
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", &*PATH);
    command
}

/// The cargo that runs this xtask, or else the first on the path, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(WORKSPACE);
    cargo
}

/// Where `program` is on [`PATH`].
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&*PATH).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// A program of this workspace that was built with `--release` into the target directory this xtask is in.
pub(crate) fn release_binary(name: &str) -> Result<PathBuf> {
    let xtask = env::current_exe().context("finding the target directory")?;
    let target = xtask.ancestors().nth(2).context("xtask is outside a target directory")?;
    Ok(target.join("release").join(name))
}

/// What the command prints on its standard output, or `None` if it cannot be run or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the command, its output going where this process's goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", display(command)))?;
    ensure!(status.success(), "{} failed: {status}", display(command));
    Ok(())
}

/// Runs the command as a step named `what`. A terminal is shown the last line of its output while it runs,
/// anything else the start and the end of it; the output itself is shown if it fails.
pub(crate) fn step(what: &str, mut command: Command) -> Result<()> {
    let display = display(&command);
    let (output, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("{what}: cannot run {display}"))?;
    // The command holds the pipe's other end: the output would not end before it is gone.
    drop(command);

    let bar = progress(what)?;
    let started = Instant::now();
    let mut lines = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        bar.set_message(line.clone());
        lines.push(line);
    }
    let status = child.wait()?;
    bar.finish_and_clear();
    if !status.success() {
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        bail!("{what} failed: {status}\n{last}\nThe command was: {display}");
    }
    eprintln!("{what}: done in {} s", started.elapsed().as_secs());
    Ok(())
}

fn progress(what: &str) -> Result<ProgressBar> {
    if !io::stderr().is_terminal() {
        eprintln!("{what} ...");
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")?;
    let bar = ProgressBar::new_spinner().with_style(style).with_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

/// The command as one would type it, but for the path of its program and its environment.
fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = [name].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
