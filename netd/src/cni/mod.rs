//! The CNI plugin: netd's binary as container runtimes call it, for each verb once and by name `netd-cni` or with
//! `CNI_COMMAND` set. It is a client of the daemon, which does the work and remembers it.
//!
//! | verb | asks the daemon |
//! |---|---|
//! | ADD | `POST /netd/attachments` |
//! | DEL | `DELETE /netd/attachments/NETWORK/CONTAINER/INTERFACE` |
//! | CHECK | `GET` of the same |
//! | GC | `POST /netd/attachments/NETWORK/prune` |
//! | STATUS | `GET /_ping` |

mod capability;
mod config;
mod delegate;
mod environment;
mod error;
pub mod install;
mod request;
mod result;
mod version;

use std::{
    env,
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
};

use serde_json::json;

use self::{
    config::Config,
    delegate::Delegate,
    environment::{Environment, Verb},
    error::{Code, Error},
    result::{Dns, Outcome},
    version::SpecVersion,
};
use crate::{
    cli::{
        self, DEFAULT_HOST,
        client::{Client, escape},
    },
    model::{
        Route,
        attachment::{Attachment, Prune, Pruned},
    },
};

pub(crate) use self::result::drop_nulls;

/// The name under which the binary is always the plugin.
pub const NAME: &str = "netd-cni";

/// Whether this process was started to be the plugin.
pub fn is_called() -> bool {
    let name = env::args_os().next().unwrap_or_default();
    let alone = env::args_os().len() == 1;
    Path::new(&name).file_name() == Some(OsStr::new(NAME)) || (alone && env::var_os("CNI_COMMAND").is_some())
}

/// Does what the environment says, with the configuration on standard input.
pub fn execute() -> ExitCode {
    if env::var_os("CNI_COMMAND").is_none() {
        eprintln!(
            "netd {}, a CNI plugin: a runtime calls it, with CNI_COMMAND set\nCNI protocol versions supported: {}",
            env!("CARGO_PKG_VERSION"),
            SpecVersion::ALL.map(SpecVersion::text).join(", ")
        );
        return ExitCode::SUCCESS;
    }
    let mut input = Vec::new();
    let read = io::stdin().read_to_end(&mut input);
    let version = version_of(&input);
    let done = Environment::read(|name| env::var(name).ok()).and_then(|environment| {
        read.map_err(|error| Error::new(Code::Io, format!("error reading from stdin: {error}")))?;
        answer(&environment, input)
    });
    let (text, code) = match done {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.json(version), ExitCode::FAILURE),
    };
    let text = if text.is_empty() { text } else { text + "\n" };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The version to speak to the runtime, of a configuration that may be anything.
fn version_of(input: &[u8]) -> SpecVersion {
    let value: serde_json::Value = serde_json::from_slice(input).unwrap_or_default();
    SpecVersion::of_config(value.get("cniVersion").and_then(|version| version.as_str()))
        .unwrap_or(SpecVersion::LATEST)
}

fn answer(environment: &Environment, input: Vec<u8>) -> Result<String, Error> {
    if environment.verb == Verb::Version {
        let supported = SpecVersion::ALL.map(SpecVersion::text);
        // In the version that is asked in, where that is said.
        let spoken = if input.is_empty() { SpecVersion::LATEST } else { version_of(&input) };
        return Ok(json!({"cniVersion": spoken.text(), "supportedVersions": supported}).to_string());
    }
    let config = Config::read(input)?;
    let since = match environment.verb {
        Verb::Check => SpecVersion::V0_4_0,
        Verb::Gc | Verb::Status => SpecVersion::V1_1_0,
        _ => SpecVersion::V0_1_0,
    };
    if config.version < since {
        let verb = env::var("CNI_COMMAND").unwrap_or_default();
        return Err(Error::new(Code::IncompatibleVersion, format!("config version does not allow {verb}")));
    }
    environment.check_namespace()?;
    let url = config.keys.socket.clone().or_else(|| env::var("NETD_HOST").ok());
    let client = cli::reach(url.as_deref().unwrap_or(DEFAULT_HOST), None)
        .map_err(|why| Error::new(Code::InvalidConfig, format!("invalid socket: {why}")))?;
    let plugin =
        Plugin { environment, delegate: Delegate::of(&config, environment)?, config: &config, client };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    runtime.block_on(plugin.execute())
}

/// One call.
struct Plugin<'a> {
    environment: &'a Environment,
    config: &'a Config,
    delegate: Option<Delegate<'a>>,
    client: Client,
}

impl Plugin<'_> {
    async fn execute(&self) -> Result<String, Error> {
        match self.environment.verb {
            Verb::Add => self.add().await,
            Verb::Del => self.del().await,
            Verb::Check => self.check().await,
            Verb::Gc => self.gc().await,
            Verb::Status => self.status().await,
            // It is answered without a configuration.
            Verb::Version => Ok(String::new()),
        }
    }

    async fn add(&self) -> Result<String, Error> {
        if self.config.previous.is_some() {
            return Err(Error::new(
                Code::InvalidConfig,
                "netd makes the interface: it must be the first plugin of its chain",
            ));
        }
        self.refuse_unsupported()?;
        let from_file = self.resolv_conf()?;
        let given = self.delegate.as_ref().map(Delegate::add).transpose()?;
        let attached = self.attach(given.as_ref()).await;
        if attached.is_err()
            && let Some(delegate) = &self.delegate
        {
            // The first failure is the one to tell.
            let _ = delegate.del();
        }
        let attached = attached?;
        // The network's own resolver, unless somebody names others.
        let nameservers = attached.servers.iter().map(ToString::to_string).collect();
        let own = Dns { nameservers, ..Dns::default() };
        let dns = [self.config.dns(), given.map(|given| given.dns).unwrap_or_default(), from_file];
        let dns = dns.into_iter().find(|dns| !dns.is_empty()).unwrap_or(own);
        Ok(Outcome::of(&attached, dns).write(self.config.version).to_string())
    }

    async fn attach(&self, given: Option<&Outcome>) -> Result<Attachment, Error> {
        let request = self.request(given)?;
        let body = self.client.post("/netd/attachments", &request).await?;
        Ok(self.client.parse(&body)?)
    }

    async fn del(&self) -> Result<String, Error> {
        match self.client.delete(&self.path()).await.map_err(Error::from) {
            // With its namespace gone there is nothing of it left but in the daemon's memory, and a daemon that starts
            // forgets who is no more.
            Err(error) if error.code == Code::TryAgainLater as u32 && !self.environment.has_namespace() => {}
            done => done?,
        }
        self.delegate.as_ref().map_or(Ok(()), Delegate::del)?;
        Ok(String::new())
    }

    async fn check(&self) -> Result<String, Error> {
        let previous = self.config.previous.as_ref();
        let previous =
            previous.ok_or_else(|| Error::new(Code::InvalidConfig, "Required prevResult missing"))?;
        if let Some(delegate) = &self.delegate {
            delegate.check()?;
        }
        let body = self.client.get(&self.path()).await.map_err(|error| {
            let error = Error::from(error);
            // 409: it is there, and is not as it was made.
            if error.code == Code::Refused as u32 { Error::new(Code::Changed, error.message) } else { error }
        })?;
        let attachment: Attachment = self.client.parse(&body)?;
        let (asked, own) = (&self.environment.netns, &attachment.sandbox);
        if !self.environment.is_in(own)? {
            let interface = &self.environment.interface;
            return Err(Error::new(
                Code::Changed,
                format!("{interface}: it is in {own}, and not in {asked}"),
            ));
        }
        self.compare(previous, &attachment)?;
        Ok(String::new())
    }

    /// Whether what was told at ADD is still what the daemon has.
    fn compare(&self, previous: &Outcome, attachment: &Attachment) -> Result<(), Error> {
        let name = &self.environment.interface;
        let changed = |what: String| Err(Error::new(Code::Changed, format!("{name}: {what}")));
        let is_own = |interface: &result::Interface| interface.name == *name && !interface.sandbox.is_empty();
        let Some(own) = previous.interfaces.iter().position(is_own) else {
            return changed("prevResult has no such interface in a sandbox".to_owned());
        };
        let mac = &previous.interfaces[own].mac;
        let is = attachment.interface.mac.map(|mac| mac.to_string()).unwrap_or_default();
        if !mac.is_empty() && *mac != is {
            return changed(format!("its MAC address is {is}, and prevResult has {mac}"));
        }
        for ip in previous.ips.iter().filter(|ip| ip.interface.is_none_or(|index| index == own)) {
            if !attachment.addresses.iter().any(|address| address.address == ip.address) {
                return changed(format!("it does not have the address {} of prevResult", ip.address));
            }
        }
        // Routes to other places, and in other tables, are those of plugins that follow.
        for route in previous.routes.iter().filter(|route| route.table.is_none()) {
            let own = attachment.routes.iter().filter(|own| own.destination == route.dst.trunc());
            let own: Vec<_> = own.collect();
            let is_it = |own: &&Route| {
                (route.gw.is_none() || own.gateway == route.gw)
                    && (route.priority == 0 || own.metric == route.priority)
            };
            if !own.is_empty() && !own.iter().any(is_it) {
                return changed(format!("its route to {} is another one than that of prevResult", route.dst));
            }
        }
        Ok(())
    }

    async fn gc(&self) -> Result<String, Error> {
        let valid = self.config.valid()?;
        let path = format!("/netd/attachments/{}/prune", escape(&self.config.name));
        let body = self.client.post(&path, &Prune { valid }).await?;
        let Pruned { removed, mut failures } = self.client.parse(&body)?;
        if let Some(delegate) = &self.delegate {
            let errors =
                removed.iter().filter_map(|key| Some(format!("{key}: {}", delegate.del_of(key).err()?)));
            failures.extend(errors);
            // A plugin of which netd removed nothing may hold something still (CNI 1.1.0, section 4, "GC").
            failures.extend(delegate.gc().err().map(|error| format!("IPAM plugin: {error}")));
        }
        match failures.as_slice() {
            [] => Ok(String::new()),
            _ => {
                Err(Error::new(Code::Refused, "not all that is stale could be removed")
                    .with(failures.join("; ")))
            }
        }
    }

    async fn status(&self) -> Result<String, Error> {
        self.client.get("/_ping").await.map_err(|error| {
            Error::new(Code::NotAvailable, "netd's daemon does not answer").with(error.to_string())
        })?;
        self.delegate.as_ref().map_or(Ok(()), Delegate::status)?;
        Ok(String::new())
    }

    /// The path of the attachment.
    fn path(&self) -> String {
        let Environment { container, interface, .. } = self.environment;
        format!("/netd/attachments/{}/{}/{}", escape(&self.config.name), escape(container), escape(interface))
    }

    /// The resolvers of the file that netd's IPAM is told of.
    fn resolv_conf(&self) -> Result<Dns, Error> {
        let path = &self.config.keys.ipam.resolv_conf;
        if path.is_empty() || self.delegate.is_some() {
            return Ok(Dns::default());
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::new(Code::Io, format!("cannot read {path}: {error}")))?;
        let mut dns = Dns::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => dns.nameservers.extend(words.next()),
                Some("domain") => dns.domain = words.next().unwrap_or_default(),
                Some("search") => dns.search.extend(words),
                Some("options") => dns.options.extend(words),
                _ => {}
            }
        }
        Ok(dns)
    }
}
