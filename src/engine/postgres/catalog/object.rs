//! One thing in a schema that SQL can make.

use serde::{Deserialize, Serialize};

/// Where something stands in the catalogs: the catalog's oid, the row's, and for a column its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The oid of the catalog (`'pg_class'::regclass`).
    pub catalog: u32,
    /// The oid of the row.
    pub oid: u32,
    /// The column's number, or 0.
    pub column: i32,
}

/// The kinds of things, in the order in which they are made where nothing else decides.
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
    LargeObject,
    SequenceOwner,
    // From here on: after the data.
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
    EventTrigger,
    Refresh,
    DefaultPrivileges,
    DatabaseSetting,
}

/// Whether something is made before the rows are loaded or after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Before: what rows need to be there.
    #[default]
    Pre,
    /// After: what is faster or safer to make once they are there.
    Post,
}

/// One thing, the SQL that makes it, and what must be there before.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where it stands in the source's catalogs.
    pub address: Address,
    /// What it is.
    pub kind: Kind,
    /// The schema it is in, where it is in one.
    pub schema: Option<String>,
    /// Its name, unquoted; a function's with its argument types.
    pub name: String,
    /// How statements name it, qualified and quoted: `FUNCTION public.f(integer)`; empty where none may.
    pub identity: String,
    /// Before or after the rows.
    pub section: Section,
    /// The statements that make it, in order, each without its semicolon.
    pub create: Vec<String>,
    /// The role that owns it.
    pub owner: Option<String>,
    /// The statements that set its owner; left out by `--no-owner`.
    pub set_owner: Vec<String>,
    /// The statements that grant and revoke; left out by `--no-owner`.
    pub grants: Vec<String>,
    /// The roles that `create`, `set_owner` and `grants` name.
    pub roles: Vec<String>,
    /// What must be there before, as pg_depend has it and beyond.
    pub needs: Vec<Address>,
    /// The table that it belongs to (an index, a trigger, a default ...), for selections and for running
    /// statements side by side.
    pub table: Option<Address>,
    /// Where a cycle runs through it: statements that make a first form which needs only `stub_needs`, and
    /// after which `create_after_stub` makes the rest.
    pub stub: Option<Stub>,
}

/// How to make something in two steps.
#[derive(Clone, Debug, Default)]
pub struct Stub {
    /// Makes the first form.
    pub create: Vec<String>,
    /// What the first form needs.
    pub needs: Vec<Address>,
    /// Makes the rest of it, in place of [`Object::create`].
    pub complete: Vec<String>,
}

impl Object {
    /// A thing that needs nothing and is made before the rows.
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
            grants: Vec::new(),
            roles: Vec::new(),
            needs: Vec::new(),
            table: None,
            stub: None,
        }
    }
}
