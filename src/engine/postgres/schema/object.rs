//! One object in a schema that SQL can create.

use serde::{Deserialize, Serialize};

use crate::engine::postgres::schema::quote;

/// The place of an object in the catalogs: the catalog's oid, the row's oid, and for a column its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The oid of the catalog (`'pg_class'::regclass`).
    pub catalog: u32,
    /// The oid of the row.
    pub oid: u32,
    /// The column's number, or 0.
    pub column: i32,
}

impl Address {
    /// Returns the address of a row.
    #[must_use]
    pub fn new(catalog: u32, oid: u32) -> Self {
        Address { catalog, oid, column: 0 }
    }

    /// Returns the same address without the column.
    #[must_use]
    pub fn without_column(self) -> Self {
        Address { column: 0, ..self }
    }
}

/// The oids of the catalogs; they are the same in every database of every version.
#[expect(missing_docs, reason = "the names are PostgreSQL's")]
pub mod catalogs {
    pub const TYPE: u32 = 1247;
    pub const PROC: u32 = 1255;
    pub const CLASS: u32 = 1259;
    pub const AUTHID: u32 = 1260;
    pub const DATABASE: u32 = 1262;
    pub const FOREIGN_SERVER: u32 = 1417;
    pub const USER_MAPPING: u32 = 1418;
    pub const FOREIGN_DATA_WRAPPER: u32 = 2328;
    pub const AM: u32 = 2601;
    pub const AMOP: u32 = 2602;
    pub const AMPROC: u32 = 2603;
    pub const ATTRDEF: u32 = 2604;
    pub const CAST: u32 = 2605;
    pub const CONSTRAINT: u32 = 2606;
    pub const CONVERSION: u32 = 2607;
    pub const INHERITS: u32 = 2611;
    pub const LANGUAGE: u32 = 2612;
    pub const LARGE_OBJECT: u32 = 2613;
    pub const NAMESPACE: u32 = 2615;
    pub const OPCLASS: u32 = 2616;
    pub const OPERATOR: u32 = 2617;
    pub const REWRITE: u32 = 2618;
    pub const TRIGGER: u32 = 2620;
    pub const OPFAMILY: u32 = 2753;
    pub const EXTENSION: u32 = 3079;
    pub const POLICY: u32 = 3256;
    pub const STATISTIC_EXT: u32 = 3381;
    pub const COLLATION: u32 = 3456;
    pub const EVENT_TRIGGER: u32 = 3466;
    pub const TRANSFORM: u32 = 3576;
    pub const TS_DICT: u32 = 3600;
    pub const TS_PARSER: u32 = 3601;
    pub const TS_CONFIG: u32 = 3602;
    pub const TS_TEMPLATE: u32 = 3764;
    pub const SUBSCRIPTION: u32 = 6100;
    pub const PUBLICATION: u32 = 6104;
    pub const PUBLICATION_REL: u32 = 6106;
    pub const PUBLICATION_NAMESPACE: u32 = 6237;
    pub const DEFAULT_ACL: u32 = 826;
}

/// The kinds of objects, in the order in which they are created if no dependency or section decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are PostgreSQL's")]
pub enum Kind {
    Database,
    Schema,
    Language,
    Extension,
    Collation,
    ShellType,
    Type,
    Domain,
    Cast,
    Function,
    Procedure,
    Aggregate,
    AccessMethod,
    Operator,
    OperatorFamily,
    OperatorClass,
    Conversion,
    TextSearchParser,
    TextSearchTemplate,
    TextSearchDictionary,
    TextSearchConfiguration,
    Transform,
    ForeignDataWrapper,
    ForeignServer,
    UserMapping,
    Table,
    ForeignTable,
    Sequence,
    View,
    MaterializedView,
    Default,
    AttachPartition,
    Hypertable,
    LargeObject,
    SequenceOwner,
    // The kinds from here on are created after the data is loaded.
    Check,
    Constraint,
    Index,
    IndexAttach,
    Statistics,
    Rule,
    Trigger,
    ForeignKey,
    Policy,
    RowSecurity,
    Publication,
    PublicationTable,
    Subscription,
    CompressionSettings,
    ContinuousAggregate,
    AggregateIndex,
    // The kinds from here on are created after everything else.
    AggregateRows,
    Refresh,
    CompressedChunks,
    DefaultPrivileges,
    SystemPrivileges,
    DatabaseSetting,
    // A job may run as soon as it is created.
    Job,
    // An event trigger fires for the statements after it.
    EventTrigger,
}

impl Kind {
    /// Returns true for properties of the database itself, as opposed to objects in it.
    #[must_use]
    pub fn is_of_database(self) -> bool {
        matches!(self, Kind::Database | Kind::DatabaseSetting)
    }

    /// Returns the kind in words: `materialized view`.
    #[must_use]
    pub fn words(self) -> String {
        let mut words = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !words.is_empty() {
                words.push(' ');
            }
            words.push(letter.to_ascii_lowercase());
        }
        words
    }
}

/// The part of a restore in which an object is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Before the rows are loaded: everything that rows depend on.
    #[default]
    Pre,
    /// After the rows are loaded: everything that is then faster or safer to create.
    Post,
    /// After all objects and grants: everything that acts on or reacts to the creation of other objects (refreshes,
    /// event triggers, default privileges, settings of the database).
    Last,
}

/// One object as it is read: the SQL that creates it, and its dependencies.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its address in the source's catalogs.
    pub address: Address,
    /// The kind of object.
    pub kind: Kind,
    /// The schema that it is in, if it is in one.
    pub schema: Option<String>,
    /// Its name, unquoted. The name of a function includes its argument types.
    pub name: String,
    /// Its name in `COMMENT ON`, `SECURITY LABEL ON` and `ALTER`, qualified and quoted: `FUNCTION public.f(integer)`.
    /// Empty if these statements cannot be used for it.
    pub identity: String,
    /// Before or after the rows.
    pub section: Section,
    /// The statements that create it, in order, each without its semicolon.
    pub create: Vec<String>,
    /// The role that owns it.
    pub owner: Option<String>,
    /// The statements that set its owner; left out by `--no-owner`.
    pub set_owner: Vec<String>,
    /// Comments and security labels, including those of its parts. They are run after `create`.
    pub comments: Vec<String>,
    /// The statements that grant and revoke; left out by `--no-owner`.
    pub grants: Vec<String>,
    /// The roles that `create`, `set_owner` and `grants` name.
    pub roles: Vec<String>,
    /// The objects that must be created before it, in addition to those that pg_depend records.
    pub needs: Vec<Address>,
    /// The objects that pg_depend records as dependencies, but that need not be created before it.
    pub needs_not: Vec<Address>,
    /// The table that it belongs to (for example of an index, a trigger or a default). It is used for selections and
    /// for running statements in parallel.
    pub table: Option<Address>,
    /// The tablespace that it is stored in, if that is not the database's own.
    pub tablespace: Option<String>,
    /// Set if the object can be created in two steps, to break a cycle of dependencies.
    pub stub: Option<Stub>,
}

/// The statements that create an object in two steps. They are used only to break a cycle of dependencies.
#[derive(Clone, Debug, Default)]
pub struct Stub {
    /// Creates the first form. The owner is set right after it.
    pub create: Vec<String>,
    /// The dependencies of the first form. The schema is added to them, but nothing that pg_depend records.
    pub needs: Vec<Address>,
    /// Creates the rest of the object, in place of [`Object::create`].
    pub complete: Vec<String>,
}

impl Object {
    /// Returns an object that depends on nothing and is created before the rows are loaded.
    #[must_use]
    pub fn new(address: Address, kind: Kind, schema: Option<&str>, name: &str) -> Self {
        Object {
            address,
            kind,
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
            identity: String::new(),
            section: Section::Pre,
            create: Vec::new(),
            owner: None,
            set_owner: Vec::new(),
            comments: Vec::new(),
            grants: Vec::new(),
            roles: Vec::new(),
            needs: Vec::new(),
            needs_not: Vec::new(),
            table: None,
            tablespace: None,
            stub: None,
        }
    }

    /// Returns the same object with `section`.
    #[must_use]
    pub fn at(mut self, section: Section) -> Self {
        self.section = section;
        self
    }

    /// Sets the owner and the statement for it. `identity` must be set before.
    pub fn own(&mut self, owner: &str) {
        self.set_owner = vec![format!("ALTER {} OWNER TO {}", self.identity, quote::ident(owner))];
        self.owner = Some(owner.to_owned());
        self.role(owner);
    }

    /// Records that one of the statements names a role. `PUBLIC`, as the empty name, is ignored.
    pub fn role(&mut self, name: &str) {
        if !name.is_empty() && !self.roles.iter().any(|known| known == name) {
            self.roles.push(name.to_owned());
        }
    }
}

/// One step in creating a schema: an entry of an archive's `schema/objects.json`, which lists the steps in an order in
/// which they can be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its place in the list.
    pub id: usize,
    /// The oid that it had in the source's catalogs.
    pub oid: u32,
    /// The kind of object.
    pub kind: Kind,
    /// The schema that it is in, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Its name, unquoted. The name of a function includes its argument types.
    pub name: String,
    /// Its name in `COMMENT ON`, qualified and quoted. Empty if `COMMENT ON` cannot be used for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Before the rows, after them, or at the very end.
    pub section: Section,
    /// True if this creates only a first form, which a later item of the same kind and name completes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first_form: bool,
    /// The statements that create it, in order, each without its semicolon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create: Vec<String>,
    /// The role that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The statements that set its owner, run right after it is created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_owner: Vec<String>,
    /// Comments and security labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comments: Vec<String>,
    /// The statements that grant and revoke: run after all `Post` items are created, before the `Last` ones. `SET ROLE`
    /// and `RESET ROLE` enclose the statements for privileges that another role than the owner granted, so they must be
    /// run in order on one connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// The roles that the statements name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The items that must be created before it. All of them are earlier in the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<usize>,
    /// The table that it belongs to, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<usize>,
    /// The tablespace that it is stored in, if that is not the database's own. The statements do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<String>,
    /// True if it belongs to the provider of the server, and others use it: where it is missing, a stand-in is created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provided: bool,
    /// Of a foreign key, the schema of the provider that it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refers_to: Option<String>,
    /// True if the database that is restored to has it already, so that nothing but its privileges may be set.
    #[serde(skip)]
    pub exists: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_reads_back_as_it_was_written() {
        let item = Item {
            id: 3,
            oid: 16400,
            kind: Kind::MaterializedView,
            schema: Some("s".into()),
            name: "m".into(),
            identity: "MATERIALIZED VIEW s.m".into(),
            section: Section::Pre,
            first_form: false,
            create: vec!["CREATE MATERIALIZED VIEW s.m AS SELECT 1 WITH NO DATA".into()],
            owner: Some("o".into()),
            set_owner: Vec::new(),
            comments: Vec::new(),
            grants: Vec::new(),
            roles: vec!["o".into()],
            needs: vec![1, 2],
            table: None,
            tablespace: None,
            provided: false,
            refers_to: None,
            exists: false,
        };
        let json = serde_json::to_string(&item).expect("an item is JSON");
        assert!(json.contains("\"kind\":\"materialized_view\",\"schema\":\"s\""), "{json}");
        assert_eq!(serde_json::from_str::<Item>(&json).expect("the same item"), item);
        assert_eq!(Kind::TextSearchParser.words(), "text search parser");
    }
}
