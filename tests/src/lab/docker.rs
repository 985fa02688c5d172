//! Docker's own command line, as a client of the daemon under test.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::Host;

/// The `docker` that is on the path, told where the daemon is, with a configuration of its own: whatever the user of
/// this machine has set up for it counts for nothing.
pub struct Docker<'a> {
    host: &'a Host,
    program: PathBuf,
    config: TempDir,
    environment: Vec<(String, String)>,
}

impl Host {
    /// Docker's command line at the daemon's socket.
    pub fn docker(&self) -> Docker<'_> {
        self.docker_at(&format!("unix://{}", self.socket().display()))
    }

    /// Docker's command line at another of the daemon's sockets, such as `tcp://127.0.0.1:2375`.
    pub fn docker_at(&self, server: &str) -> Docker<'_> {
        let config = tempfile::Builder::new().prefix(&super::namespace::prefix()).tempdir();
        let docker = Docker {
            host: self,
            program: "docker".into(),
            config: config.expect("a temporary directory"),
            environment: Vec::new(),
        };
        docker.with("DOCKER_HOST", server)
    }
}

impl Docker<'_> {
    /// Another one than that on the path.
    pub fn of(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// With one more variable in its environment.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// `docker` with the arguments in `line`, as in a shell: separated by blanks, of which a word in single quotes may
    /// have some.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.host.command(&self.program);
        command.env_clear();
        for inherited in ["PATH", "HOME"] {
            command.envs(std::env::var_os(inherited).map(|value| (inherited, value)));
        }
        command.env("DOCKER_CONFIG", self.config.path()).env("TZ", "UTC");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(words(line)).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, line: &str) -> Output {
        self.command(line)
            .output()
            .unwrap_or_else(|e| panic!("docker, which `cargo xtask setup` installs: {e}"))
    }

    /// Runs it, which must succeed and have nothing to complain of, and returns what it printed.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "docker {line}: {}: {error}", output.status);
        String::from_utf8(output.stdout).unwrap_or_else(|e| panic!("docker {line}: {e}"))
    }

    /// Runs it, which must succeed and print JSON.
    pub fn json(&self, line: &str) -> Value {
        let text = self.ok(line);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("docker {line} printed no JSON: {e}: {text}"))
    }

    /// Whether this version of it has a flag of one of its commands.
    pub fn has_flag(&self, command: &str, flag: &str) -> bool {
        self.ok(&format!("{command} --help")).split_whitespace().any(|word| word == flag)
    }

    /// Runs it, which must fail with status 1, as it does where the daemon refuses, and returns what it complained of
    /// without the line feed at the end, nor the line about its own status that some versions add.
    pub fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "docker {line}: {output:?}");
        let error = error.trim_end();
        error.strip_suffix("\nexit status 1").unwrap_or(error).to_owned()
    }
}

/// The words of a line; blanks between single quotes are part of a word.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_line_is_split_as_by_a_shell() {
        assert_eq!(words("network ls  --format '{{json .}}'"), ["network", "ls", "--format", "{{json .}}"]);
        assert_eq!(words("create --label a='b c' ''"), ["create", "--label", "a=b c", ""]);
        assert!(words(" ").is_empty());
    }
}
