//! Commands that change the system group: a pure decision from the present state to the rows to write.
//!
//! [`SystemCommand::decide`] reads a snapshot and answers with the changed rows; the caller writes them in the same
//! transaction in which the snapshot was read. So every rule is tested without a store.

use std::collections::BTreeMap;

use bytes::Bytes;
use rustydb_types::ids::{DatabaseId, GroupId, NodeId, Oid};
use serde::{Deserialize, Serialize};

use super::record::{
    COUNTERS, DATABASES, DatabaseRecord, DatabaseState, Membership, NODES, NodeRecord, REMOVED, ROLES,
    RemovedRecord, RoleRecord, SETTINGS, SystemSnapshot,
};
use crate::catalog::acl::Acl;
use crate::catalog::descriptor::{DescriptorError, encode};
use crate::catalog::snapshot::BOOTSTRAP_ROLE;
use crate::session::token::TokenKey;

/// Most databases of a cluster: each is a Raft group, and each group costs every node some work when idle.
pub const DATABASE_COUNT_MAX: usize = 64;

/// What ALTER ROLE may change; `None` leaves a property as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// A new name.
    pub name: Option<String>,
    /// See [`RoleRecord::superuser`].
    pub superuser: Option<bool>,
    /// See [`RoleRecord::login`].
    pub login: Option<bool>,
    /// See [`RoleRecord::create_database`].
    pub create_database: Option<bool>,
    /// See [`RoleRecord::create_role`].
    pub create_role: Option<bool>,
    /// See [`RoleRecord::verifier`]; `Some(None)` removes it.
    pub verifier: Option<Option<String>>,
    /// See [`RoleRecord::connection_limit`].
    pub connection_limit: Option<i32>,
    /// See [`RoleRecord::inherit`].
    #[serde(default)]
    pub inherit: Option<bool>,
}

/// A change of the system group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemCommand {
    /// First content of a new cluster: the bootstrap role, the first database, ready at once, and the first node.
    /// Repeating it changes nothing.
    Bootstrap {
        /// Name of the superuser.
        role: String,
        /// Name of the first database.
        database: String,
        /// Who forms the cluster.
        nodes: Vec<NodeRecord>,
        /// Signs the names of the first database's transactions.
        token_key: TokenKey,
    },
    /// Records a database as being created, with a group number of its own.
    CreateDatabase {
        /// Name of the database.
        name: String,
        /// Role that will own it.
        owner: Oid,
        /// Nodes that will hold it, but for those that are being removed, of which the caller may not know yet.
        replicas: Vec<NodeId>,
        /// Signs the names of its transactions.
        token_key: TokenKey,
    },
    /// Records that the group of a database being created serves.
    DatabaseReady {
        /// Which database.
        id: DatabaseId,
    },
    /// Records a database as being dropped.
    DropDatabase {
        /// Name of the database.
        name: String,
    },
    /// Removes the record of a database whose group is gone from all replicas.
    DatabaseGone {
        /// Which database.
        id: DatabaseId,
    },
    /// Gives a database a new name.
    RenameDatabase {
        /// Present name.
        name: String,
        /// New name.
        to: String,
    },
    /// Changes which nodes hold a database.
    SetReplicas {
        /// Which database.
        id: DatabaseId,
        /// Nodes that hold it from now on, as for [`SystemCommand::CreateDatabase`].
        replicas: Vec<NodeId>,
    },
    /// Creates a role.
    CreateRole {
        /// Name of the role.
        name: String,
        /// Its properties.
        properties: RoleChange,
    },
    /// Changes a role.
    AlterRole {
        /// Name of the role.
        name: String,
        /// What changes.
        change: RoleChange,
    },
    /// Removes a role. The caller has made sure that it owns nothing in any database.
    DropRole {
        /// Name of the role.
        name: String,
    },
    /// Makes roles members of others; repeating it changes nothing.
    GrantRoles {
        /// The roles that get members.
        roles: Vec<Oid>,
        /// Their members.
        members: Vec<Oid>,
        /// Whether these may make others members.
        admin: bool,
        /// Who says so.
        grantor: Oid,
    },
    /// Ends memberships, or the right to make others members alone.
    RevokeRoles {
        /// The roles that lose members.
        roles: Vec<Oid>,
        /// Their members.
        members: Vec<Oid>,
        /// Whether only the right goes.
        admin_only: bool,
    },
    /// Changes who may do what with a database.
    SetDatabaseAcl {
        /// Which database.
        id: DatabaseId,
        /// What held until now: the change is refused when that is no longer so.
        former: Option<Acl>,
        /// What holds from now on.
        acl: Option<Acl>,
    },
    /// Gives a database another owner.
    SetDatabaseOwner {
        /// Which database.
        id: DatabaseId,
        /// The new owner.
        owner: Oid,
    },
    /// Adds a node or changes what is known of it. Whether it is leaving stays as it is.
    PutNode {
        /// The node.
        node: NodeRecord,
    },
    /// Begins to remove a node: from now on no group is to keep it. Repeating it changes nothing.
    MarkLeaving {
        /// Which node.
        id: NodeId,
    },
    /// Ends the removal of a node that no group has any more. Repeating it changes nothing.
    RemoveNode {
        /// Which node.
        id: NodeId,
    },
    /// Sets or removes a setting.
    SetSetting {
        /// Name of the setting.
        name: String,
        /// Its value; `None` removes it.
        value: Option<String>,
    },
}

/// Why a command was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// 42P04.
    #[error("database \"{0}\" already exists")]
    DatabaseExists(String),
    /// 3D000.
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    /// 55006.
    #[error("database \"{name}\" is {state}")]
    DatabaseBusy {
        /// Which database.
        name: String,
        /// What it is doing.
        state: &'static str,
    },
    /// 53400.
    #[error("a cluster holds at most {DATABASE_COUNT_MAX} databases")]
    TooManyDatabases,
    /// 42710.
    #[error("role \"{0}\" already exists")]
    RoleExists(String),
    /// 42704.
    #[error("role \"{0}\" does not exist")]
    NoRole(String),
    /// 2BP01.
    #[error("role \"{role}\" cannot be dropped because database \"{database}\" depends on it")]
    RoleOwnsDatabase {
        /// The role.
        role: String,
        /// A database that it owns.
        database: String,
    },
    /// 2BP01.
    #[error("role \"{0}\" cannot be dropped because it is required by the database system")]
    RoleRequired(String),
    /// 0LP01.
    #[error("role \"{member}\" is a member of role \"{role}\"")]
    CircularMembership {
        /// Who would become a member of itself.
        role: String,
        /// By whom.
        member: String,
    },
    /// 40001.
    #[error("privileges of database \"{0}\" were changed at the same time")]
    AclChanged(String),
    /// 42704.
    #[error("node {0} does not exist")]
    NoNode(NodeId),
    /// 55000.
    #[error(
        "node {0} was removed from this cluster: give it an unused node.id and an empty data folder, and add it as a \
         new node"
    )]
    NodeRemoved(NodeId),
    /// 55000.
    #[error("node {0} is not marked as leaving")]
    NodeStays(NodeId),
    /// 2BP01.
    #[error("node {0} is the last one that is not being removed")]
    LastNode(NodeId),
    /// 2BP01.
    #[error("node {node} still holds a replica of database \"{database}\"")]
    NodeHoldsReplica {
        /// The node.
        node: NodeId,
        /// A database that it holds.
        database: String,
    },
    /// XX001.
    #[error(transparent)]
    Record(#[from] DescriptorError),
}

impl SystemError {
    /// PostgreSQL's SQLSTATE for this refusal.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::DatabaseExists(_) => "42P04",
            Self::NoDatabase(_) => "3D000",
            Self::DatabaseBusy { .. } => "55006",
            Self::TooManyDatabases => "53400",
            Self::RoleExists(_) => "42710",
            Self::NoRole(_) | Self::NoNode(_) => "42704",
            Self::CircularMembership { .. } => "0LP01",
            Self::AclChanged(_) => "40001",
            Self::NodeRemoved(_) | Self::NodeStays(_) => "55000",
            Self::RoleOwnsDatabase { .. }
            | Self::RoleRequired(_)
            | Self::LastNode(_)
            | Self::NodeHoldsReplica { .. } => "2BP01",
            Self::Record(_) => "XX001",
        }
    }
}

/// A row to write (`Some`) or to delete (`None`).
pub type RowChange = (Bytes, Option<Bytes>);

/// The rows that a command changes, collected as it decides.
struct Changes(BTreeMap<Bytes, Option<Bytes>>);

impl Changes {
    fn put<T: Serialize>(&mut self, key: Vec<u8>, record: &T) -> Result<(), SystemError> {
        self.0.insert(key.into(), Some(encode(record)?.into()));
        Ok(())
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.insert(key.into(), None);
    }
}

fn database_key(id: DatabaseId) -> Vec<u8> {
    [&[DATABASES][..], &id.get().get().to_be_bytes()].concat()
}

fn role_key(oid: Oid) -> Vec<u8> {
    [&[ROLES][..], &oid.get().to_be_bytes()].concat()
}

fn node_key(id: NodeId) -> Vec<u8> {
    [&[NODES][..], &id.get().to_be_bytes()].concat()
}

fn removed_key(id: NodeId) -> Vec<u8> {
    [&[REMOVED][..], &id.get().to_be_bytes()].concat()
}

fn setting_key(name: &str) -> Vec<u8> {
    [&[SETTINGS][..], name.as_bytes()].concat()
}

fn apply_role_change(role: &mut RoleRecord, change: &RoleChange) {
    if let Some(name) = &change.name {
        role.name.clone_from(name);
    }
    if let Some(superuser) = change.superuser {
        role.superuser = superuser;
    }
    if let Some(login) = change.login {
        role.login = login;
    }
    if let Some(create_database) = change.create_database {
        role.create_database = create_database;
    }
    if let Some(create_role) = change.create_role {
        role.create_role = create_role;
    }
    if let Some(verifier) = &change.verifier {
        role.verifier.clone_from(verifier);
    }
    if let Some(limit) = change.connection_limit {
        role.connection_limit = limit;
    }
    if let Some(inherit) = change.inherit {
        role.inherit = inherit;
    }
}

impl SystemCommand {
    /// The rows that this command changes, given what the system group says now, in order of their keys.
    ///
    /// # Errors
    /// When the command is refused; nothing is to be written then.
    pub fn decide(&self, now: &SystemSnapshot) -> Result<Vec<RowChange>, SystemError> {
        let mut changes = Changes(BTreeMap::new());
        match self {
            Self::Bootstrap { role, database, nodes, token_key } => {
                bootstrap(now, (role, database), nodes, token_key, &mut changes)?;
            }
            Self::CreateDatabase { name, owner, replicas, token_key } => {
                if now.database_named(name).is_some() {
                    return Err(SystemError::DatabaseExists(name.clone()));
                }
                if now.databases.len() >= DATABASE_COUNT_MAX {
                    return Err(SystemError::TooManyDatabases);
                }
                let mut counters = now.counters;
                let record = DatabaseRecord {
                    id: DatabaseId::new(Oid::new(counters.next_oid)),
                    name: name.clone(),
                    group: GroupId::new(counters.next_group),
                    state: DatabaseState::Creating,
                    owner: *owner,
                    replicas: without_parting(now, replicas),
                    token_key: token_key.clone(),
                    acl: None,
                };
                counters.next_oid += 1;
                counters.next_group += 1;
                changes.put(vec![COUNTERS], &counters)?;
                changes.put(database_key(record.id), &record)?;
            }
            Self::DatabaseReady { id } => {
                let mut record = database_by_id(now, *id)?;
                match record.state {
                    DatabaseState::Creating => record.state = DatabaseState::Ready,
                    DatabaseState::Ready => return Ok(Vec::new()),
                    DatabaseState::Dropping => return Err(busy(&record)),
                }
                changes.put(database_key(*id), &record)?;
            }
            Self::DropDatabase { name } => {
                let mut record = database_by_name(now, name)?;
                if record.state == DatabaseState::Dropping {
                    return Ok(Vec::new());
                }
                record.state = DatabaseState::Dropping;
                changes.put(database_key(record.id), &record)?;
            }
            Self::DatabaseGone { id } => match now.databases.get(id) {
                None => return Ok(Vec::new()),
                Some(record) if record.state == DatabaseState::Dropping => changes.delete(database_key(*id)),
                Some(record) => return Err(busy(record)),
            },
            Self::RenameDatabase { name, to } => {
                let mut record = database_by_name(now, name)?;
                if now.database_named(to).is_some() {
                    return Err(SystemError::DatabaseExists(to.clone()));
                }
                if record.state != DatabaseState::Ready {
                    return Err(busy(&record));
                }
                record.name.clone_from(to);
                changes.put(database_key(record.id), &record)?;
            }
            Self::SetReplicas { id, replicas } => {
                let mut record = database_by_id(now, *id)?;
                record.replicas = without_parting(now, replicas);
                changes.put(database_key(*id), &record)?;
            }
            Self::SetDatabaseAcl { id, former, acl } => {
                let mut record = database_by_id(now, *id)?;
                if record.acl != *acl {
                    if record.acl != *former {
                        return Err(SystemError::AclChanged(record.name));
                    }
                    record.acl.clone_from(acl);
                    changes.put(database_key(*id), &record)?;
                }
            }
            Self::SetDatabaseOwner { id, owner } => {
                let mut record = database_by_id(now, *id)?;
                if record.owner != *owner {
                    if let Some(acl) = &mut record.acl {
                        acl.change_owner(record.owner, *owner);
                    }
                    record.owner = *owner;
                    changes.put(database_key(*id), &record)?;
                }
            }
            Self::CreateRole { .. }
            | Self::AlterRole { .. }
            | Self::DropRole { .. }
            | Self::GrantRoles { .. }
            | Self::RevokeRoles { .. } => {
                self.decide_role(now, &mut changes)?;
            }
            Self::PutNode { .. } | Self::MarkLeaving { .. } | Self::RemoveNode { .. } => {
                self.decide_node(now, &mut changes)?;
            }
            Self::SetSetting { name, value } => match value {
                Some(value) => changes.put(setting_key(name), &(name, value))?,
                None => changes.delete(setting_key(name)),
            },
        }
        Ok(changes.0.into_iter().collect())
    }

    fn decide_role(&self, now: &SystemSnapshot, changes: &mut Changes) -> Result<(), SystemError> {
        match self {
            Self::CreateRole { name, properties } => {
                if now.role_named(name).is_some() {
                    return Err(SystemError::RoleExists(name.clone()));
                }
                let mut counters = now.counters;
                let mut role = new_role(Oid::new(counters.next_oid), name);
                apply_role_change(&mut role, properties);
                counters.next_oid += 1;
                changes.put(vec![COUNTERS], &counters)?;
                changes.put(role_key(role.oid), &role)
            }
            Self::AlterRole { name, change } => {
                let before = now.role_named(name).ok_or_else(|| SystemError::NoRole(name.clone()))?;
                let mut role = before.clone();
                if let Some(to) = change.name.as_ref().filter(|to| *to != name)
                    && now.role_named(to).is_some()
                {
                    return Err(SystemError::RoleExists(to.clone()));
                }
                apply_role_change(&mut role, change);
                // Who waits for the change to arrive decides again and expects nothing then.
                if role == *before { Ok(()) } else { changes.put(role_key(role.oid), &role) }
            }
            Self::DropRole { name } => {
                let role = now.role_named(name).ok_or_else(|| SystemError::NoRole(name.clone()))?;
                if role.oid == BOOTSTRAP_ROLE {
                    return Err(SystemError::RoleRequired(name.clone()));
                }
                if let Some(database) = now.databases.values().find(|database| database.owner == role.oid) {
                    return Err(SystemError::RoleOwnsDatabase {
                        role: name.clone(),
                        database: database.name.clone(),
                    });
                }
                changes.delete(role_key(role.oid));
                for member in now.roles.values() {
                    let mut left = member.clone();
                    left.member_of.retain(|known| known.role != role.oid);
                    if left != *member && left.oid != role.oid {
                        changes.put(role_key(left.oid), &left)?;
                    }
                }
                Ok(())
            }
            Self::GrantRoles { roles, members, admin, grantor } => {
                let name =
                    |oid: &Oid| now.roles.get(oid).map_or_else(|| oid.to_string(), |role| role.name.clone());
                for member in members {
                    let mut record =
                        now.roles.get(member).ok_or_else(|| SystemError::NoRole(name(member)))?.clone();
                    for role in roles {
                        if !now.roles.contains_key(role) {
                            return Err(SystemError::NoRole(name(role)));
                        }
                        if now.roles_of(*role, None, false).contains(member) {
                            return Err(SystemError::CircularMembership {
                                role: name(member),
                                member: name(role),
                            });
                        }
                        match record.member_of.iter_mut().find(|known| known.role == *role) {
                            Some(known) => known.admin |= *admin,
                            None => record.member_of.push(Membership {
                                role: *role,
                                grantor: *grantor,
                                admin: *admin,
                            }),
                        }
                    }
                    if now.roles.get(member) != Some(&record) {
                        changes.put(role_key(*member), &record)?;
                    }
                }
                Ok(())
            }
            Self::RevokeRoles { roles, members, admin_only } => {
                for member in members {
                    let Some(former) = now.roles.get(member) else { continue };
                    let mut record = former.clone();
                    if *admin_only {
                        let known = record.member_of.iter_mut().filter(|known| roles.contains(&known.role));
                        known.for_each(|known| known.admin = false);
                    } else {
                        record.member_of.retain(|known| !roles.contains(&known.role));
                    }
                    if record != *former {
                        changes.put(role_key(*member), &record)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn decide_node(&self, now: &SystemSnapshot, changes: &mut Changes) -> Result<(), SystemError> {
        match self {
            Self::PutNode { node } if now.removed.contains(&node.id) => {
                Err(SystemError::NodeRemoved(node.id))
            }
            Self::PutNode { node } => {
                let leaving = now.nodes.get(&node.id).is_some_and(|present| present.leaving);
                changes.put(node_key(node.id), &NodeRecord { leaving, ..node.clone() })
            }
            // What is done changes nothing when it is done again.
            Self::MarkLeaving { id } | Self::RemoveNode { id } if now.removed.contains(id) => Ok(()),
            Self::MarkLeaving { id } => {
                let node = now.nodes.get(id).ok_or(SystemError::NoNode(*id))?;
                if node.leaving {
                    return Ok(());
                }
                if now.staying().all(|staying| staying == *id) {
                    return Err(SystemError::LastNode(*id));
                }
                changes.put(node_key(*id), &NodeRecord { leaving: true, ..node.clone() })
            }
            Self::RemoveNode { id } => {
                let node = now.nodes.get(id).ok_or(SystemError::NoNode(*id))?;
                if !node.leaving {
                    return Err(SystemError::NodeStays(*id));
                }
                if let Some(database) = now.databases.values().find(|database| database.replicas.contains(id))
                {
                    return Err(SystemError::NodeHoldsReplica { node: *id, database: database.name.clone() });
                }
                changes.delete(node_key(*id));
                changes.put(removed_key(*id), &RemovedRecord { id: *id })
            }
            _ => Ok(()),
        }
    }
}

fn bootstrap(
    now: &SystemSnapshot,
    (role, database): (&str, &str),
    nodes: &[NodeRecord],
    token_key: &TokenKey,
    changes: &mut Changes,
) -> Result<(), SystemError> {
    if now.roles.contains_key(&BOOTSTRAP_ROLE) {
        return Ok(());
    }
    let mut superuser = new_role(BOOTSTRAP_ROLE, role);
    superuser.superuser = true;
    superuser.login = true;
    superuser.create_database = true;
    superuser.create_role = true;
    changes.put(role_key(BOOTSTRAP_ROLE), &superuser)?;
    for node in nodes {
        changes.put(node_key(node.id), node)?;
    }
    let mut counters = now.counters;
    // PostgreSQL's own number of the database `postgres`, which some tools know.
    let id = DatabaseId::new(Oid::new(5));
    changes.put(
        database_key(id),
        &DatabaseRecord {
            id,
            name: database.to_owned(),
            group: GroupId::new(counters.next_group),
            state: DatabaseState::Creating,
            owner: BOOTSTRAP_ROLE,
            replicas: nodes.iter().map(|node| node.id).collect(),
            token_key: token_key.clone(),
            acl: None,
        },
    )?;
    counters.next_group += 1;
    changes.put(vec![COUNTERS], &counters)
}

fn without_parting(now: &SystemSnapshot, replicas: &[NodeId]) -> Vec<NodeId> {
    let parting = now.parting();
    replicas.iter().copied().filter(|node| !parting.contains(node)).collect()
}

fn new_role(oid: Oid, name: &str) -> RoleRecord {
    RoleRecord {
        oid,
        name: name.to_owned(),
        superuser: false,
        login: false,
        create_database: false,
        create_role: false,
        verifier: None,
        connection_limit: -1,
        inherit: true,
        member_of: Vec::new(),
    }
}

fn busy(record: &DatabaseRecord) -> SystemError {
    let state = match record.state {
        DatabaseState::Creating => "being created",
        DatabaseState::Ready => "in use",
        DatabaseState::Dropping => "being dropped",
    };
    SystemError::DatabaseBusy { name: record.name.clone(), state }
}

fn database_by_name(now: &SystemSnapshot, name: &str) -> Result<DatabaseRecord, SystemError> {
    now.database_named(name).cloned().ok_or_else(|| SystemError::NoDatabase(name.to_owned()))
}

fn database_by_id(now: &SystemSnapshot, id: DatabaseId) -> Result<DatabaseRecord, SystemError> {
    now.databases.get(&id).cloned().ok_or_else(|| SystemError::NoDatabase(id.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(now: &mut SystemSnapshot, command: &SystemCommand) -> Result<(), SystemError> {
        for (key, value) in command.decide(now)? {
            match value {
                Some(value) => now.absorb(&key, &value)?,
                None if key[0] == DATABASES => now.databases.retain(|id, _| database_key(*id) != key),
                None if key[0] == ROLES => now.roles.retain(|oid, _| role_key(*oid) != key),
                None => now.nodes.retain(|id, _| node_key(*id) != key),
            }
        }
        Ok(())
    }

    fn node(number: u64) -> NodeRecord {
        NodeRecord {
            id: NodeId::new(number),
            name: format!("node-{number}"),
            pg_address: String::new(),
            interconnect_address: String::new(),
            http_address: String::new(),
            release: String::new(),
            labels: BTreeMap::new(),
            leaving: false,
        }
    }

    #[test]
    fn a_node_leaves_once_and_for_ever() {
        let (one, two) = (NodeId::new(1), NodeId::new(2));
        let mut now = bootstrapped();
        for number in [1, 2] {
            run(&mut now, &SystemCommand::PutNode { node: node(number) }).unwrap();
        }
        let database = now.database_named("postgres").unwrap().id;
        run(&mut now, &SystemCommand::SetReplicas { id: database, replicas: vec![one, two] }).unwrap();
        let (mark, remove) = (SystemCommand::MarkLeaving { id: two }, SystemCommand::RemoveNode { id: two });
        assert!(matches!(run(&mut now, &remove), Err(SystemError::NodeStays(_))));
        run(&mut now, &mark).unwrap();
        assert!(mark.decide(&now).unwrap().is_empty(), "marking again changes nothing");
        // Its own record, which it writes at every start, does not take the mark away.
        run(&mut now, &SystemCommand::PutNode { node: node(2) }).unwrap();
        assert_eq!((now.staying().collect(), now.parting()), (vec![one], [two].into()));
        let last = SystemCommand::MarkLeaving { id: one };
        assert_eq!(run(&mut now, &last).unwrap_err().sqlstate(), "2BP01");
        assert!(matches!(run(&mut now, &remove), Err(SystemError::NodeHoldsReplica { .. })));
        // Whoever asks has not heard of the mark yet.
        run(&mut now, &SystemCommand::SetReplicas { id: database, replicas: vec![one, two] }).unwrap();
        run(&mut now, &remove).unwrap();
        assert!(!now.nodes.contains_key(&two) && now.removed.contains(&two));
        for again in [&mark, &remove] {
            assert!(again.decide(&now).unwrap().is_empty(), "{again:?}");
        }
        let back = SystemCommand::PutNode { node: node(2) };
        assert_eq!(run(&mut now, &back).unwrap_err().sqlstate(), "55000");
        let unknown = SystemCommand::MarkLeaving { id: NodeId::new(9) };
        assert!(matches!(run(&mut now, &unknown), Err(SystemError::NoNode(_))));
    }

    fn create_database(name: &str, owner: Oid, replicas: Vec<NodeId>) -> SystemCommand {
        SystemCommand::CreateDatabase {
            name: name.into(),
            owner,
            replicas,
            token_key: TokenKey::new([2; 16]),
        }
    }

    fn bootstrapped() -> SystemSnapshot {
        let mut now = SystemSnapshot::default();
        let command = SystemCommand::Bootstrap {
            role: "postgres".into(),
            database: "postgres".into(),
            nodes: Vec::new(),
            token_key: TokenKey::new([1; 16]),
        };
        run(&mut now, &command).unwrap();
        assert!(command.decide(&now).unwrap().is_empty(), "bootstrapping again changes nothing");
        now
    }

    #[test]
    fn a_group_number_is_never_given_twice() {
        let mut now = bootstrapped();
        let create = create_database("a", BOOTSTRAP_ROLE, vec![NodeId::new(1)]);
        run(&mut now, &create).unwrap();
        assert!(matches!(run(&mut now, &create), Err(SystemError::DatabaseExists(_))));
        let first = now.database_named("a").unwrap().clone();
        run(&mut now, &SystemCommand::DatabaseReady { id: first.id }).unwrap();
        assert!(matches!(
            run(&mut now, &SystemCommand::DatabaseGone { id: first.id }),
            Err(SystemError::DatabaseBusy { .. })
        ));
        run(&mut now, &SystemCommand::DropDatabase { name: "a".into() }).unwrap();
        run(&mut now, &SystemCommand::DatabaseGone { id: first.id }).unwrap();
        run(&mut now, &create).unwrap();
        let second = now.database_named("a").unwrap();
        assert!(second.group > first.group && second.id > first.id);
    }

    #[test]
    fn the_number_of_databases_is_bounded() {
        let mut now = bootstrapped();
        for number in 1..DATABASE_COUNT_MAX {
            run(&mut now, &create_database(&format!("d{number}"), BOOTSTRAP_ROLE, Vec::new())).unwrap();
        }
        let one_more = create_database("x", BOOTSTRAP_ROLE, Vec::new());
        assert!(matches!(run(&mut now, &one_more), Err(SystemError::TooManyDatabases)));
    }

    #[test]
    fn a_role_that_owns_a_database_stays() {
        let mut now = bootstrapped();
        let create = SystemCommand::CreateRole { name: "ann".into(), properties: RoleChange::default() };
        run(&mut now, &create).unwrap();
        let ann = now.role_named("ann").unwrap().oid;
        run(&mut now, &create_database("a", ann, Vec::new())).unwrap();
        let drop = SystemCommand::DropRole { name: "ann".into() };
        assert_eq!(run(&mut now, &drop).unwrap_err().sqlstate(), "2BP01");
        let verifier = Some(Some("SCRAM-SHA-256$4096:x$y:z".to_owned()));
        let alter = SystemCommand::AlterRole {
            name: "ann".into(),
            change: RoleChange { verifier, ..RoleChange::default() },
        };
        run(&mut now, &alter).unwrap();
        assert!(now.role_named("ann").unwrap().verifier.is_some());
        assert!(alter.decide(&now).unwrap().is_empty(), "what is carried out changes nothing any more");
        assert!(matches!(
            run(&mut now, &SystemCommand::DropRole { name: "postgres".into() }),
            Err(SystemError::RoleRequired(_))
        ));
    }
}
