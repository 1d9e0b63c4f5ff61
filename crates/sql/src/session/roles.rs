//! SET ROLE and SET SESSION AUTHORIZATION: whether a role may be taken, and what is set then. `set_config()` and the
//! start of a session ask the same.

use super::executor::Context;
use super::settings::{Scope, Settings};
use crate::error::{SqlError, SqlState};
use crate::system::{RoleRecord, SystemSnapshot};

/// The settings that say as whom a session runs, which RESET ALL leaves alone.
pub(super) const SETTINGS: [&str; 3] = ["role", "session_authorization", "is_superuser"];

/// The setting of [`SETTINGS`] that a name in any case of letters means.
pub(crate) fn setting_named(name: &str) -> Option<&'static str> {
    let [role, authorization, _] = SETTINGS;
    [role, authorization].into_iter().find(|known| name.eq_ignore_ascii_case(known))
}

fn known<'s>(name: &str, system: &'s SystemSnapshot) -> Result<&'s RoleRecord, SqlError> {
    system.role_named(name).ok_or_else(|| {
        SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("role \"{name}\" does not exist"))
    })
}

/// Refuses a role that is not there, or that the session's role is no member of.
///
/// # Errors
/// 22023 and 42501.
pub(crate) fn check_role(session_user: &str, name: &str, system: &SystemSnapshot) -> Result<(), SqlError> {
    if name == "none" {
        return Ok(());
    }
    let role = known(name, system)?;
    let may = |me: &RoleRecord| me.superuser || system.roles_of(me.oid, None, false).contains(&role.oid);
    if system.role_named(session_user).is_some_and(may) {
        return Ok(());
    }
    let message = format!("permission denied to set role \"{name}\"");
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message))
}

/// Refuses a role that is not there, or another one than that which logged in unless that is a superuser.
///
/// # Errors
/// 22023 and 42501.
pub(crate) fn check_authorization(login: &str, name: &str, system: &SystemSnapshot) -> Result<(), SqlError> {
    known(name, system)?;
    if name == login || system.role_named(login).is_some_and(|own| own.superuser) {
        return Ok(());
    }
    let message = "permission denied to set session authorization";
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message))
}

/// Sets or resets one of [`SETTINGS`], checked, and what follows from it.
///
/// # Errors
/// As the checks.
pub(super) fn change(
    name: &'static str,
    value: Option<&str>,
    scope: Scope,
    context: &mut Context,
    system: &SystemSnapshot,
) -> Result<(), SqlError> {
    if name == "role" {
        let wanted = context.settings.checked(name, value)?.1;
        check_role(context.session_user(), &wanted, system)?;
        context.settings.put_fixed(name, value, scope);
    } else {
        check_authorization(&context.user, value.unwrap_or(&context.user), system)?;
        context.settings.put_fixed("role", Some("none"), scope);
        context.settings.put_fixed(name, value, scope);
    }
    let is_superuser = system.role_named(context.current_user()).is_some_and(|role| role.superuser);
    context.settings.put_fixed("is_superuser", Some(if is_superuser { "on" } else { "off" }), scope);
    Ok(())
}

/// Checks the role with which a session wants to begin.
///
/// # Errors
/// As [`check_role`].
pub(crate) fn begin(login: &str, settings: &mut Settings, system: &SystemSnapshot) -> Result<(), SqlError> {
    let role = settings.get("role").to_owned();
    if role == "none" {
        return Ok(());
    }
    check_role(login, &role, system)?;
    let is_superuser = system.role_named(&role).is_some_and(|role| role.superuser);
    settings.fix("is_superuser", if is_superuser { "on" } else { "off" });
    Ok(())
}
