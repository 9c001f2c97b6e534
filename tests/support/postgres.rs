//! The PostgreSQL servers that `scripts/servers` started, new databases on them, and PostgreSQL's own programs, with
//! which Lifeboat's results are compared.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// A running server, and the programs for its version.
#[derive(Clone, Debug)]
pub struct Server {
    pub major: u32,
    /// The version that the server reports, such as `15.18`.
    pub version: String,
    pub port: u16,
    /// The folder of the Unix socket, over which no password is needed.
    pub socket_dir: PathBuf,
    pub user: String,
    pub password: String,
    /// The certificate of the authority that signed the server's certificate, which is for `localhost` and `127.0.0.1`.
    pub ca: PathBuf,
    /// The folder of `postgres`, `initdb` and `pg_ctl`, which must run as the owner of `data` with `library_path` as
    /// `LD_LIBRARY_PATH`.
    pub bin: PathBuf,
    pub library_path: Option<PathBuf>,
    pub data: PathBuf,
    pub log: PathBuf,
    /// The pg_dump of this server's version or of a later one.
    pub pg_dump: PathBuf,
    pub psql: PathBuf,
}

/// Returns all running servers, the oldest version first.
#[track_caller]
pub fn servers() -> Vec<Server> {
    static SERVERS: OnceLock<Result<Vec<Server>, String>> = OnceLock::new();
    match SERVERS.get_or_init(read_servers) {
        Ok(servers) => servers.clone(),
        Err(error) => panic!(
            "{error}: this test needs PostgreSQL servers; run 'scripts/test', or \
             'scripts/servers run -- cargo test ...'"
        ),
    }
}

/// Returns the server of a major version.
#[track_caller]
pub fn server(major: u32) -> Server {
    servers()
        .into_iter()
        .find(|server| server.major == major)
        .unwrap_or_else(|| panic!("PostgreSQL {major} was not started: run 'scripts/servers run {major} -- ...'"))
}

/// Runs a check on every server. Fails at the end with the servers on which it failed.
#[track_caller]
pub fn each_server(check: impl Fn(&Server)) {
    let mut failed = Vec::new();
    for server in servers() {
        eprintln!("-- PostgreSQL {}", server.version);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&server))) {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message =
                message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
            failed.push(format!("PostgreSQL {}: {message}", server.version));
        }
    }
    assert!(failed.is_empty(), "failed on {} of {} servers\n{}", failed.len(), servers().len(), failed.join("\n"));
}

/// Runs a check on the oldest and the newest server.
#[track_caller]
pub fn oldest_and_newest(check: impl Fn(&Server)) {
    let servers = servers();
    check(&servers[0]);
    if servers.len() > 1 {
        check(&servers[servers.len() - 1]);
    }
}

/// Runs a check on one server, for behaviour that does not depend on the version. The name of the test selects the
/// server, so that the tests together use all servers, and each test always uses the same one.
#[track_caller]
pub fn some_server(check: impl Fn(&Server)) {
    let sum: usize = super::test_name().bytes().map(usize::from).sum();
    let servers = servers();
    let server = &servers[sum % servers.len()];
    eprintln!("-- PostgreSQL {}", server.version);
    check(server);
}

fn read_servers() -> Result<Vec<Server>, String> {
    let folder = std::env::var_os("LIFEBOAT_TEST_SERVERS").ok_or("LIFEBOAT_TEST_SERVERS is not set")?;
    read_servers_in(&PathBuf::from(folder))
}

fn read_servers_in(folder: &Path) -> Result<Vec<Server>, String> {
    let path = folder.join("servers.json");
    let text = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let document: Value = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let servers: Option<Vec<Server>> = document.as_array().into_iter().flatten().map(read_server).collect();
    servers.ok_or_else(|| format!("{} does not have the current form of 'scripts/servers'", path.display()))
}

fn read_server(entry: &Value) -> Option<Server> {
    let text = |name: &str| Some(entry[name].as_str()?.to_owned());
    let path = |name: &str| text(name).map(PathBuf::from);
    Some(Server {
        major: u32::try_from(entry["major"].as_u64()?).ok()?,
        version: text("version")?,
        port: u16::try_from(entry["port"].as_u64()?).ok()?,
        socket_dir: path("socket_dir")?,
        user: text("user")?,
        password: text("password")?,
        ca: path("ca")?,
        bin: path("bin")?,
        library_path: path("library_path"),
        data: path("data")?,
        log: path("log")?,
        pg_dump: path("pg_dump")?,
        psql: path("psql")?,
    })
}

impl Server {
    /// Returns the URL over TCP, with the password. A caller may append `?sslmode=...`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{}:{}@127.0.0.1:{}/{}", self.user, self.password, self.port, percent_encode(database))
    }

    /// Returns the URL over the Unix socket, which needs no password.
    pub fn socket_url(&self, database: &str) -> String {
        let folder = percent_encode(self.socket_dir.to_str().unwrap());
        format!("postgres://{}@{folder}:{}/{}", self.user, self.port, percent_encode(database))
    }

    /// Creates an empty database, which is dropped with the returned value. `name` becomes part of its name.
    #[track_caller]
    pub fn create_database(&self, name: &str) -> TestDatabase {
        self.create_database_with(name, "")
    }

    /// Creates an empty database with options for CREATE DATABASE, such as `ENCODING 'LATIN1' LOCALE 'C'`.
    #[track_caller]
    pub fn create_database_with(&self, name: &str, options: &str) -> TestDatabase {
        let database = TestDatabase { server: self.clone(), name: self.database_name(name) };
        self.psql("postgres", format!("CREATE DATABASE \"{}\" TEMPLATE template0 {options}", database.name));
        database
    }

    /// Returns a database that does not exist yet, for programs that create it. It is dropped with the returned value.
    pub fn reserve_database(&self, name: &str) -> TestDatabase {
        TestDatabase { server: self.clone(), name: self.database_name(name) }
    }

    /// Returns a name that no other thread and no other test program uses on the server.
    fn database_name(&self, name: &str) -> String {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        format!("{}_{}_{number}", &name[..name.len().min(40)], std::process::id())
    }

    /// Returns a command that runs one of PostgreSQL's programs on a database, without the outer environment.
    pub fn command(&self, program: &PathBuf, database: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PGCLIENTENCODING", "UTF8")
            .arg("-d")
            .arg(self.socket_url(database));
        command
    }

    /// Runs a script with psql, which stops at the first error, and returns its output.
    #[track_caller]
    pub fn psql(&self, database: &str, script: impl AsRef<[u8]>) -> String {
        self.psql_with(database, &[], script)
    }

    /// Returns the rows of a query, each value as text. NULL is `\N`.
    #[track_caller]
    pub fn query(&self, database: &str, query: &str) -> Vec<Vec<String>> {
        let arguments = ["-At", "-F", "\x1f", "-R", "\x1e", "-P", "null=\\N"];
        let output = self.psql_with(database, &arguments, query);
        if output.is_empty() {
            return Vec::new();
        }
        let rows = output.strip_suffix('\n').unwrap_or(&output).split('\x1e');
        rows.map(|row| row.split('\x1f').map(str::to_owned).collect()).collect()
    }

    /// Returns the single value of a query.
    #[track_caller]
    pub fn value(&self, database: &str, query: &str) -> String {
        let mut rows = self.query(database, query);
        assert!(rows.len() == 1 && rows[0].len() == 1, "not one value: {rows:?}\n{query}");
        rows.remove(0).remove(0)
    }

    #[track_caller]
    fn psql_with(&self, database: &str, arguments: &[&str], script: impl AsRef<[u8]>) -> String {
        let script = script.as_ref();
        let mut command = self.command(&self.psql, database);
        // PGOPTIONS takes effect at the start of the session. A SET statement would be subject to the statement_timeout
        // that a test may have set for its database.
        command.env("PGOPTIONS", "-c statement_timeout=0");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).args(arguments).arg("-f").arg("-");
        let output = run_with_input(&mut command, script);
        let beginning = String::from_utf8_lossy(&script[..script.len().min(2000)]).into_owned();
        self.require_success(&command, output, &format!("-- script\n{beginning}\n"))
    }

    /// Runs pg_dump and returns its output.
    #[track_caller]
    pub fn pg_dump(&self, database: &str, arguments: &[&str]) -> String {
        let mut command = self.command(&self.pg_dump, database);
        command.args(arguments);
        let output = run_with_input(&mut command, &[]);
        self.require_success(&command, output, "")
    }

    /// Returns the definitions as pg_dump prints them, without lines that differ between runs or versions, and without
    /// the setting of a later pg_dump that an older server does not know. psql can load the result.
    #[track_caller]
    pub fn schema_dump(&self, database: &str) -> String {
        let varying =
            ["\\restrict ", "\\unrestrict ", "-- Dumped from ", "-- Dumped by ", "SET transaction_timeout = "];
        let dump = self.pg_dump(database, &["--schema-only"]);
        let lines = dump.lines().filter(|line| !varying.iter().any(|start| line.starts_with(start)));
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    #[track_caller]
    fn require_success(&self, command: &Command, output: Output, input: &str) -> String {
        assert!(
            output.status.success(),
            "PostgreSQL {}, {command:?}\n{}\n-- stdout\n{}-- stderr\n{}{input}",
            self.version,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A server for one test, which can kill and restart it. The server is stopped and removed when it is dropped.
pub struct PrivateServer {
    server: Server,
    folder: PathBuf,
}

impl Deref for PrivateServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl PrivateServer {
    #[track_caller]
    pub fn start(major: u32) -> Self {
        let mut command = Command::new(Self::script());
        command.args(["start", &major.to_string()]).env_remove("LIFEBOAT_TEST_SERVERS");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
        let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
        let server = read_servers_in(&folder).unwrap().remove(0);
        PrivateServer { server, folder }
    }

    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers")
    }

    /// Stops the server with `pg_ctl stop -m immediate`: it closes the connections without a message and recovers at
    /// the next start.
    #[track_caller]
    pub fn kill(&self) {
        self.pg_ctl(&["stop", "--mode=immediate"]);
    }

    #[track_caller]
    pub fn start_again(&self) {
        self.pg_ctl(&["start", "--timeout=60", &format!("--log={}", self.log.display())]);
    }

    /// Adds lines to the configuration, and restarts the server.
    #[track_caller]
    pub fn configure(&self, lines: &str) {
        let path = self.data.join("lifeboat.conf");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{lines}\n")).unwrap();
        self.pg_ctl(&["stop", "--mode=fast"]);
        self.start_again();
    }

    /// Restarts the server as a standby without a primary, so that it remains in recovery and is read-only.
    #[track_caller]
    pub fn become_standby(&self) {
        let signal = self.data.join("standby.signal");
        std::fs::write(&signal, "").unwrap();
        let owner = std::fs::metadata(&self.data).unwrap();
        std::os::unix::fs::chown(&signal, Some(owner.uid()), Some(owner.gid())).unwrap();
        self.pg_ctl(&["stop", "--mode=fast"]);
        self.start_again();
    }

    /// Ends the recovery of a standby.
    #[track_caller]
    pub fn become_primary(&self) {
        self.pg_ctl(&["promote"]);
    }

    /// Runs `pg_ctl` as the owner of the data, in the server's folder, where `scripts/servers stop` looks for
    /// processes.
    #[track_caller]
    fn pg_ctl(&self, arguments: &[&str]) {
        let owner = std::fs::metadata(&self.data).unwrap();
        let mut command = Command::new("env");
        if rustix::process::geteuid().is_root() {
            command = Command::new("setpriv");
            command.args([&format!("--reuid={}", owner.uid()), &format!("--regid={}", owner.gid()), "--clear-groups"]);
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        if let Some(path) = &self.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        command.arg(self.bin.join("pg_ctl")).args(arguments).args(["--silent", "--wait", "--pgdata"]).arg(&self.data);
        command.current_dir(self.data.parent().unwrap()).stdin(Stdio::null());
        // The output goes to a file, because the server would inherit a pipe and keep it open.
        let log = self.data.with_file_name("pg_ctl.again");
        let file = std::fs::File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        assert!(status.success(), "{command:?}\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let stopped = Command::new(Self::script()).arg("stop").arg(&self.folder).output();
        if !stopped.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("cannot stop the servers in {}: {stopped:?}", self.folder.display());
        }
    }
}

/// Runs a command with input on its stdin, and reads its output at the same time.
fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The command may end before it has read everything. The caller checks the exit code.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

fn percent_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A database for one test. It is dropped at the end, even if clients are still connected.
#[derive(Debug)]
pub struct TestDatabase {
    pub server: Server,
    pub name: String,
}

impl TestDatabase {
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn socket_url(&self) -> String {
        self.server.socket_url(&self.name)
    }

    #[track_caller]
    pub fn psql(&self, script: impl AsRef<[u8]>) -> String {
        self.server.psql(&self.name, script)
    }

    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Vec<String>> {
        self.server.query(&self.name, query)
    }

    #[track_caller]
    pub fn value(&self, query: &str) -> String {
        self.server.value(&self.name, query)
    }

    #[track_caller]
    pub fn pg_dump(&self, arguments: &[&str]) -> String {
        self.server.pg_dump(&self.name, arguments)
    }

    #[track_caller]
    pub fn schema_dump(&self) -> String {
        self.server.schema_dump(&self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A database with subscriptions cannot be dropped, and dropping a subscription with a slot contacts the
        // publisher.
        let subscriptions = "SET default_transaction_read_only = off;
            SELECT format(step, subname) FROM pg_subscription JOIN pg_database d ON d.oid = subdbid,
                   unnest(ARRAY['ALTER SUBSCRIPTION %I DISABLE', 'ALTER SUBSCRIPTION %I SET (slot_name = NONE)',
                                'DROP SUBSCRIPTION %I']) WITH ORDINALITY AS steps (step, place)
             WHERE datname = current_database() ORDER BY subname, place \\gexec\n";
        run_with_input(
            self.server.command(&self.server.psql, &self.name).args(["-X", "-q", "-f", "-"]),
            subscriptions.as_bytes(),
        );
        let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
        let mut command = self.server.command(&self.server.psql, "postgres");
        let output = run_with_input(command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]), drop.as_bytes());
        if !output.status.success() {
            let problem = format!("cannot drop {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
            // A panic during a panic would hide the first message.
            if std::thread::panicking() { eprintln!("{problem}") } else { panic!("{problem}") }
        }
    }
}

/// A role, which is dropped at the end of the test. It must be declared before the databases that have objects of it.
pub struct TestRole {
    name: String,
    server: Server,
}

impl TestRole {
    /// Creates a role whose name no other test uses, with these options of CREATE ROLE.
    pub fn create(server: &Server, name: &str, options: &str) -> Self {
        let name = format!("{name}_{}", std::process::id());
        server.psql("postgres", format!("DROP ROLE IF EXISTS {name}; CREATE ROLE {name} {options}"));
        TestRole { name, server: server.clone() }
    }
}

impl std::ops::Deref for TestRole {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Display for TestRole {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Drop for TestRole {
    fn drop(&mut self) {
        // The databases of a failed test may still have objects of it.
        if !std::thread::panicking() {
            self.server.psql("postgres", format!("DROP ROLE {}", self.name));
        }
    }
}

/// Fills a database with Zabbix's tables and rows, which `scripts/test` fetched.
#[track_caller]
pub fn load_zabbix(server: &Server, database: &str) {
    for name in ["schema", "images", "data"] {
        let file = std::fs::File::open(super::real_database(&format!("zabbix/{name}.sql.gz"))).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        // The file has 130,000 INSERTs, one in a line. psql sends those that end in `\;` together, which halves the
        // time.
        let mut script = String::with_capacity(text.len() + text.len() / 64);
        // `lines` would remove the carriage returns inside strings.
        for (number, line) in text.split('\n').enumerate() {
            // With an odd number of quotes, a string continues in the next line, and the statement does not end here.
            let is_complete =
                line.starts_with("INSERT INTO ") && line.ends_with(");") && line.matches('\'').count() % 2 == 0;
            let is_joined = is_complete && number % 200 != 0;
            script += if is_joined { line.trim_end_matches(';') } else { line };
            script += if is_joined { "\\;\n" } else { "\n" };
        }
        server.psql(database, script + ";\n");
    }
}

/// Creates a database for one test with Zabbix's tables and rows. They are loaded once per server, which takes some
/// seconds, and copied for each test.
#[track_caller]
pub fn zabbix_database(server: &Server, name: &str) -> TestDatabase {
    let path = server.socket_dir.with_file_name(format!("zabbix-{}.lock", server.major));
    let lock = std::fs::File::create(path).unwrap();
    lock.lock().unwrap();
    if server.query("postgres", "SELECT 1 FROM pg_database WHERE datname = 'zabbix_loaded'").is_empty() {
        // The database gets its final name when it is complete, so that a killed test does not leave an incomplete one.
        server.psql("postgres", "DROP DATABASE IF EXISTS zabbix_loading");
        server.psql("postgres", "CREATE DATABASE zabbix_loading TEMPLATE template0");
        load_zabbix(server, "zabbix_loading");
        server.psql("postgres", "ALTER DATABASE zabbix_loading RENAME TO zabbix_loaded");
    }
    let database = server.reserve_database(name);
    server.psql("postgres", format!("CREATE DATABASE \"{}\" TEMPLATE zabbix_loaded", database.name));
    database
}

/// The differences between two schema dumps, by kind of object.
#[derive(Debug, Default)]
pub struct SchemaDifferences {
    /// The differences by the type that pg_dump prints: `TABLE`, `INDEX`, `FK CONSTRAINT`, ...
    pub kinds: BTreeMap<String, KindDifferences>,
    report: String,
}

/// The numbers of differences in objects of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KindDifferences {
    /// Lines that only one of the dumps has. A line that changed counts twice, as in `diff`.
    pub lines: usize,
    /// Objects that only the first dump has. Their lines are counted too.
    pub missing: usize,
    /// Objects that only the second dump has. Their lines are counted too.
    pub extra: usize,
    /// Objects that both dumps have, in another order.
    pub moved: usize,
}

impl SchemaDifferences {
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Returns the number of lines that differ and of objects that moved.
    pub fn total(&self) -> usize {
        self.kinds.values().map(|kind| kind.lines + kind.moved).sum()
    }

    #[track_caller]
    pub fn assert_none(&self) {
        assert!(self.is_empty(), "the schemas differ\n{self}");
    }
}

impl fmt::Display for SchemaDifferences {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, KindDifferences { lines, missing, extra, moved }) in &self.kinds {
            writeln!(formatter, "{kind}: {lines} lines ({missing} missing, {extra} extra), {moved} moved")?;
        }
        formatter.write_str(&self.report)
    }
}

/// One object of a dump, from its heading to the next heading.
struct Block {
    /// Type, schema and name, and a number that distinguishes objects with the same ones.
    key: (String, String, String, usize),
    lines: Vec<String>,
}

/// Compares two results of `schema_dump`: the expected one and the one that was found.
pub fn schema_differences(expected: &str, found: &str) -> SchemaDifferences {
    let (expected, found) = (blocks(expected), blocks(found));
    let places: HashMap<_, _> = found.iter().enumerate().map(|(place, block)| (&block.key, place)).collect();
    let mut differences = SchemaDifferences::default();
    let mut common = Vec::new();
    for block in &expected {
        let Some(&place) = places.get(&block.key) else {
            differences.note(block, "missing", block.lines.len(), |kind| kind.missing += 1);
            differences.show("-", &block.lines);
            continue;
        };
        common.push((block, place));
        let kept = longest_common(&block.lines, &found[place].lines);
        let removed: Vec<_> = lines_except(&block.lines, kept.iter().map(|pair| pair.0));
        let added: Vec<_> = lines_except(&found[place].lines, kept.iter().map(|pair| pair.1));
        if removed.len() + added.len() > 0 {
            differences.note(block, "differs", removed.len() + added.len(), |_| ());
            differences.show("-", &removed);
            differences.show("+", &added);
        }
    }
    let known: HashMap<_, _> = expected.iter().map(|block| (&block.key, ())).collect();
    for block in found.iter().filter(|block| !known.contains_key(&block.key)) {
        differences.note(block, "extra", block.lines.len(), |kind| kind.extra += 1);
        differences.show("+", &block.lines);
    }
    let places: Vec<usize> = common.iter().map(|(_, place)| *place).collect();
    let in_order = longest_increasing(&places);
    for (block, _) in common.iter().filter(|(_, place)| in_order.binary_search(place).is_err()) {
        differences.note(block, "moved", 0, |kind| kind.moved += 1);
    }
    differences
}

impl SchemaDifferences {
    /// Counts a difference and adds a line to the report.
    fn note(&mut self, block: &Block, change: &str, lines: usize, count: impl FnOnce(&mut KindDifferences)) {
        let (kind, schema, name, _) = &block.key;
        let entry = self.kinds.entry(kind.clone()).or_default();
        entry.lines += lines;
        count(entry);
        self.report += &format!("{change}: {kind} {schema}.{name}\n");
    }

    /// Adds lines of the dumps to the report.
    fn show(&mut self, sign: &str, lines: &[impl AsRef<str>]) {
        for line in lines {
            self.report += &format!("  {sign} {}\n", line.as_ref());
        }
    }
}

/// Splits a dump into its objects. Blank lines at the end of an object are not part of it.
fn blocks(dump: &str) -> Vec<Block> {
    let mut blocks = vec![Block { key: ("preamble".into(), String::new(), String::new(), 0), lines: Vec::new() }];
    let mut seen: HashMap<(String, String, String), usize> = HashMap::new();
    // pg_dump prints such a setting once, before the first object that needs it. Here every object gets its settings.
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    for line in dump.lines() {
        if let Some((kind, schema, name)) = heading(line) {
            let number = seen.entry((kind.clone(), schema.clone(), name.clone())).or_default();
            let key = (kind, schema, name, *number);
            *number += 1;
            blocks.push(Block { key, lines: settings.values().cloned().chain([line.to_owned()]).collect() });
        } else if let Some(setting) = line.strip_prefix("SET default_table") {
            let name = setting.split(' ').next().unwrap().to_owned();
            let is_default = line.ends_with(" = '';") || line.ends_with(" = heap;");
            if is_default {
                settings.remove(&name)
            } else {
                settings.insert(name, line.to_owned())
            };
        } else if line != "--" {
            blocks.last_mut().unwrap().lines.push(line.to_owned());
        }
    }
    for block in &mut blocks {
        while block.lines.last().is_some_and(|line| line.is_empty() || line == "-- PostgreSQL database dump complete") {
            block.lines.pop();
        }
    }
    blocks
}

/// Returns type, schema and name from `-- Name: accounts; Type: TABLE; Schema: public; Owner: postgres`.
fn heading(line: &str) -> Option<(String, String, String)> {
    let (name, rest) = line.strip_prefix("-- Name: ")?.rsplit_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    let (schema, _) = rest.split_once("; Owner: ")?;
    Some((kind.to_owned(), schema.to_owned(), name.to_owned()))
}

/// Returns pairs of places of the lines that a diff would keep.
fn longest_common(left: &[String], right: &[String]) -> Vec<(usize, usize)> {
    let mut lengths = vec![vec![0u32; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            lengths[i][j] =
                if left[i] == right[j] { lengths[i + 1][j + 1] + 1 } else { lengths[i + 1][j].max(lengths[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < left.len() && j < right.len() {
        if left[i] == right[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// Returns the lines that are not at the `kept` places.
fn lines_except(lines: &[String], kept: impl Iterator<Item = usize>) -> Vec<&String> {
    let kept: Vec<usize> = kept.collect();
    lines.iter().enumerate().filter(|(place, _)| kept.binary_search(place).is_err()).map(|(_, line)| line).collect()
}

/// Returns the longest increasing subsequence: the places of the objects that need not move.
fn longest_increasing(numbers: &[usize]) -> Vec<usize> {
    // For each length, the place of the smallest number that ends an increasing subsequence of that length.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; numbers.len()];
    for (place, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|&end| numbers[end] < *number);
        before[place] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() { ends.push(place) } else { ends[length] = place }
    }
    let mut sequence = Vec::new();
    let mut place = ends.last().copied();
    while let Some(at) = place {
        sequence.push(numbers[at]);
        place = before[at];
    }
    sequence.reverse();
    sequence
}
