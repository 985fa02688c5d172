//! What a new network is configured with: what its request says, or what the configuration network says that it names.

use std::collections::BTreeMap;

use super::options;
use crate::{
    ipam::{self, Requested},
    model::{Driver, Error, Id, Ipam, Network, Pool, State, Timestamp, request::NetworkCreate},
};

/// The part of a request that a configuration network can stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) enable_ipv4: bool,
    pub(super) enable_ipv6: bool,
    pub(super) subnets: Vec<Requested>,
    pub(super) ipam_driver: String,
    pub(super) ipam_options: Option<BTreeMap<String, String>>,
    pub(super) options: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
}

impl Configuration {
    /// What `request` is configured with; `defaults` are the options that a network has if nothing is said of them.
    pub(super) fn find(
        state: &State,
        request: &NetworkCreate,
        defaults: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let own = Self::read(request, defaults)?;
        if request.config_only
            && (request.ingress || request.internal || request.attachable || !request.scope.is_empty())
        {
            return Err(Error::forbidden(
                "configuration network can only contain network specific fields. Network operator fields like \
                 [ ingress | internal | attachable | scope ] are not supported.",
            ));
        }
        match request.config_from.as_ref().map(|from| from.network.as_str()).unwrap_or_default() {
            "" => Ok(own),
            _ if request.config_only => Err(Error::forbidden(
                "a configuration network cannot depend on another configuration network",
            )),
            name => own.replaced_by(state, name),
        }
    }

    fn read(request: &NetworkCreate, defaults: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut options = request.options.clone();
        if request.config_from.is_none() {
            for (name, value) in defaults {
                options.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let enable_ipv4 = enabled(&mut options, options::ENABLE_IPV4, request.enable_ipv4)?.unwrap_or(true);
        let enable_ipv6 = enabled(&mut options, options::ENABLE_IPV6, request.enable_ipv6)?.unwrap_or(false);
        let ipam = request.ipam.clone().unwrap_or_default();
        let subnets = ipam::read(&ipam.config, enable_ipv6).map_err(Error::invalid)?;
        let ipam_driver = if ipam.driver.is_empty() { ipam::DEFAULT.to_owned() } else { ipam.driver };
        let (ipam_options, labels) = (ipam.options, request.labels.clone());
        Ok(Self { enable_ipv4, enable_ipv6, subnets, ipam_driver, ipam_options, options, labels })
    }

    /// What the configuration network `name` says, if this one says nothing.
    fn replaced_by(self, state: &State, name: &str) -> Result<Self, Error> {
        let said = !self.enable_ipv4
            || self.enable_ipv6
            || !self.labels.is_empty()
            || self.ipam_driver != ipam::DEFAULT
            || self.ipam_options.as_ref().is_some_and(|options| !options.is_empty())
            || !self.subnets.is_empty();
        if said {
            return Err(Error::forbidden(
                "user specified configurations are not supported if the network depends on a configuration network",
            ));
        }
        if !self.options.is_empty() {
            return Err(Error::forbidden(
                "network driver options are not supported if the network depends on a configuration network",
            ));
        }
        let Some(template) = state.network_named(name).filter(|network| network.config_only) else {
            return Err(Error::not_found(format!("configuration network {name:?} does not exist")));
        };
        let ipam = &template.ipam;
        let asked = |pool: &Pool| Requested {
            subnet: Some(pool.subnet),
            range: pool.range,
            gateway: pool.gateway,
            auxiliary: pool.auxiliary.clone(),
        };
        Ok(Self {
            enable_ipv4: template.enable_ipv4,
            enable_ipv6: template.enable_ipv6,
            subnets: ipam.pools.iter().map(asked).collect(),
            ipam_driver: ipam.driver.clone(),
            ipam_options: ipam.options.clone().filter(|options| !options.is_empty()).or(self.ipam_options),
            options: template.options.clone(),
            labels: template.labels.clone(),
        })
    }

    /// A configuration network: it has this to give, and is nothing itself.
    pub(super) fn template(self, id: Id, name: String) -> Network {
        let pool = |asked: Requested| {
            Some(Pool {
                subnet: asked.subnet?,
                range: asked.range,
                bounds: None,
                gateway: asked.gateway,
                gateway_shown: asked.gateway.is_some(),
                auxiliary: asked.auxiliary,
                requested: true,
                last: None,
            })
        };
        // As Docker keeps them: IPv4 before IPv6, however they were asked for.
        let mut pools: Vec<Pool> = self.subnets.into_iter().filter_map(pool).collect();
        pools.sort_by_key(|pool| pool.subnet.addr().is_ipv6());
        Network {
            id,
            name,
            created: Timestamp::now(),
            driver: Driver::Null,
            enable_ipv4: self.enable_ipv4,
            enable_ipv6: self.enable_ipv6,
            internal: false,
            attachable: false,
            config_only: true,
            config_from: None,
            ipam: Ipam { driver: self.ipam_driver, options: self.ipam_options, pools },
            options: self.options,
            labels: self.labels,
            bridge: None,
            engine_id: None,
        }
    }
}

/// Whether a family is asked for, by the request's own field or else by an option. The field makes the option void: it is
/// not shown.
fn enabled(
    options: &mut BTreeMap<String, String>,
    name: &str,
    field: Option<bool>,
) -> Result<Option<bool>, Error> {
    if field.is_some() {
        options.remove(name);
        return Ok(field);
    }
    options::boolean(options, name)
        .map_err(|_| Error::invalid(format!("driver-opt {name:?} is not a valid bool")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ErrorKind,
        request::{ConfigFrom, IpamRequest, PoolRequest},
    };

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn template() -> NetworkCreate {
        NetworkCreate {
            name: "t".into(),
            config_only: true,
            enable_ipv6: Some(true),
            ipam: Some(IpamRequest {
                options: Some(options(&[("k", "v")])),
                config: vec![
                    PoolRequest {
                        subnet: "10.5.0.0/16".into(),
                        gateway: "10.5.0.9".into(),
                        ..PoolRequest::default()
                    },
                    PoolRequest { subnet: "fd00:5::/64".into(), ..PoolRequest::default() },
                ],
                ..IpamRequest::default()
            }),
            options: options(&[("o", "p")]),
            labels: options(&[("a", "b")]),
            ..NetworkCreate::default()
        }
    }

    fn state() -> State {
        let configuration = Configuration::find(&State::default(), &template(), &BTreeMap::new()).unwrap();
        let network = configuration.template(Id::new([1; 32]), "t".into());
        State { networks: BTreeMap::from([(network.id, network)]), ..State::default() }
    }

    fn dependent() -> NetworkCreate {
        NetworkCreate {
            name: "n".into(),
            config_from: Some(ConfigFrom { network: "t".into() }),
            ..NetworkCreate::default()
        }
    }

    #[test]
    fn a_network_takes_all_of_its_configuration_from_another() {
        let defaults = options(&[("com.docker.network.driver.mtu", "1234")]);
        let taken = Configuration::find(&state(), &dependent(), &defaults).unwrap();
        let own = Configuration::find(&state(), &template(), &BTreeMap::new()).unwrap();
        assert_eq!(taken, own);
        assert_eq!(taken.subnets[0].gateway.unwrap().to_string(), "10.5.0.9");
        assert_eq!(taken.subnets[1].gateway, None);
    }

    #[test]
    fn it_says_nothing_of_its_own_then() {
        let refused = |change: fn(&mut NetworkCreate)| {
            let mut request = dependent();
            change(&mut request);
            let error = Configuration::find(&state(), &request, &BTreeMap::new()).unwrap_err();
            (error.kind, error.message)
        };
        let user = "user specified configurations are not supported if the network depends on a configuration network";
        for change in [
            (|request| request.enable_ipv4 = Some(false)) as fn(&mut NetworkCreate),
            |request| request.enable_ipv6 = Some(true),
            |request| request.labels = options(&[("a", "b")]),
            |request| {
                request.ipam = Some(IpamRequest {
                    config: vec![PoolRequest { subnet: "10.6.0.0/16".into(), ..PoolRequest::default() }],
                    ..IpamRequest::default()
                });
            },
            |request| {
                request.ipam = Some(IpamRequest { driver: Ipam::NULL.into(), ..IpamRequest::default() });
            },
            |request| {
                request.ipam =
                    Some(IpamRequest { options: Some(options(&[("k", "v")])), ..IpamRequest::default() });
            },
        ] {
            assert_eq!(refused(change), (ErrorKind::Forbidden, user.to_owned()));
        }
        assert_eq!(
            refused(|request| request.options = options(&[("k", "v")])).1,
            "network driver options are not supported if the network depends on a configuration network"
        );
        assert_eq!(
            refused(|request| request.config_from = Some(ConfigFrom { network: "x".into() })),
            (ErrorKind::NotFound, "configuration network \"x\" does not exist".to_owned())
        );
        assert_eq!(
            refused(|request| request.config_only = true).1,
            "a configuration network cannot depend on another configuration network"
        );
    }

    #[test]
    fn a_configuration_network_is_nothing_itself() {
        for change in [
            (|request| request.internal = true) as fn(&mut NetworkCreate),
            |request| request.attachable = true,
            |request| request.ingress = true,
            |request| request.scope = "local".into(),
        ] {
            let mut request = template();
            change(&mut request);
            let error = Configuration::find(&State::default(), &request, &BTreeMap::new()).unwrap_err();
            assert!(error.message.starts_with("configuration network can only contain network specific"));
        }
    }

    #[test]
    fn a_family_is_asked_for_by_field_option_or_default() {
        let name = options::ENABLE_IPV6;
        let read = |field, option: Option<&str>, default: &[(&str, &str)]| {
            let options = option.map(|value| options(&[(name, value)])).unwrap_or_default();
            let request = NetworkCreate { enable_ipv6: field, options, ..NetworkCreate::default() };
            let defaults = self::options(default);
            Configuration::find(&State::default(), &request, &defaults)
                .map(|read| (read.enable_ipv6, read.options.contains_key(name)))
                .map_err(|error| error.message)
        };
        assert_eq!(read(None, None, &[]), Ok((false, false)));
        assert_eq!(read(None, Some("true"), &[]), Ok((true, true)));
        assert_eq!(read(None, None, &[(name, "true")]), Ok((true, true)));
        assert_eq!(read(None, Some("false"), &[(name, "true")]), Ok((false, true)));
        assert_eq!(read(Some(false), None, &[(name, "true")]), Ok((false, false)));
        assert_eq!(read(None, Some("maybe"), &[]), Err(format!("driver-opt {name:?} is not a valid bool")));
    }
}
