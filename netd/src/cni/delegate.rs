//! IPAM by another plugin, run as the runtime would run it.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    config::Config,
    environment::Environment,
    error::{Code, Error},
    result::Outcome,
};
use crate::model::attachment::Key;

/// An IPAM plugin, found.
pub(super) struct Delegate<'a> {
    program: PathBuf,
    config: &'a Config,
    environment: &'a Environment,
}

impl<'a> Delegate<'a> {
    /// The IPAM plugin of a configuration, if it is not netd's own.
    pub(super) fn of(config: &'a Config, environment: &'a Environment) -> Result<Option<Self>, Error> {
        let Some(kind) = config.foreign_ipam() else { return Ok(None) };
        if kind.contains('/') {
            return Err(Error::new(Code::InvalidConfig, format!("invalid plugin name: {kind}")));
        }
        let executable = |path: &PathBuf| {
            path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let found = environment.path.iter().map(|directory| directory.join(kind)).find(executable);
        let program = found.ok_or_else(|| {
            let path = &environment.path;
            Error::new(Code::InvalidConfig, format!("failed to find plugin {kind:?} in path {path:?}"))
        })?;
        Ok(Some(Self { program, config, environment }))
    }

    pub(super) fn add(&self) -> Result<Outcome, Error> {
        let output = self.run("ADD", None)?;
        let value: Value = serde_json::from_slice(&output)
            .map_err(|error| self.failed(Code::Decoding, &format!("its result is no JSON: {error}")))?;
        Outcome::read(&value)
    }

    pub(super) fn del(&self) -> Result<(), Error> {
        self.run("DEL", None).map(drop)
    }

    /// Ends what it holds for another attachment of the network.
    pub(super) fn del_of(&self, key: &Key) -> Result<(), Error> {
        self.run("DEL", Some(key)).map(drop)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.run("CHECK", None).map(drop)
    }

    /// Has it end what it holds for attachments that the configuration does not list, those that netd never knew of among them.
    pub(super) fn gc(&self) -> Result<(), Error> {
        self.run("GC", None).map(drop)
    }

    pub(super) fn status(&self) -> Result<(), Error> {
        self.run("STATUS", None).map(drop)
    }

    fn run(&self, verb: &str, other: Option<&Key>) -> Result<Vec<u8>, Error> {
        // The environment is the plugin's own, and so is the namespace.
        let mut command = Command::new(&self.program);
        command.env("CNI_COMMAND", verb);
        if let Some(Key { container, interface }) = other {
            command.env("CNI_CONTAINERID", container).env("CNI_IFNAME", interface).env("CNI_NETNS", "");
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| self.failed(Code::Io, &error))?;
        let input = child.stdin.take();
        let written = input.map_or(Ok(()), |mut input| input.write_all(&self.config.raw));
        let output = child.wait_with_output().map_err(|error| self.failed(Code::Io, &error))?;
        if output.status.success() {
            // One that succeeds without reading all is content with what it read.
            return Ok(output.stdout);
        }
        #[derive(Deserialize)]
        struct Refusal {
            code: u32,
            msg: String,
            #[serde(default)]
            details: String,
        }
        match serde_json::from_slice::<Refusal>(&output.stdout) {
            Ok(Refusal { code, msg, details }) => Err(Error { code, message: msg, details }),
            Err(_) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let failed = self.failed(Code::Internal, &output.status).with(said);
                Err(written.err().map_or(failed, |error| self.failed(Code::Io, &error)))
            }
        }
    }

    fn failed(&self, code: Code, why: &dyn std::fmt::Display) -> Error {
        let container = &self.environment.container;
        Error::new(code, format!("IPAM plugin {} (container {container:?}): {why}", self.program.display()))
    }
}
