//! Records of the system group and the view that a node keeps of them.

use std::collections::{BTreeMap, BTreeSet};

use rustydb_types::ids::{DatabaseId, GroupId, NodeId, Oid};
use serde::{Deserialize, Serialize};

use crate::catalog::acl::Acl;
use crate::catalog::descriptor::{DescriptorError, decode};
use crate::catalog::snapshot::DATABASE_OWNER_ROLE;
use crate::session::token::TokenKey;

/// Key of the counters.
pub(crate) const COUNTERS: u8 = 0x01;
/// First byte of the keys of databases.
pub(crate) const DATABASES: u8 = 0x02;
/// First byte of the keys of roles.
pub(crate) const ROLES: u8 = 0x03;
/// First byte of the keys of nodes.
pub(crate) const NODES: u8 = 0x04;
/// First byte of the keys of settings.
pub(crate) const SETTINGS: u8 = 0x05;
/// First byte of the keys of nodes that were removed.
pub(crate) const REMOVED: u8 = 0x06;

/// What is given out once and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The object identifier of the next database or role.
    pub next_oid: u32,
    /// The group of the next database.
    pub next_group: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self { next_oid: Oid::FIRST_USER.get(), next_group: GroupId::SYSTEM.get() + 1 }
    }
}

/// Where a database is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatabaseState {
    /// Its group is being opened on its replicas; nobody can connect.
    Creating,
    /// It serves sessions.
    Ready,
    /// Its group is being removed; nobody can connect.
    Dropping,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// `pg_database.oid`.
    pub id: DatabaseId,
    /// Unique among databases.
    pub name: String,
    /// The Raft group that holds it; never used for another database.
    pub group: GroupId,
    /// Where it is in its life.
    pub state: DatabaseState,
    /// The role that owns it.
    pub owner: Oid,
    /// The nodes that hold a replica.
    pub replicas: Vec<NodeId>,
    /// Signs the names of its transactions.
    pub token_key: TokenKey,
    /// Who may do what with it, if something was said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// `pg_authid.oid`.
    pub oid: Oid,
    /// Unique among roles.
    pub name: String,
    /// Whether no permission check applies.
    pub superuser: bool,
    /// Whether it may start a session.
    pub login: bool,
    /// Whether it may create databases.
    #[serde(default)]
    pub create_database: bool,
    /// Whether it may create roles.
    #[serde(default)]
    pub create_role: bool,
    /// The stored SCRAM-SHA-256 verifier, in PostgreSQL's text form; never the password.
    #[serde(default)]
    pub verifier: Option<String>,
    /// Most sessions at a time; -1 for no limit.
    #[serde(default = "unlimited")]
    pub connection_limit: i32,
    /// Whether it has the privileges of the roles that it is a member of, without SET ROLE.
    #[serde(default = "yes")]
    pub inherit: bool,
    /// The roles that it is a member of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<Membership>,
}

/// That a role is a member of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The other one.
    pub role: Oid,
    /// Who made it one.
    pub grantor: Oid,
    /// Whether it may make others members.
    #[serde(default)]
    pub admin: bool,
}

const fn yes() -> bool {
    true
}

const fn unlimited() -> i32 {
    -1
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node's number; never given to another.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Where it listens for PostgreSQL clients, as `host:port`.
    pub pg_address: String,
    /// Where it listens for other nodes, as `host:port`.
    pub interconnect_address: String,
    /// Where it listens for HTTP, as `host:port`.
    pub http_address: String,
    /// The release it runs.
    #[serde(default)]
    pub release: String,
    /// Free labels, such as a zone.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it is being removed. Nothing takes that back: a node that left may not come again under its number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// A node that was removed: its number is not given out again, since what it had promised is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedRecord {
    /// Its number.
    pub(crate) id: NodeId,
}

/// Everything the system group says at one moment, as a node read it from its own replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemSnapshot {
    /// By number.
    pub databases: BTreeMap<DatabaseId, DatabaseRecord>,
    /// By number.
    pub roles: BTreeMap<Oid, RoleRecord>,
    /// By number.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Nodes that were members once.
    pub removed: BTreeSet<NodeId>,
    /// By name.
    pub settings: BTreeMap<String, String>,
    /// What was given out.
    pub counters: Counters,
}

impl SystemSnapshot {
    /// A database by name.
    #[must_use]
    pub fn database_named(&self, name: &str) -> Option<&DatabaseRecord> {
        self.databases.values().find(|database| database.name == name)
    }

    /// A role by name.
    #[must_use]
    pub fn role_named(&self, name: &str) -> Option<&RoleRecord> {
        self.roles.values().find(|role| role.name == name)
    }

    /// A role and those that it is a member of, directly or not; `inherited` leaves out what is had by SET ROLE alone.
    /// The owner of `database` is a member of the role that owns its schema `public`.
    #[must_use]
    pub fn roles_of(&self, role: Oid, database: Option<DatabaseId>, inherited: bool) -> BTreeSet<Oid> {
        let mut found = BTreeSet::from([role]);
        let mut asked = vec![role];
        while let Some(next) = asked.pop() {
            let Some(record) = self.roles.get(&next) else { continue };
            if inherited && !record.inherit {
                continue;
            }
            asked
                .extend(record.member_of.iter().map(|member| member.role).filter(|role| found.insert(*role)));
        }
        let owner =
            database.and_then(|database| self.databases.get(&database)).map(|database| database.owner);
        if owner.is_some_and(|owner| found.contains(&owner)) {
            found.insert(DATABASE_OWNER_ROLE);
        }
        found
    }

    /// Whether a role may do everything.
    #[must_use]
    pub fn is_superuser(&self, role: Oid) -> bool {
        self.roles.get(&role).is_some_and(|role| role.superuser)
    }

    /// The nodes that are to hold replicas, in order of their numbers: all but those that are being removed.
    pub fn staying(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.values().filter(|node| !node.leaving).map(|node| node.id)
    }

    /// The nodes that no group is to keep: those that are being removed, and those that were.
    #[must_use]
    pub fn parting(&self) -> BTreeSet<NodeId> {
        let leaving = self.nodes.values().filter(|node| node.leaving).map(|node| node.id);
        leaving.chain(self.removed.iter().copied()).collect()
    }

    /// Takes in one stored row.
    ///
    /// # Errors
    /// When the row cannot be decoded. Keys of kinds that this release does not know are passed over.
    pub fn absorb(&mut self, key: &[u8], value: &[u8]) -> Result<(), DescriptorError> {
        match key.first() {
            Some(&COUNTERS) => self.counters = decode(value)?,
            Some(&DATABASES) => {
                let record: DatabaseRecord = decode(value)?;
                self.databases.insert(record.id, record);
            }
            Some(&ROLES) => {
                let record: RoleRecord = decode(value)?;
                self.roles.insert(record.oid, record);
            }
            Some(&NODES) => {
                let record: NodeRecord = decode(value)?;
                self.nodes.insert(record.id, record);
            }
            Some(&SETTINGS) => {
                let (name, setting): (String, String) = decode(value)?;
                self.settings.insert(name, setting);
            }
            Some(&REMOVED) => {
                let record: RemovedRecord = decode(value)?;
                self.removed.insert(record.id);
            }
            _ => {}
        }
        Ok(())
    }
}
