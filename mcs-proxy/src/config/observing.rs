use super::{Output, Sizes};
use clap::Args;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// `mcs-proxy check`: flags that `run` will be given.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// As of `run`
    #[arg(long, value_name = "PATH", env = "MCS_PROXY_CGROUP")]
    pub cgroup: Option<PathBuf>,
    #[command(flatten)]
    pub sizes: Sizes,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// How the daemon is watched.
#[derive(Clone, Copy, Debug, Args)]
pub struct Observing {
    /// Where /metrics, /healthz, /readyz and /livez are served over HTTP: IP:PORT, an IP alone (port 10266), or `off`
    #[arg(long, value_name = "ADDRESS", default_value_t = BindAddress::DEFAULT)]
    pub metrics_bind_address: BindAddress,
    /// Services, and pairs of Service and source cluster, that have a row of their own in /metrics; beyond it they share
    /// one whose labels say `other`
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub metrics_max_rows: usize,
}

/// `--metrics-bind-address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress(Option<SocketAddr>);

impl BindAddress {
    const PORT: u16 = 10266;
    pub const DEFAULT: Self = Self(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Self::PORT)));

    /// `None`: nothing is served.
    #[must_use]
    pub const fn socket(self) -> Option<SocketAddr> {
        self.0
    }
}

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(Some(SocketAddr::new(ip, Self::PORT))));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| format!("`{text}` is none of IP:PORT ([::1]:{port}), IP, off", port = Self::PORT))
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(formatter, "{address}"),
            None => formatter.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_or_without_a_port_or_none() {
        for (text, means) in [
            ("127.0.0.1:10266", "127.0.0.1:10266"),
            ("0.0.0.0", "0.0.0.0:10266"),
            ("::1", "[::1]:10266"),
            ("[fd00::1]:9100", "[fd00::1]:9100"),
            ("off", "off"),
        ] {
            assert_eq!(text.parse::<BindAddress>().unwrap().to_string(), means);
        }
        for text in ["", "localhost:80", ":10266", "127.0.0.1:"] {
            assert!(text.parse::<BindAddress>().unwrap_err().contains("IP:PORT"), "{text}");
        }
        assert_eq!(BindAddress::DEFAULT.to_string(), "127.0.0.1:10266");
    }
}
