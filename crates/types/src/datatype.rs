//! SQL data types: identity, object id, names and modifiers, numbered and named as PostgreSQL's.
//!
//! A [`DataType`] is a base type with a modifier (PostgreSQL's `typmod`, -1 when absent):
//!
//! ```text
//! varchar(10)    base Varchar    modifier 10 + 4
//! numeric(9,2)   base Numeric    modifier ((9 << 16) | 2) + 4
//! timestamp(3)   base Timestamp  modifier 3
//! ```
//!
//! Invariant: the numbers and names here equal `pg_type` of PostgreSQL 15. They are stored in
//! catalogs and sent to clients, so a row of the table is never changed, only added.
//! Enumerations, which users make, are the exception: see [`crate::enum_type`]. Domains are the types under them, to
//! which the catalog adds what it knows. Deliberately absent: timetz and composite types.

use std::fmt;

use crate::enum_type::{EnumDefinition, EnumType};
use crate::interval_fields::IntervalFields;

/// The letter by which PostgreSQL groups types when it chooses among overloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// `A`: arrays.
    Array,
    /// `B`: boolean.
    Boolean,
    /// `D`: dates and times.
    DateTime,
    /// `E`: enumerations.
    Enum,
    /// `N`: numbers and object ids.
    Numeric,
    /// `P`: pseudo-types.
    Pseudo,
    /// `S`: strings.
    String,
    /// `T`: time spans.
    Timespan,
    /// `U`: everything else that users store.
    User,
    /// `X`: the type of an untyped literal.
    Unknown,
    /// `Z`: internal types.
    Internal,
}

impl Category {
    /// The letter in `pg_type.typcategory`.
    pub fn letter(self) -> char {
        match self {
            Category::Array => 'A',
            Category::Boolean => 'B',
            Category::DateTime => 'D',
            Category::Enum => 'E',
            Category::Numeric => 'N',
            Category::Pseudo => 'P',
            Category::String => 'S',
            Category::Timespan => 'T',
            Category::User => 'U',
            Category::Unknown => 'X',
            Category::Internal => 'Z',
        }
    }
}

macro_rules! base_types {
    ($($variant:ident, $oid:literal, $name:literal, $sql:literal, $len:literal, $cat:ident, $pref:literal, $array:ident, $elem:ident, $doc:literal;)*) => {
        /// A type without its modifier.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum BaseType {
            $(#[doc = $doc] $variant,)*
            /// An enumeration.
            Enum(EnumType),
            /// Arrays of an enumeration.
            EnumArray(EnumType),
        }

        impl BaseType {
            /// Every built-in type, in the order of the table.
            pub const ALL: &'static [BaseType] = &[$(BaseType::$variant),*];

            /// The row of a built-in type; an enumeration has none.
            fn row(self) -> &'static Row {
                match self {
                    BaseType::Enum(_) => &ENUM_ROW,
                    BaseType::EnumArray(_) => &ENUM_ARRAY_ROW,
                    $(BaseType::$variant => {
                        const ROW: Row = Row { oid: $oid, name: $name, sql: $sql, len: $len, category: Category::$cat, preferred: $pref, array: stringify_type!($array), element: stringify_type!($elem) };
                        &ROW
                    })*
                }
            }

            /// The built-in type with this object id.
            pub fn from_oid(oid: u32) -> Option<BaseType> {
                match oid {
                    $($oid => Some(BaseType::$variant),)*
                    _ => None,
                }
            }

            /// The built-in type with this `pg_type.typname`.
            pub fn from_type_name(name: &str) -> Option<BaseType> {
                match name {
                    $($name => Some(BaseType::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

macro_rules! stringify_type {
    (None) => {
        None
    };
    ($variant:ident) => {
        Some(BaseType::$variant)
    };
}

struct Row {
    oid: u32,
    name: &'static str,
    sql: &'static str,
    len: i16,
    category: Category,
    preferred: bool,
    array: Option<BaseType>,
    element: Option<BaseType>,
}

/// What enumerations have in common.
const ENUM_ROW: Row = Row {
    oid: 0,
    name: "",
    sql: "",
    len: 4,
    category: Category::Enum,
    preferred: false,
    array: None,
    element: None,
};
const ENUM_ARRAY_ROW: Row = Row { len: -1, category: Category::Array, ..ENUM_ROW };

base_types! {
    Bool, 16, "bool", "boolean", 1, Boolean, true, BoolArray, None, "`boolean`";
    Bytea, 17, "bytea", "bytea", -1, User, false, ByteaArray, None, "`bytea`";
    Char, 18, "char", "\"char\"", 1, Internal, false, CharArray, None, "`\"char\"`";
    Name, 19, "name", "name", 64, String, false, NameArray, None, "`name`";
    Int8, 20, "int8", "bigint", 8, Numeric, false, Int8Array, None, "`bigint`";
    Int2, 21, "int2", "smallint", 2, Numeric, false, Int2Array, None, "`smallint`";
    Int2Vector, 22, "int2vector", "int2vector", -1, Array, false, Int2VectorArray, Int2, "`int2vector`";
    Int4, 23, "int4", "integer", 4, Numeric, false, Int4Array, None, "`integer`";
    RegProc, 24, "regproc", "regproc", 4, Numeric, false, RegProcArray, None, "`regproc`";
    Text, 25, "text", "text", -1, String, true, TextArray, None, "`text`";
    Oid, 26, "oid", "oid", 4, Numeric, true, OidArray, None, "`oid`";
    Xid, 28, "xid", "xid", 4, User, false, XidArray, None, "`xid`";
    OidVector, 30, "oidvector", "oidvector", -1, Array, false, OidVectorArray, Oid, "`oidvector`";
    Json, 114, "json", "json", -1, User, false, JsonArray, None, "`json`";
    PgNodeTree, 194, "pg_node_tree", "pg_node_tree", -1, Internal, false, None, None, "`pg_node_tree`";
    Float4, 700, "float4", "real", 4, Numeric, false, Float4Array, None, "`real`";
    Float8, 701, "float8", "double precision", 8, Numeric, true, Float8Array, None, "`double precision`";
    Unknown, 705, "unknown", "unknown", -2, Unknown, false, None, None, "`unknown`";
    AclItem, 1033, "aclitem", "aclitem", 12, User, false, AclItemArray, None, "`aclitem`";
    Bpchar, 1042, "bpchar", "character", -1, String, false, BpcharArray, None, "`character`";
    Varchar, 1043, "varchar", "character varying", -1, String, false, VarcharArray, None, "`character varying`";
    Date, 1082, "date", "date", 4, DateTime, false, DateArray, None, "`date`";
    Time, 1083, "time", "time without time zone", 8, DateTime, false, TimeArray, None, "`time without time zone`";
    Timestamp, 1114, "timestamp", "timestamp without time zone", 8, DateTime, false, TimestampArray, None, "`timestamp without time zone`";
    Timestamptz, 1184, "timestamptz", "timestamp with time zone", 8, DateTime, true, TimestamptzArray, None, "`timestamp with time zone`";
    Interval, 1186, "interval", "interval", 16, Timespan, true, IntervalArray, None, "`interval`";
    Numeric, 1700, "numeric", "numeric", -1, Numeric, false, NumericArray, None, "`numeric`";
    RegProcedure, 2202, "regprocedure", "regprocedure", 4, Numeric, false, RegProcedureArray, None, "`regprocedure`";
    RegOper, 2203, "regoper", "regoper", 4, Numeric, false, RegOperArray, None, "`regoper`";
    RegOperator, 2204, "regoperator", "regoperator", 4, Numeric, false, RegOperatorArray, None, "`regoperator`";
    RegClass, 2205, "regclass", "regclass", 4, Numeric, false, RegClassArray, None, "`regclass`";
    RegType, 2206, "regtype", "regtype", 4, Numeric, false, RegTypeArray, None, "`regtype`";
    Record, 2249, "record", "record", -1, Pseudo, false, RecordArray, None, "`record`";
    CString, 2275, "cstring", "cstring", -2, Pseudo, false, CStringArray, None, "`cstring`";
    Any, 2276, "any", "\"any\"", 4, Pseudo, false, None, None, "`\"any\"`";
    AnyArray, 2277, "anyarray", "anyarray", -1, Pseudo, false, None, None, "`anyarray`";
    Void, 2278, "void", "void", 4, Pseudo, false, None, None, "`void`";
    AnyElement, 2283, "anyelement", "anyelement", 4, Pseudo, false, None, None, "`anyelement`";
    RecordArray, 2287, "_record", "record[]", -1, Pseudo, false, None, Record, "`record[]`";
    AnyNonArray, 2776, "anynonarray", "anynonarray", 4, Pseudo, false, None, None, "`anynonarray`";
    Uuid, 2950, "uuid", "uuid", 16, User, false, UuidArray, None, "`uuid`";
    PgLsn, 3220, "pg_lsn", "pg_lsn", 8, User, false, PgLsnArray, None, "`pg_lsn`";
    Jsonb, 3802, "jsonb", "jsonb", -1, User, false, JsonbArray, None, "`jsonb`";
    RegNamespace, 4089, "regnamespace", "regnamespace", 4, Numeric, false, RegNamespaceArray, None, "`regnamespace`";
    RegRole, 4096, "regrole", "regrole", 4, Numeric, false, RegRoleArray, None, "`regrole`";
    RegCollation, 4191, "regcollation", "regcollation", 4, Numeric, false, RegCollationArray, None, "`regcollation`";
    AnyEnum, 3500, "anyenum", "anyenum", 4, Pseudo, false, None, None, "`anyenum`";
    AnyCompatible, 5077, "anycompatible", "anycompatible", 4, Pseudo, false, None, None, "`anycompatible`";
    AnyCompatibleArray, 5078, "anycompatiblearray", "anycompatiblearray", -1, Pseudo, false, None, None, "`anycompatiblearray`";
    JsonArray, 199, "_json", "json[]", -1, Array, false, None, Json, "`json[]`";
    JsonbArray, 3807, "_jsonb", "jsonb[]", -1, Array, false, None, Jsonb, "`jsonb[]`";
    BoolArray, 1000, "_bool", "boolean[]", -1, Array, false, None, Bool, "`boolean[]`";
    ByteaArray, 1001, "_bytea", "bytea[]", -1, Array, false, None, Bytea, "`bytea[]`";
    CharArray, 1002, "_char", "\"char\"[]", -1, Array, false, None, Char, "`\"char\"[]`";
    NameArray, 1003, "_name", "name[]", -1, Array, false, None, Name, "`name[]`";
    Int2Array, 1005, "_int2", "smallint[]", -1, Array, false, None, Int2, "`smallint[]`";
    Int2VectorArray, 1006, "_int2vector", "int2vector[]", -1, Array, false, None, Int2Vector, "`int2vector[]`";
    Int4Array, 1007, "_int4", "integer[]", -1, Array, false, None, Int4, "`integer[]`";
    RegProcArray, 1008, "_regproc", "regproc[]", -1, Array, false, None, RegProc, "`regproc[]`";
    TextArray, 1009, "_text", "text[]", -1, Array, false, None, Text, "`text[]`";
    XidArray, 1011, "_xid", "xid[]", -1, Array, false, None, Xid, "`xid[]`";
    OidVectorArray, 1013, "_oidvector", "oidvector[]", -1, Array, false, None, OidVector, "`oidvector[]`";
    BpcharArray, 1014, "_bpchar", "character[]", -1, Array, false, None, Bpchar, "`character[]`";
    VarcharArray, 1015, "_varchar", "character varying[]", -1, Array, false, None, Varchar, "`character varying[]`";
    Int8Array, 1016, "_int8", "bigint[]", -1, Array, false, None, Int8, "`bigint[]`";
    Float4Array, 1021, "_float4", "real[]", -1, Array, false, None, Float4, "`real[]`";
    Float8Array, 1022, "_float8", "double precision[]", -1, Array, false, None, Float8, "`double precision[]`";
    OidArray, 1028, "_oid", "oid[]", -1, Array, false, None, Oid, "`oid[]`";
    AclItemArray, 1034, "_aclitem", "aclitem[]", -1, Array, false, None, AclItem, "`aclitem[]`";
    TimestampArray, 1115, "_timestamp", "timestamp without time zone[]", -1, Array, false, None, Timestamp, "`timestamp without time zone[]`";
    DateArray, 1182, "_date", "date[]", -1, Array, false, None, Date, "`date[]`";
    TimeArray, 1183, "_time", "time without time zone[]", -1, Array, false, None, Time, "`time without time zone[]`";
    TimestamptzArray, 1185, "_timestamptz", "timestamp with time zone[]", -1, Array, false, None, Timestamptz, "`timestamp with time zone[]`";
    IntervalArray, 1187, "_interval", "interval[]", -1, Array, false, None, Interval, "`interval[]`";
    NumericArray, 1231, "_numeric", "numeric[]", -1, Array, false, None, Numeric, "`numeric[]`";
    CStringArray, 1263, "_cstring", "cstring[]", -1, Array, false, None, CString, "`cstring[]`";
    RegProcedureArray, 2207, "_regprocedure", "regprocedure[]", -1, Array, false, None, RegProcedure, "`regprocedure[]`";
    RegOperArray, 2208, "_regoper", "regoper[]", -1, Array, false, None, RegOper, "`regoper[]`";
    RegOperatorArray, 2209, "_regoperator", "regoperator[]", -1, Array, false, None, RegOperator, "`regoperator[]`";
    RegClassArray, 2210, "_regclass", "regclass[]", -1, Array, false, None, RegClass, "`regclass[]`";
    RegTypeArray, 2211, "_regtype", "regtype[]", -1, Array, false, None, RegType, "`regtype[]`";
    UuidArray, 2951, "_uuid", "uuid[]", -1, Array, false, None, Uuid, "`uuid[]`";
    PgLsnArray, 3221, "_pg_lsn", "pg_lsn[]", -1, Array, false, None, PgLsn, "`pg_lsn[]`";
    RegNamespaceArray, 4090, "_regnamespace", "regnamespace[]", -1, Array, false, None, RegNamespace, "`regnamespace[]`";
    RegRoleArray, 4097, "_regrole", "regrole[]", -1, Array, false, None, RegRole, "`regrole[]`";
    RegCollationArray, 4192, "_regcollation", "regcollation[]", -1, Array, false, None, RegCollation, "`regcollation[]`";
}

impl BaseType {
    /// The object id in `pg_type`.
    pub fn oid(self) -> u32 {
        match self {
            BaseType::Enum(of) => of.definition().oid,
            BaseType::EnumArray(of) => of.definition().array_oid,
            _ => self.row().oid,
        }
    }

    /// What an enumeration, or the elements of arrays of one, are made of.
    pub fn enumeration(self) -> Option<&'static EnumDefinition> {
        match self {
            BaseType::Enum(of) | BaseType::EnumArray(of) => Some(of.definition()),
            _ => None,
        }
    }

    /// `pg_type.typname`, such as `int4` or `_text`.
    pub fn type_name(self) -> &'static str {
        match self {
            BaseType::Enum(of) => &of.definition().name,
            BaseType::EnumArray(of) => &of.definition().array_name,
            _ => self.row().name,
        }
    }

    /// The name that PostgreSQL's messages and `format_type` use, such as `integer` or `text[]`.
    pub fn sql_name(self) -> &'static str {
        match self {
            BaseType::Enum(of) => &of.definition().shown,
            BaseType::EnumArray(of) => of.shown_array(),
            _ => self.row().sql,
        }
    }

    /// `pg_type.typlen`: bytes of a fixed-size type, -1 for variable, -2 for C strings.
    pub fn type_len(self) -> i16 {
        self.row().len
    }

    /// `pg_type.typcategory`.
    pub fn category(self) -> Category {
        self.row().category
    }

    /// `pg_type.typispreferred`.
    pub fn is_preferred(self) -> bool {
        self.row().preferred
    }

    /// The type of arrays of this type.
    pub fn array(self) -> Option<BaseType> {
        match self {
            BaseType::Enum(of) => Some(BaseType::EnumArray(of)),
            _ => self.row().array,
        }
    }

    /// The element type of an array type (also of `int2vector` and `oidvector`).
    pub fn element(self) -> Option<BaseType> {
        match self {
            BaseType::EnumArray(of) => Some(BaseType::Enum(of)),
            _ => self.row().element,
        }
    }

    /// Values of this type are held as `Value::Text`.
    pub fn is_text_like(self) -> bool {
        matches!(
            self,
            BaseType::Text
                | BaseType::Varchar
                | BaseType::Bpchar
                | BaseType::Name
                | BaseType::Char
                | BaseType::Unknown
                | BaseType::CString
                | BaseType::PgNodeTree
                | BaseType::Json
                | BaseType::AclItem
        )
    }

    /// Values of this type are held as `Value::Oid`.
    pub fn is_oid_like(self) -> bool {
        matches!(self, BaseType::Oid | BaseType::Xid) || self.is_reg()
    }

    /// One of the `reg*` types: an object id that prints as a name.
    pub fn is_reg(self) -> bool {
        matches!(
            self,
            BaseType::RegProc
                | BaseType::RegProcedure
                | BaseType::RegOper
                | BaseType::RegOperator
                | BaseType::RegClass
                | BaseType::RegType
                | BaseType::RegRole
                | BaseType::RegNamespace
                | BaseType::RegCollation
        )
    }

    /// A placeholder in a function's signature that takes the type of the actual arguments.
    pub fn is_polymorphic(self) -> bool {
        matches!(
            self,
            BaseType::AnyArray
                | BaseType::AnyElement
                | BaseType::AnyNonArray
                | BaseType::AnyEnum
                | BaseType::AnyCompatible
                | BaseType::AnyCompatibleArray
        )
    }

    /// Its values, or those of its elements, have an order and can be equal.
    pub fn is_comparable(self) -> bool {
        self.element().unwrap_or(self) != BaseType::Json
    }

    /// A column may have this type.
    pub fn is_storable(self) -> bool {
        self.category() != Category::Pseudo && self != BaseType::Unknown
    }
}

impl fmt::Display for BaseType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql_name())
    }
}

/// A base type with its modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataType {
    /// The type without the modifier.
    pub base: BaseType,
    /// PostgreSQL's `typmod`; -1 means none.
    pub modifier: i32,
}

impl From<BaseType> for DataType {
    fn from(base: BaseType) -> DataType {
        DataType { base, modifier: -1 }
    }
}

/// Precision and scale of a `numeric(p,s)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumericModifier {
    /// Digits in total, 1 to 1000.
    pub precision: u16,
    /// Digits behind the point, -1000 to 1000.
    pub scale: i16,
}

impl DataType {
    /// `boolean`
    pub const BOOL: DataType = DataType::plain(BaseType::Bool);
    /// `smallint`
    pub const INT2: DataType = DataType::plain(BaseType::Int2);
    /// `integer`
    pub const INT4: DataType = DataType::plain(BaseType::Int4);
    /// `bigint`
    pub const INT8: DataType = DataType::plain(BaseType::Int8);
    /// `real`
    pub const FLOAT4: DataType = DataType::plain(BaseType::Float4);
    /// `double precision`
    pub const FLOAT8: DataType = DataType::plain(BaseType::Float8);
    /// `numeric` of any precision
    pub const NUMERIC: DataType = DataType::plain(BaseType::Numeric);
    /// `text`
    pub const TEXT: DataType = DataType::plain(BaseType::Text);
    /// `name`
    pub const NAME: DataType = DataType::plain(BaseType::Name);
    /// `"char"`
    pub const CHAR: DataType = DataType::plain(BaseType::Char);
    /// `bytea`
    pub const BYTEA: DataType = DataType::plain(BaseType::Bytea);
    /// `oid`
    pub const OID: DataType = DataType::plain(BaseType::Oid);
    /// `date`
    pub const DATE: DataType = DataType::plain(BaseType::Date);
    /// `time`
    pub const TIME: DataType = DataType::plain(BaseType::Time);
    /// `timestamp`
    pub const TIMESTAMP: DataType = DataType::plain(BaseType::Timestamp);
    /// `timestamptz`
    pub const TIMESTAMPTZ: DataType = DataType::plain(BaseType::Timestamptz);
    /// `interval`
    pub const INTERVAL: DataType = DataType::plain(BaseType::Interval);
    /// `json`
    pub const JSON: DataType = DataType::plain(BaseType::Json);
    /// `jsonb`
    pub const JSONB: DataType = DataType::plain(BaseType::Jsonb);
    /// `uuid`
    pub const UUID: DataType = DataType::plain(BaseType::Uuid);
    /// The type of an untyped literal or parameter.
    pub const UNKNOWN: DataType = DataType::plain(BaseType::Unknown);
    /// `void`
    pub const VOID: DataType = DataType::plain(BaseType::Void);
    /// `record`
    pub const RECORD: DataType = DataType::plain(BaseType::Record);
    /// `text[]`
    pub const TEXT_ARRAY: DataType = DataType::plain(BaseType::TextArray);

    /// A type without modifier.
    pub const fn plain(base: BaseType) -> DataType {
        DataType { base, modifier: -1 }
    }

    /// `varchar(length)`; `length` in characters.
    pub const fn varchar(length: i32) -> DataType {
        DataType { base: BaseType::Varchar, modifier: length + 4 }
    }

    /// `char(length)`; `length` in characters.
    pub const fn bpchar(length: i32) -> DataType {
        DataType { base: BaseType::Bpchar, modifier: length + 4 }
    }

    /// `numeric(precision, scale)`.
    pub const fn numeric(precision: u16, scale: i16) -> DataType {
        DataType {
            base: BaseType::Numeric,
            modifier: (((precision as i32) << 16) | ((scale as i32) & 0x7ff)) + 4,
        }
    }

    /// The built-in type with this object id, and a modifier.
    pub fn from_oid(oid: u32, modifier: i32) -> Option<DataType> {
        BaseType::from_oid(oid).map(|base| DataType { base, modifier })
    }

    /// The object id in `pg_type`.
    pub fn oid(self) -> u32 {
        self.base.oid()
    }

    /// The array type with elements of this type (and modifier).
    pub fn array(self) -> Option<DataType> {
        self.base.array().map(|base| DataType { base, modifier: self.modifier })
    }

    /// The element type of an array type.
    pub fn element(self) -> Option<DataType> {
        self.base.element().map(|base| DataType { base, modifier: self.modifier })
    }

    /// The same type without its modifier.
    pub fn without_modifier(self) -> DataType {
        DataType::plain(self.base)
    }

    /// An untyped literal or parameter.
    pub fn is_unknown(self) -> bool {
        self.base == BaseType::Unknown
    }

    /// The length in characters of a `varchar(n)` or `char(n)`.
    pub fn length(self) -> Option<usize> {
        let scalar = self.base.element().unwrap_or(self.base);
        match scalar {
            BaseType::Varchar | BaseType::Bpchar if self.modifier >= 4 => {
                usize::try_from(self.modifier - 4).ok()
            }
            _ => None,
        }
    }

    /// Precision and scale of a `numeric(p,s)`.
    pub fn numeric_modifier(self) -> Option<NumericModifier> {
        let scalar = self.base.element().unwrap_or(self.base);
        if scalar != BaseType::Numeric || self.modifier < 4 {
            return None;
        }
        let packed = self.modifier - 4;
        let scale = ((packed & 0x7ff) ^ 1024) - 1024;
        Some(NumericModifier { precision: ((packed >> 16) & 0xffff) as u16, scale: scale as i16 })
    }

    /// Digits of a second that a `time(p)`, `timestamp(p)`, `timestamptz(p)` or `interval(p)` keeps.
    pub fn time_precision(self) -> Option<u32> {
        let scalar = self.base.element().unwrap_or(self.base);
        match scalar {
            BaseType::Time | BaseType::Timestamp | BaseType::Timestamptz if self.modifier >= 0 => {
                u32::try_from(self.modifier).ok()
            }
            BaseType::Interval if self.modifier >= 0 => {
                let precision = (self.modifier & 0xffff) as u32;
                (precision <= 6).then_some(precision)
            }
            _ => None,
        }
    }

    /// The name of a base type in any of its spellings, lower case, without modifier:
    /// `int`, `int4`, `integer`, `character varying`, `text[]`, `_text`, ...
    pub fn parse_name(name: &str) -> Option<DataType> {
        if let Some(element) = name.strip_suffix("[]") {
            let mut inner = element.trim_end();
            while let Some(shorter) = inner.strip_suffix("[]") {
                inner = shorter.trim_end();
            }
            return DataType::parse_name(inner)?.array();
        }
        if let Some(words) = name.strip_prefix("interval ") {
            let fields = Some(IntervalFields::named(words)?);
            return Some(DataType {
                base: BaseType::Interval,
                modifier: IntervalFields::modifier(fields, None),
            });
        }
        let base = match name {
            "boolean" => BaseType::Bool,
            "int" | "integer" | "serial" | "serial4" => BaseType::Int4,
            "smallint" | "smallserial" | "serial2" => BaseType::Int2,
            "bigint" | "bigserial" | "serial8" => BaseType::Int8,
            "real" => BaseType::Float4,
            "double precision" | "float" => BaseType::Float8,
            "decimal" | "dec" => BaseType::Numeric,
            "character varying" | "char varying" | "national character varying" => BaseType::Varchar,
            "character" | "char" | "nchar" | "national character" => {
                return Some(DataType::bpchar(1));
            }
            "\"char\"" => BaseType::Char,
            "time without time zone" => BaseType::Time,
            "timestamp without time zone" => BaseType::Timestamp,
            "timestamp with time zone" => BaseType::Timestamptz,
            "\"any\"" => BaseType::Any,
            other => return BaseType::from_type_name(other).map(DataType::plain),
        };
        Some(DataType::plain(base))
    }

    /// A type name with an optional modifier, as `regtype` and `format_type` write it, such as
    /// `numeric(9,2)`, `character varying(10)[]` or `timestamp(3) without time zone`.
    pub fn parse(text: &str) -> Option<DataType> {
        DataType::read(text).ok()
    }

    /// As [`DataType::parse`].
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn read(text: &str) -> Result<DataType, TypeNameError> {
        let lower = text.trim().to_ascii_lowercase();
        let collapsed = lower.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = collapsed.strip_prefix("pg_catalog.").unwrap_or(&collapsed);
        let Some(open) = name.find('(') else {
            return DataType::parse_name(name).ok_or(TypeNameError::Unknown);
        };
        let unknown = || TypeNameError::Unknown;
        let part = |range| name.get(range).ok_or_else(unknown);
        let close = open + part(open..name.len())?.find(')').ok_or_else(unknown)?;
        let head = part(0..open)?.trim_end();
        let tail = part(close + 1..name.len())?.trim();
        let (tail, is_array) = match tail.strip_suffix("[]") {
            Some(rest) => (rest.trim_end(), true),
            None => (tail, false),
        };
        let whole = if tail.is_empty() { head.to_owned() } else { format!("{head} {tail}") };
        let base = DataType::parse_name(&whole).ok_or_else(unknown)?;
        let numbers = part(open + 1..close)?
            .split(',')
            .map(|number| number.trim().parse::<i32>().ok())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| TypeNameError::Modifier("invalid type modifier".to_owned()))?;
        let typed = base.with_arguments(&numbers).map_err(TypeNameError::Modifier)?;
        if is_array { typed.array().ok_or_else(unknown) } else { Ok(typed) }
    }

    /// Applies the numbers in parentheses after a type's name.
    ///
    /// # Errors
    /// The text of PostgreSQL's message when the numbers do not fit the type.
    pub fn with_arguments(self, arguments: &[i32]) -> Result<DataType, String> {
        let single = |name: &str, limit: i32| match *arguments {
            [n] if n < 1 => Err(format!("length for type {name} must be at least 1")),
            [n] if n > limit => Err(format!("length for type {name} cannot exceed {limit}")),
            [n] => Ok(n),
            _ => Err("invalid type modifier".to_owned()),
        };
        match self.base {
            BaseType::Varchar => Ok(DataType::varchar(single("varchar", 10_485_760)?)),
            BaseType::Bpchar => Ok(DataType::bpchar(single("char", 10_485_760)?)),
            BaseType::Numeric => {
                let (precision, scale) = match *arguments {
                    [precision] => (precision, 0),
                    [precision, scale] => (precision, scale),
                    _ => return Err("invalid NUMERIC type modifier".to_owned()),
                };
                if !(1..=1000).contains(&precision) {
                    return Err(format!("NUMERIC precision {precision} must be between 1 and 1000"));
                }
                if !(-1000..=1000).contains(&scale) {
                    return Err(format!("NUMERIC scale {scale} must be between -1000 and 1000"));
                }
                Ok(DataType::numeric(precision as u16, scale as i16))
            }
            BaseType::Time | BaseType::Timestamp | BaseType::Timestamptz => match *arguments {
                [n] if n >= 0 => Ok(DataType { base: self.base, modifier: n.min(6) }),
                [n] => Err(format!(
                    "{}({n}){} precision must not be negative",
                    if self.base == BaseType::Time { "TIME" } else { "TIMESTAMP" },
                    if self.base == BaseType::Timestamptz { " WITH TIME ZONE" } else { "" }
                )),
                _ => Err("invalid type modifier".to_owned()),
            },
            BaseType::Interval => match *arguments {
                [n] if n >= 0 => Ok(DataType {
                    base: self.base,
                    modifier: IntervalFields::modifier(
                        IntervalFields::of_modifier(self.modifier),
                        Some(n.min(6)),
                    ),
                }),
                [n] => Err(format!("INTERVAL({n}) precision must not be negative")),
                _ => Err("invalid INTERVAL type modifier".to_owned()),
            },
            BaseType::Float8 => match *arguments {
                [n] if n < 1 => Err("precision for type float must be at least 1 bit".to_owned()),
                [n] if n <= 24 => Ok(DataType::FLOAT4),
                [n] if n <= 53 => Ok(DataType::FLOAT8),
                _ => Err("precision for type float must be less than 54 bits".to_owned()),
            },
            _ => Err(format!("type modifier is not allowed for type \"{}\"", self.base)),
        }
    }
}

/// What is wrong with a written type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeNameError {
    /// No type has this name.
    Unknown,
    /// The type is known, and what stands in parentheses does not fit it: PostgreSQL's message.
    Modifier(String),
}

/// Prints as PostgreSQL's `format_type(oid, typmod)`.
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_array = self.base.category() == Category::Array && self.base.array().is_none();
        let scalar = if is_array { self.base.element().unwrap_or(self.base) } else { self.base };
        match scalar {
            BaseType::Bpchar if self.modifier < 0 => f.write_str("bpchar")?,
            BaseType::Varchar | BaseType::Bpchar if self.modifier >= 4 => {
                write!(f, "{scalar}({})", self.modifier - 4)?;
            }
            BaseType::Numeric => match self.numeric_modifier() {
                Some(m) => write!(f, "numeric({},{})", m.precision, m.scale)?,
                None => f.write_str("numeric")?,
            },
            BaseType::Time | BaseType::Timestamp | BaseType::Timestamptz => match self.time_precision() {
                Some(precision) => {
                    let (head, tail) = scalar.sql_name().split_once(' ').unwrap_or((scalar.sql_name(), ""));
                    write!(f, "{head}({precision}) {tail}")?;
                }
                None => f.write_str(scalar.sql_name())?,
            },
            BaseType::Interval => {
                f.write_str("interval")?;
                if let Some(fields) = IntervalFields::of_modifier(self.modifier) {
                    write!(f, " {}", fields.name())?;
                }
                if let Some(precision) = self.time_precision() {
                    write!(f, "({precision})")?;
                }
            }
            _ => f.write_str(scalar.sql_name())?,
        }
        if is_array { f.write_str("[]") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_modifiers_print_as_format_type_does() {
        let cases = [
            ("int", "integer"),
            ("varchar(10)", "character varying(10)"),
            ("char", "character(1)"),
            ("\"char\"", "\"char\""),
            ("numeric(9,2)", "numeric(9,2)"),
            ("numeric(5,-2)", "numeric(5,-2)"),
            ("timestamp(3)", "timestamp(3) without time zone"),
            ("timestamp(0) with time zone", "timestamp(0) with time zone"),
            ("text[]", "text[]"),
            ("_int4", "integer[]"),
            ("character varying(3)[]", "character varying(3)[]"),
            ("int2vector", "int2vector"),
            ("float(20)", "real"),
            ("pg_catalog.regclass", "regclass"),
            ("interval(2)", "interval(2)"),
            ("interval hour to minute", "interval hour to minute"),
            ("interval second(2)", "interval second(2)"),
            ("interval year[]", "interval year[]"),
        ];
        for (text, expected) in cases {
            let parsed = DataType::parse(text).map(|ty| ty.to_string());
            assert_eq!(parsed.as_deref(), Some(expected), "{text}");
        }
        assert_eq!(DataType::parse("no_such_type"), None);
        assert_eq!(DataType::parse("interval minute to hour"), None);
        // As PostgreSQL stores them.
        assert_eq!(DataType::parse("interval year to month").map(|ty| ty.modifier), Some(458_751));
        assert_eq!(DataType::parse("interval day to second(3)").map(|ty| ty.modifier), Some(470_286_339));
        assert_eq!(DataType::parse("interval(2)").map(|ty| ty.modifier), Some(2_147_418_114));
        let modifier = |text| match DataType::read(text) {
            Err(TypeNameError::Modifier(message)) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(modifier("varchar(0)"), "length for type varchar must be at least 1");
        assert_eq!(modifier("numeric(2000)"), "NUMERIC precision 2000 must be between 1 and 1000");
        assert_eq!(DataType::numeric(9, 2).modifier, 589_830);
    }

    #[test]
    fn arrays_and_elements_agree_with_each_other() {
        for base in BaseType::ALL {
            assert_eq!(BaseType::from_oid(base.oid()), Some(*base));
            assert_eq!(BaseType::from_type_name(base.type_name()), Some(*base));
            if let Some(array) = base.array() {
                assert_eq!(array.element(), Some(*base), "{base}");
            }
        }
    }
}
