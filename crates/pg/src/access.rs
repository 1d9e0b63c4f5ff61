//! Who may connect from where, and how it must prove itself: rules like those of `pg_hba.conf`.
//!
//! The first rule that matches a connection decides; a connection that no rule matches is refused.

use std::net::IpAddr;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It is believed.
    Trust,
    /// By a password, with SCRAM-SHA-256.
    Scram,
    /// It is refused.
    Reject,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRange {
    /// Any address.
    All,
    /// Addresses whose first bits are those of `address`.
    Network {
        /// Any address of the network.
        address: IpAddr,
        /// How many bits count.
        prefix: u8,
    },
}

/// An address range that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither \"all\" nor a network such as 10.0.0.0/8 or ::1/128")]
pub struct AddressRangeError(String);

impl std::str::FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let error = || AddressRangeError(text.to_owned());
        if text == "all" {
            return Ok(Self::All);
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| error())?,
            None => bits,
        };
        if prefix > bits { Err(error()) } else { Ok(Self::Network { address, prefix }) }
    }
}

impl AddressRange {
    /// Whether an address is in the range. An IPv4 address that came through an IPv6 socket counts as IPv4.
    #[must_use]
    pub fn contains(&self, client: IpAddr) -> bool {
        let Self::Network { address, prefix } = *self else { return true };
        let differing = match (address, client.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(client)) => {
                (network.to_bits() ^ client.to_bits()).leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(client)) => {
                (network.to_bits() ^ client.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        differing >= u32::from(prefix)
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Addresses it is for.
    pub from: AddressRange,
    /// The role it is for; `None` for all.
    pub role: Option<String>,
    /// The database it is for; `None` for all.
    pub database: Option<String>,
    /// Whether it is for connections with TLS only.
    pub tls_only: bool,
    /// What a client that matches must show.
    pub method: Method,
}

/// What is known of a connection before it has proved anything.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Where it comes from; `None` for a Unix socket, which every range holds.
    pub address: Option<IpAddr>,
    /// The role it wants.
    pub role: &'a str,
    /// The database it wants.
    pub database: &'a str,
    /// Whether it uses TLS.
    pub is_tls: bool,
}

/// The method of the first rule that matches, or `None`.
#[must_use]
pub fn decide(rules: &[AccessRule], visitor: &Visitor<'_>) -> Option<Method> {
    rules
        .iter()
        .find(|rule| {
            visitor.address.is_none_or(|address| rule.from.contains(address))
                && rule.role.as_deref().is_none_or(|role| role == visitor.role)
                && rule.database.as_deref().is_none_or(|database| database == visitor.database)
                && (visitor.is_tls || !rule.tls_only)
        })
        .map(|rule| rule.method)
}

/// Rules that trust loopback and refuse the rest, for a cluster on one's own machine.
#[must_use]
pub fn trust_loopback() -> Vec<AccessRule> {
    [IpAddr::from([127, 0, 0, 0]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]
        .into_iter()
        .zip([8, 128])
        .map(|(address, prefix)| AccessRule {
            from: AddressRange::Network { address, prefix },
            role: None,
            database: None,
            tls_only: false,
            method: Method::Trust,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_hold_what_they_should() {
        let range: AddressRange = "10.1.0.0/16".parse().unwrap();
        assert!(range.contains(address("10.1.255.9")));
        assert!(range.contains(address("::ffff:10.1.0.1")), "IPv4 through an IPv6 socket");
        assert!(!range.contains(address("10.2.0.1")));
        assert!(!range.contains(address("::1")));
        assert!("0.0.0.0/0".parse::<AddressRange>().unwrap().contains(address("8.8.8.8")));
        assert!("::1".parse::<AddressRange>().unwrap().contains(address("::1")));
        for bad in ["", "host", "10.0.0.0/33", "::1/129", "10.0.0.0/x"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let rule = |from: &str, role: Option<&str>, tls_only, method| AccessRule {
            from: from.parse().unwrap(),
            role: role.map(str::to_owned),
            database: None,
            tls_only,
            method,
        };
        let rules = [
            rule("all", Some("eve"), false, Method::Reject),
            rule("127.0.0.0/8", None, false, Method::Trust),
            rule("all", None, true, Method::Scram),
        ];
        let visit = |from: &str, role, is_tls| {
            decide(&rules, &Visitor { address: Some(address(from)), role, database: "d", is_tls })
        };
        assert_eq!(visit("127.0.0.1", "eve", false), Some(Method::Reject));
        assert_eq!(visit("127.0.0.1", "ann", false), Some(Method::Trust));
        assert_eq!(visit("10.0.0.1", "ann", true), Some(Method::Scram));
        assert_eq!(visit("10.0.0.1", "ann", false), None);
        let visitor = Visitor { address: Some(address("::1")), role: "a", database: "d", is_tls: false };
        assert_eq!(decide(&trust_loopback(), &visitor), Some(Method::Trust));
    }
}
