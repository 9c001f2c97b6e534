//! Creates a sample SQLite database with the tables of a personal-finance app, counts its rows, or damages it.
//!
//! ```text
//! sample app.db --megabytes 50     creates it: the same options give the same bytes
//! sample --count app.db            prints the rows of every table, and a checksum of their values
//! sample --ruin app.db             acts like a bad migration: deletes and changes rows, drops a table
//! ```
//! Quickstart, tests and benchmarks use it, so that none of them needs an `sqlite3` program. It uses no code of
//! Lifeboat, so its counts are an independent check.

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::DateTime;
use clap::{Parser, ValueEnum};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Statement, Transaction, params};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(about = "Creates, counts or damages a sample database")]
struct Args {
    /// The database file
    path: PathBuf,
    /// Its size in MiB, within a few percent
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    megabytes: i64,
    /// The seed of the random values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Its journal mode
    #[arg(long, value_enum, default_value_t = Journal::Wal)]
    journal: Journal,
    /// The page size in bytes: a power of two from 512 to 65536
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = page_size)]
    page_size: u32,
    /// Count the rows of an existing database instead
    #[arg(long, conflicts_with = "ruin")]
    count: bool,
    /// Damage an existing database instead, like a bad migration
    #[arg(long)]
    ruin: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Journal {
    Wal,
    Delete,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let path = args.path.display();
    let done = if args.count {
        count(&args.path).and_then(|lines| Ok(print(&lines)?))
    } else if args.ruin {
        ruin(&args.path)
    } else {
        make(&args).and_then(|lines| Ok(print(&lines)?))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Parses a page size. SQLite silently ignores sizes that are not valid.
fn page_size(text: &str) -> std::result::Result<u32, String> {
    match text.parse() {
        Ok(bytes @ 512..=65_536) if u32::is_power_of_two(bytes) => Ok(bytes),
        _ => Err("not a power of two from 512 to 65536".to_owned()),
    }
}

/// One line of the printed table.
struct Line {
    table: String,
    rows: u64,
    checksum: Option<u64>,
}

fn print(lines: &[Line]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        write!(out, "{:<20} {:>10}", line.table, line.rows)?;
        match line.checksum {
            Some(checksum) => writeln!(out, "  {checksum:016x}")?,
            None => writeln!(out)?,
        }
    }
    writeln!(out, "{:<20} {:>10}", "all tables", lines.iter().map(|line| line.rows).sum::<u64>())
}

/// Counts the rows of every table. The checksum is a sum over the rows, so it does not depend on their order.
fn count(path: &Path) -> Result<Vec<Line>> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut names = database.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut lines = Vec::new();
    for table in names {
        let mut select = database.prepare(&format!("SELECT * FROM \"{}\"", table.replace('"', "\"\"")))?;
        let columns = select.column_count();
        let (mut rows, mut sum) = (0_u64, 0_u64);
        let mut cursor = select.query([])?;
        while let Some(row) = cursor.next()? {
            let mut hasher = DefaultHasher::new();
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Null => 0_u8.hash(&mut hasher),
                    ValueRef::Integer(number) => (1_u8, number).hash(&mut hasher),
                    ValueRef::Real(number) => (2_u8, number.to_bits()).hash(&mut hasher),
                    ValueRef::Text(text) => (3_u8, text).hash(&mut hasher),
                    ValueRef::Blob(bytes) => (4_u8, bytes).hash(&mut hasher),
                }
            }
            rows += 1;
            sum = sum.wrapping_add(hasher.finish());
        }
        lines.push(Line { table, rows, checksum: Some(sum) });
    }
    Ok(lines)
}

/// Damages a database like a migration that was never tested with real data.
fn ruin(path: &Path) -> Result<()> {
    let mut database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    database.pragma_update(None, "foreign_keys", false)?;
    let migration = database.transaction()?;
    let mut out = io::stdout().lock();
    for statement in [
        "DELETE FROM wise_transactions WHERE id % 5 <> 0",
        "DELETE FROM ibkr_balances",
        "DELETE FROM user_operations WHERE operation_date >= '2025'",
        "UPDATE asset_positions SET current_value = 0",
        "DROP TABLE ibkr_positions",
    ] {
        let changed = migration.execute(statement, [])?;
        if statement.starts_with("DROP") {
            writeln!(out, "{statement}")?;
        } else {
            writeln!(out, "{statement}  -- {changed} rows")?;
        }
    }
    migration.commit()?;
    Ok(())
}

/// A small random number generator (splitmix64). A seed always gives the same sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 up to, but not including, `end`.
    fn below(&mut self, end: i64) -> i64 {
        ((u128::from(self.next()) * end as u128) >> 64) as i64
    }

    /// Returns a number from 0.0 up to, but not including, 1.0.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number around 0 that is mostly small, like a price change.
    fn drift(&mut self) -> f64 {
        self.unit() + self.unit() + self.unit() - 1.5
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as i64) as usize]
    }
}

/// Rounds an amount of money to cents. Prices have four decimal places; see [`price`].
fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

fn price(amount: f64) -> f64 {
    (amount * 10_000.0).round() / 10_000.0
}

/// The start of the history, 2023-01-01. It is fixed, so that the same options give the same bytes.
const BEGIN: i64 = 1_672_531_200;
/// The length of the history: three years.
const SPAN: i64 = 3 * 365 * 86_400;

/// Returns the time at which row `index` of `rows` was written, a little after the previous row.
fn instant(random: &mut Random, index: i64, rows: i64) -> i64 {
    let step = SPAN as f64 / rows.max(1) as f64;
    BEGIN + (step * (index as f64 + random.unit())) as i64
}

fn iso(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn day(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default().format("%Y-%m-%d").to_string()
}

struct Stock {
    symbol: &'static str,
    name: &'static str,
    conid: u32,
    price: f64,
}

#[rustfmt::skip]
const STOCKS: &[(&str, &str, u32, f64)] = &[
    ("AAPL", "Apple Inc.", 265598, 130.28), ("MSFT", "Microsoft Corp.", 272093, 239.58),
    ("NVDA", "NVIDIA Corp.", 4815747, 14.61), ("AMZN", "Amazon.com Inc.", 3691937, 84.00),
    ("GOOGL", "Alphabet Inc. Class A", 208813719, 88.23), ("META", "Meta Platforms Inc.", 107113386, 120.34),
    ("BRK B", "Berkshire Hathaway Class B", 72063691, 308.90), ("TSLA", "Tesla Inc.", 76792991, 123.18),
    ("VT", "Vanguard Total World Stock ETF", 52197301, 86.19), ("VTI", "Vanguard Total Stock Market ETF", 12340039, 191.19),
    ("VOO", "Vanguard S&P 500 ETF", 136155102, 351.34), ("QQQ", "Invesco QQQ Trust", 320227571, 266.28),
    ("BND", "Vanguard Total Bond Market ETF", 43645828, 71.84), ("GLD", "SPDR Gold Shares", 51529211, 169.64),
    ("TLT", "iShares 20+ Year Treasury Bond ETF", 15547841, 99.56), ("SCHD", "Schwab US Dividend Equity ETF", 97589608, 75.54),
    ("ASML", "ASML Holding NV", 117902840, 546.40), ("TSM", "Taiwan Semiconductor ADR", 6223250, 74.49),
    ("700", "Tencent Holdings Ltd.", 150385827, 334.00), ("9988", "Alibaba Group Holding", 387390417, 86.25),
    ("VWRA", "Vanguard FTSE All-World UCITS", 375294374, 94.21), ("CSPX", "iShares Core S&P 500 UCITS", 75776072, 398.05),
    ("JPM", "JPMorgan Chase & Co.", 1520593, 134.10), ("KO", "Coca-Cola Co.", 8894, 63.61),
];
const CURRENCIES: &[&str] = &["USD", "EUR", "GBP", "HKD", "CNY", "SGD", "AUD", "JPY"];
#[rustfmt::skip]
const MERCHANTS: &[&str] = &[
    "Tesco Stores 2417", "Amazon EU S.a.r.l.", "Trainline.com", "Uber *TRIP", "Spotify P1A4F0", "Netflix.com",
    "Lidl sagt Danke", "REWE Markt GmbH", "Deutsche Bahn AG", "Carrefour City", "Apple.com/bill", "Steam Games",
    "Sainsbury's S/mkts", "IKEA Ltd", "Shell 0412", "Octopus Energy", "TfL Travel Charge", "Decathlon",
    "美团外卖", "京东商城", "Pret A Manger", "Boots 1182", "Rent, flat 4", "Hetzner Online GmbH", "GitHub Inc.",
];
#[rustfmt::skip]
const FUND_HOUSES: &[&str] = &["易方达", "华夏", "南方", "广发", "富国", "招商", "嘉实", "汇添富", "中欧", "景顺长城"];
#[rustfmt::skip]
const FUND_THEMES: &[&str] = &[
    "沪深300ETF联接", "中证500指数增强", "消费行业混合", "医疗健康股票", "纳斯达克100(QDII)", "蓝筹精选混合",
    "新能源主题", "全球科技互联网", "纯债债券", "货币市场基金", "恒生科技ETF联接", "创业板ETF联接",
];

const SCHEMA: &str = "
CREATE TABLE fund_info (
    id INTEGER PRIMARY KEY, fund_code VARCHAR(12) NOT NULL, fund_name TEXT NOT NULL, fund_type VARCHAR(20),
    management_fee DECIMAL(6,4), purchase_fee DECIMAL(6,4), min_purchase_amount DECIMAL(12,2), risk_level VARCHAR(8),
    details TEXT CHECK (json_valid(details)), updated_at TEXT NOT NULL);
CREATE TABLE ibkr_accounts (
    id INTEGER PRIMARY KEY, account_id VARCHAR(20) NOT NULL UNIQUE, account_name TEXT, account_type VARCHAR(20),
    base_currency VARCHAR(3) NOT NULL DEFAULT 'USD', status VARCHAR(12) NOT NULL DEFAULT 'ACTIVE',
    is_default BOOLEAN NOT NULL DEFAULT 0, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE ibkr_balances (
    id INTEGER PRIMARY KEY, account_id VARCHAR(20) NOT NULL REFERENCES ibkr_accounts(account_id),
    total_cash DECIMAL(18,2), net_liquidation DECIMAL(18,2), buying_power DECIMAL(18,2), currency VARCHAR(3) NOT NULL,
    snapshot_date DATE NOT NULL, snapshot_time TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE ibkr_positions (
    id INTEGER PRIMARY KEY, account_id VARCHAR(20) NOT NULL REFERENCES ibkr_accounts(account_id),
    symbol VARCHAR(20) NOT NULL, quantity DECIMAL(18,6) NOT NULL, market_value DECIMAL(18,2), average_cost DECIMAL(18,4),
    unrealized_pnl DECIMAL(18,2), realized_pnl DECIMAL(18,2), currency VARCHAR(3) NOT NULL, asset_class VARCHAR(8),
    snapshot_date DATE NOT NULL, snapshot_time TEXT NOT NULL);
CREATE TABLE ibkr_sync_logs (
    id INTEGER PRIMARY KEY, account_id VARCHAR(20) REFERENCES ibkr_accounts(account_id), sync_type VARCHAR(20) NOT NULL,
    status VARCHAR(12) NOT NULL, request_data TEXT, response_data TEXT, error_message TEXT,
    records_processed INTEGER NOT NULL DEFAULT 0, source_ip TEXT, client TEXT, sync_duration_ms INTEGER,
    created_at TEXT NOT NULL);
CREATE TABLE wise_transactions (
    id INTEGER PRIMARY KEY, profile_id INTEGER NOT NULL, account_id VARCHAR(20) NOT NULL, transaction_id VARCHAR(40) NOT NULL,
    type VARCHAR(20) NOT NULL, amount DECIMAL(18,2) NOT NULL, currency VARCHAR(3) NOT NULL, title TEXT, description TEXT,
    date TEXT NOT NULL, status VARCHAR(12) NOT NULL, reference_number TEXT, running_balance REAL);
CREATE TABLE wise_balances (
    id INTEGER PRIMARY KEY, account_id VARCHAR(20) NOT NULL, currency VARCHAR(3) NOT NULL,
    available_balance DECIMAL(18,2) NOT NULL, reserved_balance DECIMAL(18,2) NOT NULL DEFAULT 0, cash_amount DECIMAL(18,2),
    investment_state VARCHAR(16), update_time TEXT NOT NULL);
CREATE TABLE user_operations (
    id INTEGER PRIMARY KEY, operation_date TEXT NOT NULL, platform VARCHAR(16) NOT NULL, asset_type VARCHAR(16) NOT NULL,
    operation_type VARCHAR(12) NOT NULL, fund_id INTEGER REFERENCES fund_info(id), asset_code VARCHAR(20) NOT NULL,
    amount DECIMAL(18,4) NOT NULL, currency VARCHAR(3) NOT NULL, quantity DECIMAL(18,6), nav DECIMAL(12,6), fee DECIMAL(10,2),
    strategy TEXT, emotion_score INTEGER CHECK (emotion_score BETWEEN 1 AND 10), notes TEXT, tags TEXT, status VARCHAR(12),
    created_at TEXT NOT NULL);
CREATE TABLE asset_positions (
    id INTEGER PRIMARY KEY, platform VARCHAR(16) NOT NULL, asset_type VARCHAR(16) NOT NULL, asset_code VARCHAR(20) NOT NULL,
    asset_name TEXT, quantity DECIMAL(18,6), avg_cost REAL, current_value REAL, total_profit REAL, profit_rate REAL,
    last_updated TEXT NOT NULL);
CREATE TABLE dca_plans (
    id INTEGER PRIMARY KEY, plan_name TEXT NOT NULL, fund_id INTEGER NOT NULL REFERENCES fund_info(id) ON DELETE CASCADE,
    amount DECIMAL(12,2) NOT NULL, frequency VARCHAR(10) NOT NULL, execution_time TEXT DEFAULT '15:00',
    smart_dca BOOLEAN NOT NULL DEFAULT 0, settings TEXT, status VARCHAR(10) NOT NULL, start_date DATE NOT NULL,
    total_invested DECIMAL(18,2) NOT NULL DEFAULT 0, created_at TEXT NOT NULL);
";

/// The indexes. They are created after the rows, because sorting once is faster than many insertions in random order.
const INDEXES: &[&str] = &[
    "CREATE UNIQUE INDEX idx_fund_code ON fund_info(fund_code)",
    "CREATE INDEX idx_ibkr_balances_account ON ibkr_balances(account_id, snapshot_date)",
    "CREATE INDEX idx_ibkr_positions_symbol ON ibkr_positions(symbol, snapshot_date)",
    "CREATE INDEX idx_ibkr_sync_logs_created ON ibkr_sync_logs(created_at)",
    "CREATE INDEX idx_ibkr_sync_logs_failed ON ibkr_sync_logs(account_id) WHERE status <> 'success'",
    "CREATE UNIQUE INDEX idx_wise_transactions_id ON wise_transactions(transaction_id)",
    "CREATE INDEX idx_wise_transactions_date ON wise_transactions(date)",
    "CREATE INDEX idx_wise_balances_account ON wise_balances(account_id, update_time)",
    "CREATE INDEX idx_user_operations_date ON user_operations(operation_date)",
    "CREATE INDEX idx_asset_positions_code ON asset_positions(platform, asset_code)",
];

/// Creates the database under a temporary name, and renames it when it is complete.
fn make(args: &Args) -> Result<Vec<Line>> {
    if args.path.exists() {
        return Err("the file already exists".into());
    }
    let mut partial = args.path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if partial.exists() {
        fs::remove_file(&partial)?;
    }
    let mut database = Connection::open(&partial)?;
    database.pragma_update(None, "page_size", args.page_size)?;
    for (pragma, value) in [
        ("journal_mode", "off"),
        ("synchronous", "off"),
        ("foreign_keys", "off"),
        ("cache_size", "-65536"),
        ("threads", "2"),
    ] {
        database.pragma_update(None, pragma, value)?;
    }
    let mut lines = Vec::new();
    let transaction = database.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    Filler::new(args.seed, &transaction)?.fill(args.megabytes, &mut lines)?;
    for index in INDEXES {
        transaction.execute_batch(index)?;
    }
    transaction.commit()?;
    if matches!(args.journal, Journal::Wal) {
        database.pragma_update(None, "journal_mode", "wal")?;
    }
    database.close().map_err(|(_, error)| error)?;
    fs::rename(&partial, &args.path)?;
    lines.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(lines)
}

/// The state for the generation of rows.
struct Filler<'a> {
    random: Random,
    transaction: &'a Transaction<'a>,
    accounts: Vec<String>,
    stocks: Vec<Stock>,
}

impl<'a> Filler<'a> {
    fn new(seed: u64, transaction: &'a Transaction<'a>) -> Result<Self> {
        let stocks = STOCKS.iter().map(|&(symbol, name, conid, price)| Stock { symbol, name, conid, price }).collect();
        Ok(Filler { random: Random(seed), transaction, accounts: Vec::new(), stocks })
    }

    /// Fills every table. The rows per megabyte were measured, so that the file has about the requested size.
    fn fill(&mut self, megabytes: i64, lines: &mut Vec<Line>) -> Result<()> {
        let funds = 200 + megabytes;
        self.rows(lines, "fund_info", 10, funds, Self::fund)?;
        self.rows(lines, "ibkr_accounts", 9, 3 + megabytes / 50, Self::account)?;
        self.rows(lines, "ibkr_balances", 9, 520 * megabytes, Self::balance)?;
        self.rows(lines, "ibkr_positions", 12, 910 * megabytes, Self::position)?;
        self.rows(lines, "ibkr_sync_logs", 12, 200 * megabytes, Self::sync_log)?;
        self.rows(lines, "wise_transactions", 13, 870 * megabytes, Self::transaction)?;
        self.rows(lines, "wise_balances", 8, 400 * megabytes, Self::wise_balance)?;
        self.rows(lines, "user_operations", 18, 350 * megabytes, |filler, insert, index, rows| {
            filler.operation(insert, index, rows, funds)
        })?;
        self.rows(lines, "asset_positions", 11, 220 * megabytes, Self::asset)?;
        self.rows(lines, "dca_plans", 12, 10 + megabytes, |filler, insert, index, rows| {
            filler.plan(insert, index, rows, funds)
        })
    }

    fn rows(
        &mut self,
        lines: &mut Vec<Line>,
        table: &str,
        columns: usize,
        rows: i64,
        mut row: impl FnMut(&mut Self, &mut Statement<'_>, i64, i64) -> rusqlite::Result<usize>,
    ) -> Result<()> {
        let places = vec!["?"; columns].join(", ");
        let mut insert = self.transaction.prepare(&format!("INSERT INTO {table} VALUES ({places})"))?;
        for index in 0..rows {
            row(self, &mut insert, index, rows)?;
        }
        lines.push(Line { table: table.to_owned(), rows: rows as u64, checksum: None });
        Ok(())
    }

    fn fund(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64) -> rusqlite::Result<usize> {
        let random = &mut self.random;
        let (house, theme) = (random.pick(FUND_HOUSES), random.pick(FUND_THEMES));
        let details = format!(
            r#"{{"manager":"{}","inception":"{}","aum":{:.2},"benchmark":"{theme}","holdings":[{{"code":"{:06}","weight":{:.4}}},{{"code":"{:06}","weight":{:.4}}},{{"code":"{:06}","weight":{:.4}}}],"rating":{}}}"#,
            random.pick(&["张坤", "葛兰", "刘彦春", "谢治宇", "朱少醒"]),
            day(BEGIN - random.below(4_000) * 86_400),
            random.unit() * 5e10,
            random.below(700_000),
            random.unit() * 0.1,
            random.below(700_000),
            random.unit() * 0.1,
            random.below(700_000),
            random.unit() * 0.1,
            1 + random.below(5),
        );
        insert.execute(params![
            index + 1,
            format!("{:06}", 1 + index * 7 + random.below(7)),
            format!("{house}{theme}{}", random.pick(&["A", "C", ""])),
            random.pick(&["混合型", "指数型", "债券型", "QDII", "货币型"]),
            price(random.unit() * 0.015),
            price(random.unit() * 0.0015),
            random.pick(&[1, 10, 100]),
            random.pick(&["R1", "R2", "R3", "R4", "R5"]),
            details,
            iso(instant(random, index, rows)),
        ])
    }

    fn account(&mut self, insert: &mut Statement<'_>, index: i64, _: i64) -> rusqlite::Result<usize> {
        let random = &mut self.random;
        let account = format!("U{}", 1_000_000 + index * 40_009 + random.below(40_000));
        self.accounts.push(account.clone());
        insert.execute(params![
            index + 1,
            account,
            format!("Portfolio {}", index + 1),
            random.pick(&["INDIVIDUAL", "JOINT", "IRA", "CORPORATE"]),
            random.pick(&["USD", "EUR", "GBP", "HKD"]),
            "ACTIVE",
            index == 0,
            iso(BEGIN + index),
            iso(BEGIN + SPAN),
        ])
    }

    fn some_account(&mut self) -> String {
        self.accounts[self.random.below(self.accounts.len() as i64) as usize].clone()
    }

    fn balance(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64) -> rusqlite::Result<usize> {
        let account = self.some_account();
        let random = &mut self.random;
        let time = instant(random, index, rows);
        let cash = 5_000.0 + 20_000.0 * random.unit();
        let net = 120_000.0 * (1.0 + index as f64 / rows as f64) + 9_000.0 * random.drift();
        insert.execute(params![
            index + 1,
            account,
            cents(cash),
            cents(net),
            cents(cash * 4.0),
            random.pick(&CURRENCIES[..4]),
            day(time),
            iso(time),
            iso(time + 1 + random.below(5)),
        ])
    }

    /// Changes the price of a random stock, and returns the stock's index.
    fn move_price(&mut self) -> usize {
        let stock_index = self.random.below(self.stocks.len() as i64) as usize;
        let stock = &mut self.stocks[stock_index];
        stock.price = (stock.price * (1.0 + 0.004 * self.random.drift())).clamp(2.0, 2_000.0);
        stock_index
    }

    fn position(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64) -> rusqlite::Result<usize> {
        let account = self.some_account();
        let stock_index = self.move_price();
        let (random, stock) = (&mut self.random, &self.stocks[stock_index]);
        let quantity = 1 + random.below(400);
        let cost = stock.price * (0.7 + 0.5 * random.unit());
        let time = instant(random, index, rows);
        insert.execute(params![
            index + 1,
            account,
            stock.symbol,
            quantity,
            cents(stock.price * quantity as f64),
            price(cost),
            cents((stock.price - cost) * quantity as f64),
            if random.below(4) == 0 { cents(2_000.0 * random.drift()) } else { 0.0 },
            if stock.symbol.starts_with(|c: char| c.is_ascii_digit()) { "HKD" } else { "USD" },
            "STK",
            day(time),
            iso(time),
        ])
    }

    fn sync_log(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64) -> rusqlite::Result<usize> {
        let account = self.some_account();
        let time = instant(&mut self.random, index, rows);
        let (trace, nonce) = (self.random.next(), self.random.next());
        let request = format!(
            r#"{{"account_id":"{account}","timestamp":"{}","request_id":"{trace:016x}{nonce:016x}","include":["balances","positions"]}}"#,
            iso(time)
        );
        let failed = self.random.below(40) == 0;
        let mut response = String::with_capacity(2_000);
        let held = if failed { 0 } else { 4 + self.random.below(9) };
        let _ = write!(
            response,
            r#"{{"account":"{account}","received_at":"{}","balances":{{"total_cash":{:.2},"net_liquidation":{:.2},"currency":"USD"}},"positions":["#,
            iso(time + 1),
            25_000.0 * self.random.unit(),
            120_000.0 + 60_000.0 * self.random.drift(),
        );
        for position in 0..held {
            let stock_index = self.move_price();
            let (random, stock) = (&mut self.random, &self.stocks[stock_index]);
            let quantity = 1 + random.below(400);
            let _ = write!(
                response,
                r#"{}{{"symbol":"{}","conid":{},"description":"{}","quantity":{quantity},"market_price":{:.4},"market_value":{:.2},"average_cost":{:.4},"unrealized_pnl":{:.2}}}"#,
                if position == 0 { "" } else { "," },
                stock.symbol,
                stock.conid,
                stock.name,
                stock.price,
                stock.price * quantity as f64,
                stock.price * (0.7 + 0.5 * random.unit()),
                2_000.0 * random.drift(),
            );
        }
        let _ = write!(response, r#"],"signature":"{:016x}{:016x}"}}"#, self.random.next(), self.random.next());
        let random = &mut self.random;
        insert.execute(params![
            index + 1,
            account,
            random.pick(&["full", "balances", "positions"]),
            if failed { "failed" } else { "success" },
            request,
            if failed { None } else { Some(response) },
            if failed { Some("timeout: the gateway did not answer within 30 s") } else { None },
            held,
            format!("10.0.{}.{}", random.below(4), random.below(256)),
            random.pick(&["python-requests/2.32.3", "ibkr-sync/1.4.0", "ibkr-sync/1.5.2"]),
            if failed { 30_000 } else { 180 + random.below(2_400) },
            iso(time),
        ])
    }

    fn transaction(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64) -> rusqlite::Result<usize> {
        let random = &mut self.random;
        let time = instant(random, index, rows);
        let kind = random.pick(&["CARD", "CARD", "CARD", "CARD", "TRANSFER", "DEPOSIT", "CONVERSION", "DIRECT_DEBIT"]);
        let amount =
            cents(if kind == "DEPOSIT" { 2_000.0 * random.unit() } else { -90.0 * random.unit() * random.unit() });
        let currency = random.pick(CURRENCIES);
        let merchant = random.pick(MERCHANTS);
        let description = match kind {
            "CARD" => format!("Card transaction of {:.2} {currency} issued by {merchant}", -amount),
            "DEPOSIT" => format!("Received money from {merchant}"),
            "CONVERSION" => format!("Converted {:.2} {currency} at {:.5}", -amount, 0.7 + random.unit()),
            _ => format!("Sent money to {merchant}"),
        };
        let number = 300_000_000 + index * 11 + random.below(11);
        insert.execute(params![
            index + 1,
            12_345_670 + random.below(3),
            format!("{}", 40_112_000 + random.below(8)),
            format!("{kind}-{:08x}-{number}", random.next() >> 32),
            kind,
            amount,
            currency,
            merchant,
            description,
            iso(time),
            if random.below(60) == 0 { "pending" } else { "completed" },
            if random.below(3) == 0 { Some(format!("REF{:010}", random.below(10_000_000_000))) } else { None },
            cents(3_000.0 + 2_500.0 * random.drift()),
        ])
    }

    fn wise_balance(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64) -> rusqlite::Result<usize> {
        let random = &mut self.random;
        let available = cents(4_000.0 * random.unit());
        let account = random.below(8);
        insert.execute(params![
            index + 1,
            format!("{}", 40_112_000 + account),
            CURRENCIES[account as usize],
            available,
            if random.below(10) == 0 { cents(200.0 * random.unit()) } else { 0.0 },
            available,
            "NOT_INVESTED",
            iso(instant(random, index, rows)),
        ])
    }

    fn operation(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64, funds: i64) -> rusqlite::Result<usize> {
        let random = &mut self.random;
        let time = instant(random, index, rows);
        let fund = 1 + random.below(funds);
        let nav = 0.6 + 3.0 * random.unit();
        let amount = random.pick(&[100.0, 200.0, 500.0, 1_000.0, 1_500.0]);
        let kind = random.pick(&["买入", "买入", "买入", "卖出", "分红"]);
        insert.execute(params![
            index + 1,
            iso(time),
            random.pick(&["支付宝", "IBKR", "Wise", "OKX", "招商银行"]),
            "基金",
            kind,
            fund,
            format!("{:06}", fund * 7),
            amount,
            "CNY",
            price(amount / nav),
            price(nav),
            cents(amount * 0.0015),
            random.pick(&[Some("定投"), Some("网格"), Some("逢低加仓"), None]),
            1 + random.below(10),
            match random.below(4) {
                0 => Some(format!("单位净值 {nav:.4}, 确认份额 {:.2}", amount / nav)),
                1 => Some("auto: DCA plan executed".to_owned()),
                _ => None,
            },
            format!(
                r#"["{}","{}"]"#,
                random.pick(&["dca", "manual", "rebalance"]),
                random.pick(&["core", "satellite"])
            ),
            "confirmed",
            iso(time + 30 + random.below(600)),
        ])
    }

    fn asset(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64) -> rusqlite::Result<usize> {
        let stock_index = self.move_price();
        let (random, stock) = (&mut self.random, &self.stocks[stock_index]);
        let quantity = price(200.0 * random.unit());
        let cost = stock.price * (0.7 + 0.5 * random.unit());
        insert.execute(params![
            index + 1,
            random.pick(&["IBKR", "Wise", "支付宝", "OKX"]),
            "stock",
            stock.symbol,
            stock.name,
            quantity,
            cost,
            stock.price * quantity,
            (stock.price - cost) * quantity,
            stock.price / cost - 1.0,
            iso(instant(random, index, rows)),
        ])
    }

    fn plan(&mut self, insert: &mut Statement<'_>, index: i64, rows: i64, funds: i64) -> rusqlite::Result<usize> {
        let random = &mut self.random;
        let amount = random.pick(&[100, 200, 500, 1_000]);
        let time = instant(random, index, rows);
        insert.execute(params![
            index + 1,
            format!("定投计划 {}", index + 1),
            1 + random.below(funds),
            amount,
            random.pick(&["daily", "weekly", "monthly"]),
            "15:00",
            random.below(2) == 1,
            format!(
                r#"{{"exclude_dates":["{}","{}"],"base_multiplier":{:.1}}}"#,
                day(time),
                day(time + 86_400),
                1.0 + random.unit()
            ),
            random.pick(&["active", "active", "paused", "ended"]),
            day(time),
            amount * (1 + random.below(150)),
            iso(time),
        ])
    }
}
