//! Privileges: who may do what with an object, and who gave it to them.

use std::collections::BTreeSet;

use rustydb_types::ids::Oid;
use serde::{Deserialize, Serialize};

/// Grantee 0: everybody.
pub const PUBLIC_ROLE: Oid = Oid::new(0);

/// A set of privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Privileges(u16);

/// Name and letter of each privilege, in the order in which an ACL shows them.
const LETTERS: [(Privileges, &str, char); 12] = [
    (Privileges::INSERT, "INSERT", 'a'),
    (Privileges::SELECT, "SELECT", 'r'),
    (Privileges::UPDATE, "UPDATE", 'w'),
    (Privileges::DELETE, "DELETE", 'd'),
    (Privileges::TRUNCATE, "TRUNCATE", 'D'),
    (Privileges::REFERENCES, "REFERENCES", 'x'),
    (Privileges::TRIGGER, "TRIGGER", 't'),
    (Privileges::EXECUTE, "EXECUTE", 'X'),
    (Privileges::USAGE, "USAGE", 'U'),
    (Privileges::CREATE, "CREATE", 'C'),
    (Privileges::TEMPORARY, "TEMPORARY", 'T'),
    (Privileges::CONNECT, "CONNECT", 'c'),
];

impl Privileges {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every one.
    pub const ALL: Self = Self(0b1111_1111_1111);
    /// Read rows.
    pub const SELECT: Self = Self(1);
    /// Add rows.
    pub const INSERT: Self = Self(1 << 1);
    /// Change rows.
    pub const UPDATE: Self = Self(1 << 2);
    /// Remove rows.
    pub const DELETE: Self = Self(1 << 3);
    /// Remove all rows.
    pub const TRUNCATE: Self = Self(1 << 4);
    /// Make foreign keys to it.
    pub const REFERENCES: Self = Self(1 << 5);
    /// Make triggers on it.
    pub const TRIGGER: Self = Self(1 << 6);
    /// Use it.
    pub const USAGE: Self = Self(1 << 7);
    /// Make objects in it.
    pub const CREATE: Self = Self(1 << 8);
    /// Make temporary tables in it.
    pub const TEMPORARY: Self = Self(1 << 9);
    /// Connect to it.
    pub const CONNECT: Self = Self(1 << 10);
    /// Call it.
    pub const EXECUTE: Self = Self(1 << 11);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of this set that are in another, too.
    #[must_use]
    pub const fn of(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those of this set that are not in another.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of another set are in this one.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The privilege with this name, in any case of letters.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("temp") {
            return Some(Self::TEMPORARY);
        }
        LETTERS.iter().find(|(_, known, _)| known.eq_ignore_ascii_case(name)).map(|(one, ..)| *one)
    }

    /// The names of those in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        LETTERS.iter().filter(move |(one, ..)| self.has(*one)).map(|(_, name, _)| *name)
    }
}

/// What privileges are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AclKind {
    /// Tables and views.
    Table,
    /// A column of one.
    Column,
    /// Sequences.
    Sequence,
    /// Databases.
    Database,
    /// Schemas.
    Schema,
    /// Types and domains.
    Type,
    /// Functions.
    Function,
}

impl AclKind {
    /// Every privilege that there is for it.
    #[must_use]
    pub const fn all(self) -> Privileges {
        use Privileges as P;
        match self {
            Self::Table => P(0b111_1111),
            Self::Column => P::SELECT.with(P::INSERT).with(P::UPDATE).with(P::REFERENCES),
            Self::Sequence => P::SELECT.with(P::UPDATE).with(P::USAGE),
            Self::Database => P::CREATE.with(P::TEMPORARY).with(P::CONNECT),
            Self::Schema => P::USAGE.with(P::CREATE),
            Self::Type => P::USAGE,
            Self::Function => P::EXECUTE,
        }
    }

    /// What everybody has as long as nothing was said.
    const fn of_public(self) -> Privileges {
        match self {
            Self::Database => Privileges::TEMPORARY.with(Privileges::CONNECT),
            Self::Type => Privileges::USAGE,
            Self::Function => Privileges::EXECUTE,
            Self::Table | Self::Column | Self::Sequence | Self::Schema => Privileges::NONE,
        }
    }

    /// The word for it in messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Column => "column",
            Self::Sequence => "sequence",
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Type => "type",
            Self::Function => "function",
        }
    }

    /// `pg_default_acl.defaclobjtype`; none for what has no defaults.
    #[must_use]
    pub const fn letter(self) -> Option<&'static str> {
        match self {
            Self::Table => Some("r"),
            Self::Sequence => Some("S"),
            Self::Function => Some("f"),
            Self::Type => Some("T"),
            Self::Schema => Some("n"),
            Self::Column | Self::Database => None,
        }
    }
}

/// What one role gave to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclItem {
    /// Who has it; [`PUBLIC_ROLE`] for everybody.
    pub grantee: Oid,
    /// Who gave it.
    pub grantor: Oid,
    /// The privileges.
    pub granted: Privileges,
    /// Those of them that the grantee may give to others.
    #[serde(default, skip_serializing_if = "is_none")]
    pub options: Privileges,
}

fn is_none(privileges: &Privileges) -> bool {
    privileges.is_empty()
}

/// Others depend on what is to be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependent;

/// Who may do what with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Acl(pub Vec<AclItem>);

impl Acl {
    /// What holds as long as nothing was said about an object.
    #[must_use]
    pub fn initial(kind: AclKind, owner: Oid) -> Self {
        let item = |grantee, granted| AclItem { grantee, grantor: owner, granted, options: Privileges::NONE };
        let mut items = Vec::with_capacity(2);
        if !kind.of_public().is_empty() {
            items.push(item(PUBLIC_ROLE, kind.of_public()));
        }
        if kind != AclKind::Column {
            items.push(item(owner, kind.all()));
        }
        Self(items)
    }

    /// The privileges that any of some roles has, those of everybody among them.
    #[must_use]
    pub fn held(&self, roles: &BTreeSet<Oid>) -> Privileges {
        let own = self.0.iter().filter(|item| item.grantee == PUBLIC_ROLE || roles.contains(&item.grantee));
        own.fold(Privileges::NONE, |held, item| held.with(item.granted))
    }

    /// The privileges that any of some roles may give to others; all of them where the owner is among the roles.
    #[must_use]
    pub fn grantable(&self, roles: &BTreeSet<Oid>, owner: Oid, kind: AclKind) -> Privileges {
        roles
            .iter()
            .fold(Privileges::NONE, |held, role| held.with(self.own_options(*role, owner)))
            .of(kind.all())
    }

    /// What one role alone may give to others.
    #[must_use]
    pub fn own_options(&self, role: Oid, owner: Oid) -> Privileges {
        if role == owner {
            return Privileges::ALL;
        }
        let own = self.0.iter().filter(|item| item.grantee == role);
        own.fold(Privileges::NONE, |held, item| held.with(item.options))
    }

    /// Whether it says the same as another one, in whatever order.
    #[must_use]
    pub fn says_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|item| other.0.contains(item))
    }

    /// Whether a role would have the right to give privileges only because of those to whom it gives that right, were
    /// it given to one more.
    #[must_use]
    pub fn is_circle(&self, grantor: Oid, grantee: Oid, options: Privileges, owner: Oid) -> bool {
        if grantor == owner || options.is_empty() {
            return false;
        }
        let mut without = self.clone();
        while let Some(item) =
            without.0.iter().find(|item| item.grantee == grantee && !item.options.is_empty()).copied()
        {
            if without.revoke(item.grantor, grantee, item.granted, false, true, owner).is_err() {
                return true;
            }
        }
        !without.own_options(grantor, owner).has(options)
    }

    /// Adds privileges.
    pub fn grant(&mut self, grantor: Oid, grantee: Oid, granted: Privileges, with_option: bool) {
        let options = if with_option { granted } else { Privileges::NONE };
        let known = self.0.iter_mut().find(|item| item.grantee == grantee && item.grantor == grantor);
        match known {
            Some(item) => {
                item.granted = item.granted.with(granted);
                item.options = item.options.with(options);
            }
            None => self.0.push(AclItem { grantee, grantor, granted, options }),
        }
    }

    /// Takes privileges away, or the right to give them alone; with `cascade` also what others have from the grantee.
    ///
    /// # Errors
    /// When others have them from the grantee, without `cascade`.
    pub fn revoke(
        &mut self,
        grantor: Oid,
        grantee: Oid,
        revoked: Privileges,
        options_only: bool,
        cascade: bool,
        owner: Oid,
    ) -> Result<(), Dependent> {
        let Some(item) = self.0.iter_mut().find(|item| item.grantee == grantee && item.grantor == grantor)
        else {
            return Ok(());
        };
        let lost = item.options.of(revoked);
        if !options_only {
            item.granted = item.granted.without(revoked);
        }
        item.options = item.options.without(revoked);
        self.0.retain(|item| !item.granted.is_empty());
        if lost.is_empty() || grantee == owner {
            return Ok(());
        }
        // What the grantee may still give by another's leave stays.
        let lost = lost.without(self.own_options(grantee, owner));
        let next = |acl: &Self| {
            acl.0.iter().find(|item| item.grantor == grantee && !item.granted.of(lost).is_empty()).copied()
        };
        while let Some(item) = next(self) {
            if !cascade {
                return Err(Dependent);
            }
            self.revoke(grantee, item.grantee, item.granted.of(lost), false, true, owner)?;
        }
        Ok(())
    }

    /// The same with another owner: what the former one gave, the new one has given.
    pub fn change_owner(&mut self, former: Oid, new: Oid) {
        let items = std::mem::take(&mut self.0);
        let renamed = |oid: Oid| if oid == former { new } else { oid };
        for item in items {
            let (grantee, grantor) = (renamed(item.grantee), renamed(item.grantor));
            match self.0.iter_mut().find(|known| known.grantee == grantee && known.grantor == grantor) {
                Some(known) => {
                    known.granted = known.granted.with(item.granted);
                    known.options = known.options.with(item.options);
                }
                None => self.0.push(AclItem { grantee, grantor, ..item }),
            }
        }
    }

    /// Takes away all that a role has or gave.
    pub fn forget(&mut self, role: Oid) {
        self.0.retain(|item| item.grantee != role && item.grantor != role);
    }

    /// Whether a role gave or has something.
    #[must_use]
    pub fn names(&self, role: Oid) -> bool {
        self.0.iter().any(|item| item.grantee == role || item.grantor == role)
    }

    /// Each item as PostgreSQL writes it.
    pub fn texts(&self, name: impl Fn(Oid) -> String) -> Vec<String> {
        let quoted = |oid: Oid| {
            let name = name(oid);
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if plain { name } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        let text = |item: &AclItem| {
            let mut text = if item.grantee == PUBLIC_ROLE { String::new() } else { quoted(item.grantee) };
            text.push('=');
            for (one, _, letter) in LETTERS.iter().filter(|(one, ..)| item.granted.has(*one)) {
                text.push(*letter);
                if item.options.has(*one) {
                    text.push('*');
                }
            }
            format!("{text}/{}", quoted(item.grantor))
        };
        self.0.iter().map(text).collect()
    }
}

/// What ALTER DEFAULT PRIVILEGES says of objects that a role makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultAcl {
    /// `pg_default_acl.oid`.
    pub oid: Oid,
    /// Whose objects.
    pub role: Oid,
    /// In which schema; none for all.
    pub schema: Option<Oid>,
    /// Which kind of objects.
    pub kind: AclKind,
    /// Without a schema what holds instead of the initial privileges; with one what is added to them.
    pub acl: Acl,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(number: u32) -> Oid {
        Oid::new(number)
    }

    fn shown(acl: &Acl) -> Vec<String> {
        acl.texts(|oid| format!("r{}", oid.get()))
    }

    #[test]
    fn privileges_are_given_on_and_fall_with_who_gave_them() {
        let owner = role(1);
        let mut acl = Acl::initial(AclKind::Table, owner);
        assert_eq!(shown(&acl), ["r1=arwdDxt/r1"]);
        acl.grant(owner, role(2), Privileges::SELECT.with(Privileges::INSERT), true);
        acl.grant(role(2), role(3), Privileges::SELECT, true);
        acl.grant(role(3), role(4), Privileges::SELECT, false);
        assert_eq!(shown(&acl), ["r1=arwdDxt/r1", "r2=a*r*/r1", "r3=r*/r2", "r4=r/r3"]);
        let before = acl.clone();
        let mut refused = acl.clone();
        assert_eq!(refused.revoke(owner, role(2), Privileges::SELECT, false, false, owner), Err(Dependent));
        acl.revoke(owner, role(2), Privileges::INSERT, false, false, owner)
            .expect("nobody has it from there");
        acl.revoke(owner, role(2), Privileges::SELECT, true, true, owner).expect("cascades");
        assert_eq!(shown(&acl), ["r1=arwdDxt/r1", "r2=r/r1"]);
        // By another's leave it may go on.
        let mut twice = before;
        twice.grant(owner, role(3), Privileges::SELECT, true);
        twice.revoke(owner, role(2), Privileges::SELECT, false, true, owner).expect("cascades");
        assert_eq!(shown(&twice), ["r1=arwdDxt/r1", "r2=a*/r1", "r4=r/r3", "r3=r*/r1"]);
    }

    #[test]
    fn nobody_gives_back_what_he_has_from_there() {
        let (owner, read) = (role(1), Privileges::SELECT);
        let mut acl = Acl::initial(AclKind::Table, owner);
        acl.grant(owner, role(2), read, true);
        acl.grant(role(2), role(3), read, true);
        acl.grant(role(3), role(4), read, true);
        assert!(acl.is_circle(role(3), role(2), read, owner) && acl.is_circle(role(4), role(2), read, owner));
        assert!(!acl.is_circle(role(3), role(5), read, owner) && !acl.is_circle(owner, role(2), read, owner));
        // By the owner's leave it would be no circle.
        acl.grant(owner, role(4), read, true);
        assert!(!acl.is_circle(role(4), role(2), read, owner));
        let mut longer = acl.clone();
        longer.grant(role(4), role(2), read, true);
        longer.revoke(owner, role(2), read, false, true, owner).expect("cascades");
        assert_eq!(
            shown(&longer),
            ["r1=arwdDxt/r1", "r3=r*/r2", "r4=r*/r3", "r4=r*/r1", "r2=r*/r4"],
            "it may still give it by the leave of the fourth"
        );
    }

    #[test]
    fn a_new_owner_has_given_what_the_former_one_gave() {
        let mut acl = Acl::initial(AclKind::Schema, role(1));
        acl.grant(role(1), PUBLIC_ROLE, Privileges::USAGE, false);
        acl.grant(role(1), role(2), Privileges::USAGE, false);
        acl.change_owner(role(1), role(2));
        assert_eq!(shown(&acl), ["r2=UC/r2", "=U/r2"]);
        assert!(!acl.names(role(1)) && acl.names(role(2)));
    }

    #[test]
    fn who_holds_what() {
        let mut acl = Acl::initial(AclKind::Table, role(1));
        acl.grant(role(1), PUBLIC_ROLE, Privileges::SELECT, false);
        let held = |roles: &[u32]| acl.held(&roles.iter().map(|number| role(*number)).collect());
        assert_eq!(held(&[7]), Privileges::SELECT);
        assert!(held(&[7, 1]).has(AclKind::Table.all()));
        assert_eq!(Privileges::named("temp"), Privileges::named("TEMPORARY"));
        assert_eq!(Privileges::named("nothing"), None);
    }
}
