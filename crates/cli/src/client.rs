//! Reaching a node: the addresses to try, and one request with a deadline.

use std::time::Duration;

use rustydb_proto::v1::admin_client::AdminClient;
use rustydb_proto::v1::{
    ClusterStatusRequest, ClusterStatusResponse, Member, NodeStatusRequest, NodeStatusResponse,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::error::CliError;
use crate::{Global, NodeName};

/// Longest wait for a change of the cluster: longer than a node takes to give one up, so that its reason arrives.
const CHANGE_WAIT: Duration = Duration::from_secs(90);

/// A client of one node's admin service.
pub(crate) type Admin = AdminClient<Channel>;

/// Where nodes may be found, and how to speak to them.
#[derive(Debug)]
pub(crate) struct Addresses {
    hosts: Vec<(String, u16)>,
    timeout: Duration,
    tls: Option<ClientTlsConfig>,
}

impl Addresses {
    pub(crate) fn new(global: &Global) -> Result<Addresses, CliError> {
        let hosts: Result<Vec<_>, CliError> =
            global.host.split(',').map(|host| split_address(host.trim(), Some(global.port))).collect();
        Ok(Addresses { hosts: hosts?, timeout: global.connect_timeout, tls: tls(global)? })
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The first node of the list that answers, with what it says about itself.
    pub(crate) async fn first(&self) -> Result<(Admin, NodeStatusResponse), CliError> {
        let mut reasons = Vec::new();
        for (host, port) in &self.hosts {
            match self.ask(host, *port).await {
                Ok(found) => return Ok(found),
                Err(reason) => reasons.push(format!("{host}:{port}: {reason}")),
            }
        }
        Err(CliError::Unreachable(format!("no node answers: {}", reasons.join("; "))))
    }

    /// A node by its number, found through the cluster's own list; `None` is the addressed node.
    pub(crate) async fn node(&self, name: Option<NodeName>) -> Result<(Admin, NodeStatusResponse), CliError> {
        let (mut admin, status) = self.first().await?;
        let Some(NodeName(wanted)) = name.filter(|name| name.0 != status.node_id) else {
            return Ok((admin, status));
        };
        let cluster = self.cluster(&mut admin).await?;
        let Some(member) = cluster.members.iter().find(|member| member.node_id == wanted) else {
            return Err(CliError::Refused(format!("node {wanted} is not a member of this cluster")));
        };
        self.member(member).await
    }

    /// A member of the cluster, with what it says about itself. Another node may listen at its address by now.
    pub(crate) async fn member(&self, member: &Member) -> Result<(Admin, NodeStatusResponse), CliError> {
        let address = &member.interconnect_address;
        let (admin, status) = self.at(address).await?;
        if status.node_id != member.node_id {
            let reason = format!("node {} answers at {address}, not node {}", status.node_id, member.node_id);
            return Err(CliError::Unreachable(reason));
        }
        Ok((admin, status))
    }

    /// The node at an interconnect address, with what it says about itself.
    pub(crate) async fn at(&self, address: &str) -> Result<(Admin, NodeStatusResponse), CliError> {
        let (host, port) = split_address(address, None)?;
        self.ask(&host, port)
            .await
            .map_err(|reason| CliError::Unreachable(format!("{address} does not answer: {reason}")))
    }

    /// The cluster as the node behind `admin` knows it.
    pub(crate) async fn cluster(&self, admin: &mut Admin) -> Result<ClusterStatusResponse, CliError> {
        Ok(admin.cluster_status(ClusterStatusRequest {}).await?.into_inner())
    }

    /// Asks for a node's status at its interconnect port. When the port turns out to speak PostgreSQL, the
    /// interconnect is looked for 100 ports higher, where the usual layout has it, and taken only if the node
    /// there says that the given port is its own.
    async fn ask(&self, host: &str, port: u16) -> Result<(Admin, NodeStatusResponse), String> {
        match self.status(host, port).await {
            Ok(found) => Ok(found),
            Err(reason) if self.speaks_postgres(host, port).await => {
                let hint = format!("{port} is a PostgreSQL port; give the interconnect port ({reason})");
                let Some(next) = port.checked_add(100) else { return Err(hint) };
                match self.status(host, next).await {
                    Ok((admin, status)) if status.postgres_address.ends_with(&format!(":{port}")) => {
                        Ok((admin, status))
                    }
                    _ => Err(hint),
                }
            }
            Err(reason) => Err(reason),
        }
    }

    async fn status(&self, host: &str, port: u16) -> Result<(Admin, NodeStatusResponse), String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{port}"))
            .map_err(|error| error.to_string())?
            .connect_timeout(self.timeout)
            .timeout(CHANGE_WAIT);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone()).map_err(|error| innermost(&error))?;
        }
        let channel = tokio::time::timeout(self.timeout, endpoint.connect())
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| innermost(&error))?;
        let mut admin = AdminClient::new(channel);
        let status = tokio::time::timeout(self.timeout, admin.node_status(NodeStatusRequest {}))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| status.message().to_owned())?;
        Ok((admin, status.into_inner()))
    }

    /// Whether the port answers PostgreSQL's request for TLS, which every server answers with one letter.
    async fn speaks_postgres(&self, host: &str, port: u16) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
        let probe = async {
            let mut stream = tokio::net::TcpStream::connect((host, port)).await.ok()?;
            stream.write_all(&SSL_REQUEST).await.ok()?;
            let mut answer = [0_u8; 1];
            stream.read_exact(&mut answer).await.ok()?;
            Some(matches!(answer, [b'S' | b'N']))
        };
        tokio::time::timeout(self.timeout.min(Duration::from_secs(2)), probe).await.ok().flatten()
            == Some(true)
    }
}

/// The last cause of an error, which is the one that a person can act on.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

fn tls(global: &Global) -> Result<Option<ClientTlsConfig>, CliError> {
    let Some(ca) = &global.ca_file else { return Ok(None) };
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .map_err(|error| CliError::Usage(format!("cannot read {}: {error}", path.display())))
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    if let (Some(certificate), Some(key)) = (&global.certificate_file, &global.key_file) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(Some(tls))
}

/// Splits `host:port`; a host without a port takes `default`.
pub(crate) fn split_address(text: &str, default: Option<u16>) -> Result<(String, u16), CliError> {
    let wrong = || CliError::Usage(format!("`{text}` is not an address of the form host:port"));
    let alone = |host: &str| default.map(|port| (host.to_owned(), port)).ok_or_else(wrong);
    if text.is_empty() {
        return Err(wrong());
    }
    // A bare IPv6 address has several colons and no bracket.
    if !text.starts_with('[') && text.matches(':').count() > 1 {
        return alone(&format!("[{text}]"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
        }
        _ => alone(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        let split = |text: &str| split_address(text, Some(7)).unwrap();
        assert_eq!(split("a"), ("a".to_owned(), 7));
        assert_eq!(split("a:1"), ("a".to_owned(), 1));
        assert_eq!(split("[::1]:1"), ("[::1]".to_owned(), 1));
        assert_eq!(split("::1"), ("[::1]".to_owned(), 7));
        assert_eq!(split("[::1]"), ("[::1]".to_owned(), 7));
        assert!(split_address("a", None).is_err());
        assert!(split_address("a:b", None).is_err());
        assert!(split_address("", Some(7)).is_err());
    }
}
