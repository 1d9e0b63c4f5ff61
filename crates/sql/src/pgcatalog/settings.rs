//! `pg_settings`: the session's settings with what PostgreSQL says about each.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::classes::text;
use super::relation::Rows;
use crate::catalog::virtual_table::VirtualContext;

/// The descriptions by lower-case name: name, unit, category, short_desc, extra_desc, context, vartype, min_val,
/// max_val, enumvals, boot_val.
static DESCRIPTIONS: LazyLock<BTreeMap<String, Vec<&'static str>>> = LazyLock::new(|| {
    (include_str!("data/pg_settings.tsv").lines().skip(1))
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter_map(|fields| Some((fields.first()?.to_ascii_lowercase(), fields)))
        .collect()
});

/// Multiples of bytes and of milliseconds that a setting's value may be written in, largest first.
const UNITS: [(&str, f64); 10] = [
    ("TB", 1_099_511_627_776.0),
    ("GB", 1_073_741_824.0),
    ("MB", 1_048_576.0),
    ("8kB", 8192.0),
    ("kB", 1024.0),
    ("min", 60_000.0),
    ("ms", 1.0),
    ("s", 1000.0),
    ("h", 3_600_000.0),
    ("d", 86_400_000.0),
];

/// A value such as `4MB` as the number of the setting's own units, as `pg_settings` shows it.
fn in_base_units(value: &str, unit: &str) -> Option<String> {
    let factor = |name: &str| UNITS.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor);
    let digits = value.find(|c: char| !c.is_ascii_digit())?;
    let (number, suffix) = value.split_at(digits);
    let scaled = number.parse::<f64>().ok()? * factor(suffix)? / factor(unit)?;
    Some(format!("{}", scaled.round()))
}

/// `pg_settings`. As in PostgreSQL, who the session is (`role`, `session_authorization`, `is_superuser`) is not in it.
pub(super) fn pg_settings(context: &VirtualContext<'_>) -> Rows {
    let shown = |name: &str| name.contains('.') || DESCRIPTIONS.contains_key(&name.to_ascii_lowercase());
    context.settings.iter().filter(|(name, _)| shown(name)).map(|(name, value)| row(name, value)).collect()
}

fn row(name: &str, value: &str) -> Vec<Value> {
    let description = DESCRIPTIONS.get(&name.to_ascii_lowercase());
    let field = |place: usize| {
        (description.and_then(|fields| fields.get(place)).copied()).filter(|field| *field != "\\N")
    };
    let or_null = |field: Option<&str>| field.map_or(Value::Null, text);
    let setting = field(1).and_then(|unit| in_base_units(value, unit)).unwrap_or_else(|| value.to_owned());
    let choices = field(9).map_or(Value::Null, |choices| {
        let words =
            choices.trim_matches(['{', '}']).split(',').map(|word| text(word.trim_matches('"'))).collect();
        Value::array(BaseType::Text, words)
    });
    let default = field(10);
    let source = if default == Some(setting.as_str()) { "default" } else { "session" };
    vec![
        text(field(0).unwrap_or(name)),
        text(&setting),
        or_null(field(1)),
        text(field(2).unwrap_or("Customized Options")),
        or_null(field(3)),
        or_null(field(4)),
        text(field(5).unwrap_or("user")),
        text(field(6).unwrap_or("string")),
        text(source),
        or_null(field(7)),
        or_null(field(8)),
        choices,
        or_null(default),
        or_null(default),
        Value::Null,        // sourcefile
        Value::Null,        // sourceline
        Value::Bool(false), // pending_restart
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::settings::DEFINITIONS;

    #[test]
    fn every_setting_of_a_session_is_described() {
        let hidden: Vec<&str> = (DEFINITIONS.iter().map(|definition| definition.name))
            .filter(|name| !DESCRIPTIONS.contains_key(&name.to_ascii_lowercase()))
            .collect();
        assert_eq!(hidden, ["is_superuser", "role", "session_authorization"]);
    }

    #[test]
    fn values_are_shown_in_the_settings_own_units() {
        for (value, unit, shown) in [
            ("4MB", "kB", Some("4096")),
            ("128MB", "8kB", Some("16384")),
            ("1min", "ms", Some("60000")),
            ("2h", "s", Some("7200")),
            ("0", "ms", None),
            ("on", "ms", None),
            ("5 parsecs", "s", None),
        ] {
            assert_eq!(in_base_units(value, unit).as_deref(), shown, "{value} in {unit}");
        }
        let row = row("work_mem", "4MB");
        assert_eq!(
            (row[1].as_str(), row[2].as_str(), row[8].as_str()),
            (Some("4096"), Some("kB"), Some("default"))
        );
    }
}
