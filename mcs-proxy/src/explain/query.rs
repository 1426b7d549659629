use crate::model::{IMPORT_PREFIX, NamespacedName};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    pub target: Target,
    pub client: Option<Client>,
}

/// A Service, or a frontend by what clients call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Service { namespace: String, name: String },
    Frontend { address: SocketAddr, protocol: String },
}

/// `--client`: an address, with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    #[error(
        "name a Service as NAMESPACE/NAME (default/serve), a ServiceImport as NAMESPACE/serviceimport/NAME, or a VIP with \
         its port (10.13.181.116:80, [fd00::1]:80)"
    )]
    Target,
    #[error("name an address, with or without a port: 10.12.0.9, 10.12.0.9:40000, [fd00::9]:40000")]
    Client,
}

impl FromStr for Target {
    type Err = BadQuery;

    /// A frontend is TCP, until another protocol is put in.
    fn from_str(text: &str) -> Result<Self, BadQuery> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Frontend { address, protocol: "TCP".into() });
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() => {
                // As what a ServiceImport has beside Services is called in all that is printed.
                let own = name.strip_prefix(IMPORT_PREFIX).unwrap_or(name);
                if own.is_empty() || own.contains('/') {
                    return Err(BadQuery::Target);
                }
                Ok(Self::Service { namespace: namespace.into(), name: name.into() })
            }
            Some(_) | None => Err(BadQuery::Target),
        }
    }
}

impl FromStr for Client {
    type Err = BadQuery;

    fn from_str(text: &str) -> Result<Self, BadQuery> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let address: SocketAddr = text.parse().map_err(|_| BadQuery::Client)?;
        Ok(Self { ip: address.ip(), port: Some(address.port()) })
    }
}

impl Query {
    #[must_use]
    pub fn of_service(key: &NamespacedName) -> Self {
        let target = Target::Service { namespace: key.namespace.to_string(), name: key.name.to_string() };
        Self { target, client: None }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(formatter, "{}", SocketAddr::new(self.ip, port)),
            None => write!(formatter, "{}", self.ip),
        }
    }
}

impl Target {
    /// The Service, if it is one by name.
    #[must_use]
    pub fn service(&self) -> Option<NamespacedName> {
        match self {
            Self::Service { namespace, name } => Some(NamespacedName::new(&**namespace, &**name)),
            Self::Frontend { .. } => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { namespace, name } => write!(formatter, "Service {namespace}/{name}"),
            Self::Frontend { address, protocol } => write!(formatter, "{protocol} {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_a_frontend_and_a_client_are_told_from_what_is_none() {
        for text in
            ["default/serve", "default/serviceimport/serve", "TCP 10.13.181.116:80", "TCP [fd00::1]:80"]
        {
            let target: Target = text.trim_start_matches("TCP ").parse().unwrap();
            assert_eq!(target.to_string().trim_start_matches("Service "), text);
        }
        for text in [
            "serve",
            "/serve",
            "default/",
            "a/b/c",
            "a/serviceimport/",
            "a/serviceimport/b/c",
            "10.13.181.116",
            "fd00::1:80x",
        ] {
            assert_eq!(text.parse::<Target>(), Err(BadQuery::Target), "{text}");
        }
        for text in ["10.12.0.9", "10.12.0.9:40000", "fd00::9", "[fd00::9]:40000"] {
            assert_eq!(text.parse::<Client>().unwrap().to_string(), text);
        }
        assert_eq!("serve".parse::<Client>(), Err(BadQuery::Client));
    }
}
