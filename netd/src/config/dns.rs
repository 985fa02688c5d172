//! Names: who is asked, and what resolvers are told.

use std::net::IpAddr;

use super::settings::{Invalid, Settings};

/// Resolvers, and what their clients add to a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Who is asked.
    pub servers: Vec<IpAddr>,
    /// Options of a resolv.conf(5).
    pub options: Vec<String>,
    /// Domains that are tried for a short name.
    pub search: Vec<String>,
}

impl Dns {
    pub(super) fn read(settings: &Settings) -> Result<Self, Invalid> {
        let server = |text: &str| {
            text.parse().map_err(|_| Invalid::value("dns", format!("invalid IP address: {text}")))
        };
        let search = |text: &str| {
            let domain = text.trim();
            if is_domain(domain) {
                Ok(domain.to_owned())
            } else {
                Err(Invalid::value("dns-search", format!("{text} is not a valid domain")))
            }
        };
        Ok(Self {
            servers: settings.texts("dns")?.into_iter().map(server).collect::<Result<_, _>>()?,
            options: settings.texts("dns-opts")?.into_iter().map(str::to_owned).collect(),
            search: settings.texts("dns-search")?.into_iter().map(search).collect::<Result<_, _>>()?,
        })
    }
}

/// Whether a text is a domain: labels of letters, digits and inner hyphens, with a letter somewhere; or `.` for none.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text == "."
        || (text.len() <= 255
            && text.bytes().any(|byte| byte.is_ascii_alphabetic())
            && text.strip_suffix('.').unwrap_or(text).split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_checked() {
        let read = |json: &str| {
            Dns::read(&Settings::parse(json.as_bytes()).unwrap()).map_err(|invalid| invalid.reason)
        };
        let dns = read(
            r#"{"dns": ["1.1.1.1", "::1"], "dns-opts": ["ndots:1"], "dns-search": ["a.example.", "."]}"#,
        )
        .unwrap();
        assert_eq!((dns.servers.len(), dns.options.len(), dns.search.len()), (2, 1, 2));
        assert_eq!(read(r#"{"dns": ["x"]}"#).unwrap_err(), "invalid value for `dns`: invalid IP address: x");
        for domain in ["123", "a..b", "-a", "a b", ""] {
            let error = read(&format!(r#"{{"dns-search": ["{domain}"]}}"#)).unwrap_err();
            assert_eq!(error, format!("invalid value for `dns-search`: {domain} is not a valid domain"));
        }
    }
}
