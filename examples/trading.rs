//! Creates seven SQLite files with the tables of a trading app, and with typical invalid values in known places.
//!
//! ```text
//! trading --out data                        two million rows in total, with times up to the beginning of today
//! trading --out data --rows 5000 --facts    fewer rows, and a description of the files as JSON
//! trading --out data --one-file --clean     only data/trading.db, with valid values only
//! ```
//! The same options give the same rows; without `--until` the rows depend on the day. Times have no zone and are local
//! to Asia/Shanghai. They are recent, because a retention of some months would otherwise empty a table. Some files
//! are in WAL mode, and leave rows in a WAL; others have a rollback journal. Page sizes differ. The program uses no code
//! of Lifeboat.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::Parser;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use serde_json::json;

type Failed = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failed>;

#[derive(Parser)]
#[command(about = "Creates SQLite files with the tables of a trading app")]
struct Args {
    /// The folder to create the files in
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The approximate number of rows in all tables together; small tables have a minimum
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(i64).range(100..=1_000_000_000))]
    rows: i64,
    /// The seed of the random values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The day before which the newest rows are; default: today
    #[arg(long, value_name = "YYYY-MM-DD")]
    until: Option<NaiveDate>,
    /// Create only values that are valid for their columns, and no defaults or indexes that only SQLite supports
    #[arg(long)]
    clean: bool,
    /// Create all tables in one file, trading.db
    #[arg(long)]
    one_file: bool,
    /// Print as JSON the number of rows of each table, and the places of invalid values
    #[arg(long)]
    facts: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match make(&args) {
        Ok(facts) => {
            if args.facts {
                println!("{facts:#}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("trading: {}: {error}", args.out.display());
            ExitCode::FAILURE
        }
    }
}

// ---------------------------------------------------------------- files and tables

/// A file of the app.
struct File {
    name: &'static str,
    journal: Journal,
    page_size: u32,
    tables: &'static [Table],
    /// Views and triggers.
    more: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Journal {
    /// WAL mode. The last rows of the first table are only in the WAL.
    Wal,
    Delete,
}

struct Table {
    name: &'static str,
    create: &'static str,
    /// The rows of this table in ten thousand rows of all tables.
    share: i64,
    /// The minimum number of rows.
    least: i64,
    row: fn(&mut Random, &Place, &mut Vec<Value>),
    dirt: &'static [(Dirt, &'static str, Often)],
    indexes: &'static [&'static str],
}

/// A kind of invalid value.
#[derive(Clone, Copy)]
enum Dirt {
    /// '' instead of NULL.
    Empty,
    /// Python's 'None'.
    None,
    /// The text 'NaN'.
    Nan,
    /// A time with 'T' and an offset, in a column of times without a zone.
    Offset,
    /// Seconds since 1970, in a column of times without a zone.
    Epoch,
    /// Microseconds since 1970, in a column of milliseconds.
    Micros,
    /// A truncated document.
    BrokenJson,
    /// A document with the escape sequence of NUL.
    JsonNul,
    /// A boolean as the text 'true'.
    True,
    /// A BLOB in a column of text.
    Blob,
    /// Text with the character NUL.
    Nul,
    /// The largest integers of 64 bits.
    Huge,
    /// A number that does not fit into a float of four bytes.
    Wide,
    /// A foreign key without a parent row.
    Orphan,
}

impl Dirt {
    fn name(self) -> &'static str {
        match self {
            Dirt::Empty => "empty",
            Dirt::None => "none",
            Dirt::Nan => "nan",
            Dirt::Offset => "time with offset",
            Dirt::Epoch => "epoch",
            Dirt::Micros => "epoch in microseconds",
            Dirt::BrokenJson => "broken json",
            Dirt::JsonNul => "nul in json",
            Dirt::True => "true as text",
            Dirt::Blob => "blob in text",
            Dirt::Nul => "nul in text",
            Dirt::Huge => "huge integer",
            Dirt::Wide => "wide real",
            Dirt::Orphan => "orphan",
        }
    }

    /// Returns the invalid value that replaces `clean`.
    fn value(self, clean: &Value, place: &Place, nth: i64) -> Value {
        match self {
            Dirt::Empty => text(""),
            Dirt::None => text("None"),
            Dirt::Nan => text("NaN"),
            Dirt::Offset => text(format!("{}+08:00", shanghai(place.at).replace(' ', "T"))),
            Dirt::Epoch => Value::Integer(place.at),
            Dirt::Micros => Value::Integer(place.at * 1_000_000 + nth),
            Dirt::BrokenJson => match clean {
                Value::Text(json) => text(json.chars().take(json.chars().count() * 2 / 3).collect::<String>()),
                _ => text("{\"cut\": "),
            },
            Dirt::JsonNul => text(r#"{"note": "a\u0000b"}"#),
            Dirt::True => text("true"),
            Dirt::Blob => Value::Blob(vec![0x89, b'P', b'N', b'G', 0, 0xff, nth as u8]),
            Dirt::Nul => text(format!("before\0after {nth}")),
            Dirt::Huge => Value::Integer(i64::MAX - nth),
            Dirt::Wide => Value::Real([16_777_217.25, 0.123_456_789_012_345_67, 1.0e300][nth as usize % 3]),
            Dirt::Orphan => Value::Integer(1_000_000 + nth),
        }
    }
}

/// The frequency of an invalid value.
#[derive(Clone, Copy)]
enum Often {
    /// This number of rows, regardless of the size of the table.
    Rows(i64),
    /// One row of this number.
    OneOf(i64),
}

impl Often {
    /// Returns true if the row has the invalid value. `shift` gives different kinds different rows.
    fn applies(self, index: i64, rows: i64, shift: i64) -> bool {
        match self {
            Often::Rows(count) => {
                let step = rows / count;
                if step == 0 { true } else { index % step == (step / 2 + shift) % step && index / step < count }
            }
            Often::OneOf(count) => index % count == shift % count,
        }
    }
}

/// The position of a row in its table and in time.
struct Place {
    index: i64,
    rows: i64,
    /// Seconds since 1970.
    at: i64,
    /// The end of the history, in seconds since 1970.
    until: i64,
    /// The number of portfolios.
    portfolios: i64,
}

const FILES: &[File] = &[
    File {
        name: "analysis.db",
        journal: Journal::Wal,
        page_size: 4096,
        tables: &[ANALYSIS_RECORDS],
        more: "CREATE VIEW latest_analysis AS
                   SELECT symbol, max(analysis_date) AS analysis_date FROM analysis_records GROUP BY symbol;",
    },
    File {
        name: "monitor.db",
        journal: Journal::Delete,
        page_size: 8192,
        tables: &[MONITOR_TASKS, POSITION_MONITOR, NOTIFICATIONS],
        more: "CREATE TRIGGER monitor_tasks_touched AFTER UPDATE OF name ON monitor_tasks BEGIN
                   UPDATE monitor_tasks SET updated_at = datetime('now') WHERE task_id = NEW.task_id;
               END;",
    },
    File { name: "ai_decisions.db", journal: Journal::Wal, page_size: 4096, tables: &[AI_DECISIONS], more: "" },
    File { name: "trades.db", journal: Journal::Wal, page_size: 16384, tables: &[TRADE_RECORDS], more: "" },
    File {
        name: "portfolio.db",
        journal: Journal::Delete,
        page_size: 1024,
        tables: &[PORTFOLIOS, PORTFOLIO_POSITIONS, OLD_NOTIFICATIONS],
        more: "CREATE VIEW portfolio_values AS
                   SELECT p.id, p.name, sum(h.market_value) AS market_value FROM portfolios p
                   LEFT JOIN portfolio_positions h ON h.portfolio_id = p.id GROUP BY p.id, p.name;",
    },
    File { name: "sectors.sqlite3", journal: Journal::Delete, page_size: 4096, tables: &[SECTOR_SIGNALS], more: "" },
    File {
        name: "longhubang.db",
        journal: Journal::Wal,
        page_size: 4096,
        tables: &[LONGHUBANG, SYSTEM_LOGS],
        more: "",
    },
];

const ANALYSIS_RECORDS: Table = Table {
    name: "analysis_records",
    create: "CREATE TABLE analysis_records (
        id INTEGER PRIMARY KEY AUTOINCREMENT, symbol VARCHAR(10) NOT NULL, stock_name TEXT,
        period TEXT NOT NULL DEFAULT '1d', analysis_date TEXT NOT NULL, stock_info JSON, indicators TEXT,
        agents_results TEXT, score REAL, rating VARCHAR(10), is_latest BOOLEAN DEFAULT 0,
        created_at DATETIME NOT NULL DEFAULT (datetime('now')))",
    share: 2000,
    least: 40,
    row: |random, place, row| {
        let stock = random.pick(STOCKS);
        let close = random.price();
        row.extend([
            Value::Integer(place.index + 1),
            text(stock.0),
            text(stock.1),
            text(random.pick(&["1d", "1d", "1w", "30m"])),
            text(shanghai(place.at)),
            text(format!(
                r#"{{"code": "{}", "名称": "{}", "pe": {:.2}, "市值": {:.1}}}"#,
                stock.0,
                stock.1,
                random.unit() * 60.0,
                random.unit() * 9e3
            )),
            text(format!(
                r#"{{"close": {close:.2}, "ma5": {:.3}, "ma20": {:.3}, "rsi": {:.2}, "kdj": [{}, {}, {}]}}"#,
                close * 1.01,
                close * 0.98,
                random.unit() * 100.0,
                random.below(100),
                random.below(100),
                random.below(100)
            )),
            text(format!(
                r#"[{{"agent": "技术面", "view": "{}"}}, {{"agent": "资金面", "view": "{}"}}]"#,
                random.pick(VIEWS),
                random.pick(VIEWS)
            )),
            Value::Real(random.unit() * 100.0),
            text(random.pick(&["买入", "持有", "卖出"])),
            Value::Integer(i64::from(random.below(20) == 0)),
            text(shanghai(place.at + 3)),
        ]);
    },
    dirt: &[
        (Dirt::BrokenJson, "indicators", Often::Rows(5)),
        (Dirt::JsonNul, "stock_info", Often::Rows(3)),
        (Dirt::Empty, "agents_results", Often::OneOf(25)),
        (Dirt::None, "rating", Often::OneOf(40)),
        (Dirt::Nan, "score", Often::OneOf(50)),
        (Dirt::Wide, "score", Often::Rows(3)),
        (Dirt::Offset, "analysis_date", Often::OneOf(10)),
        (Dirt::Epoch, "analysis_date", Often::OneOf(15)),
        (Dirt::True, "is_latest", Often::Rows(6)),
    ],
    indexes: &[
        "CREATE INDEX idx_analysis_symbol ON analysis_records(symbol, analysis_date)",
        "CREATE INDEX idx_analysis_latest ON analysis_records(symbol) WHERE is_latest = 1",
    ],
};

const MONITOR_TASKS: Table = Table {
    name: "monitor_tasks",
    create: "CREATE TABLE monitor_tasks (
        task_id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, symbols JSON NOT NULL DEFAULT '[]',
        interval_minutes INTEGER NOT NULL DEFAULT 5 CHECK (interval_minutes > 0), enabled BOOLEAN NOT NULL DEFAULT 1,
        notify TEXT, threshold DECIMAL(18,4), created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at DATETIME)",
    share: 50,
    least: 20,
    row: |random, place, row| {
        let stock = random.pick(STOCKS);
        row.extend([
            text(format!("task-{:08x}-{}", random.next() >> 32, place.index)),
            text(format!("监控 {} 第{}号", stock.1, place.index + 1)),
            text(format!(r#"["{}", "{}"]"#, stock.0, random.pick(STOCKS).0)),
            Value::Integer(random.pick(&[1, 5, 15, 30, 60])),
            Value::Integer(random.below(2)),
            text(random.pick(&["true", "1", "0", "false"])),
            Value::Real((random.unit() * 1e5).round() / 1e4),
            text(shanghai(place.at)),
            if random.below(3) == 0 { Value::Null } else { text(shanghai(place.at + 3600)) },
        ]);
    },
    dirt: &[
        (Dirt::True, "enabled", Often::Rows(4)),
        (Dirt::Empty, "updated_at", Often::OneOf(9)),
        (Dirt::None, "threshold", Often::Rows(3)),
    ],
    indexes: &["CREATE INDEX idx_tasks_enabled ON monitor_tasks(enabled)"],
};

const POSITION_MONITOR: Table = Table {
    name: "position_monitor",
    create: "CREATE TABLE position_monitor (
        id INTEGER PRIMARY KEY, symbol VARCHAR(10) NOT NULL, price DECIMAL(18,4), cost REAL, pnl REAL, volume INTEGER,
        is_alert BOOLEAN NOT NULL DEFAULT 0, note TEXT, checked_at DATETIME NOT NULL)",
    share: 1500,
    least: 40,
    row: |random, place, row| {
        let price = random.price();
        let cost = price * (0.8 + 0.4 * random.unit());
        row.extend([
            Value::Integer(place.index + 1),
            text(random.pick(STOCKS).0),
            Value::Real(price),
            Value::Real(cost),
            Value::Real((price - cost) * 100.0),
            Value::Integer(100 * random.below(10_000)),
            Value::Integer(i64::from(random.below(30) == 0)),
            if random.below(8) == 0 { text(random.pick(VIEWS)) } else { Value::Null },
            text(shanghai(place.at)),
        ]);
    },
    dirt: &[
        (Dirt::Nan, "price", Often::Rows(4)),
        (Dirt::Empty, "cost", Often::OneOf(30)),
        (Dirt::Wide, "pnl", Often::Rows(3)),
        (Dirt::Huge, "volume", Often::Rows(2)),
        (Dirt::Nul, "note", Often::Rows(3)),
        (Dirt::Blob, "note", Often::Rows(2)),
        (Dirt::Epoch, "checked_at", Often::OneOf(20)),
        (Dirt::Offset, "checked_at", Often::OneOf(33)),
    ],
    indexes: &[
        "CREATE INDEX idx_position_symbol ON position_monitor(symbol, checked_at)",
        "CREATE INDEX idx_position_alerts ON position_monitor(checked_at) WHERE is_alert = 1",
    ],
};

const NOTIFICATIONS: Table = Table {
    name: "notifications",
    create: "CREATE TABLE notifications (
        id INTEGER PRIMARY KEY AUTOINCREMENT, symbol VARCHAR(10), kind VARCHAR(20) NOT NULL CHECK (length(kind) > 0),
        title TEXT NOT NULL, message TEXT, payload JSON, is_read BOOLEAN NOT NULL DEFAULT 0,
        created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    share: 500,
    least: 30,
    row: |random, place, row| {
        let stock = random.pick(STOCKS);
        row.extend([
            Value::Integer(place.index + 1),
            text(stock.0),
            text(random.pick(&["price", "signal", "risk", "system"])),
            text(format!("{} 提醒", stock.1)),
            text(format!("{}({}) 价格 {:.2}，{}", stock.1, stock.0, random.price(), random.pick(VIEWS))),
            text(format!(r#"{{"symbol": "{}", "level": {}}}"#, stock.0, random.below(5))),
            Value::Integer(random.below(2)),
            text(shanghai(place.at)),
        ]);
    },
    dirt: &[
        (Dirt::Empty, "payload", Often::OneOf(12)),
        (Dirt::Blob, "message", Often::Rows(2)),
        (Dirt::Nul, "message", Often::Rows(2)),
    ],
    indexes: &["CREATE INDEX idx_notifications_unread ON notifications(created_at) WHERE is_read = 0"],
};

/// The same table in another file, with the same keys.
const OLD_NOTIFICATIONS: Table = Table { share: 100, least: 15, dirt: &[], ..NOTIFICATIONS };

const AI_DECISIONS: Table = Table {
    name: "ai_decisions",
    create: "CREATE TABLE ai_decisions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, decision_id TEXT NOT NULL UNIQUE, symbol VARCHAR(10) NOT NULL,
        action TEXT NOT NULL CHECK (action IN ('BUY', 'SELL', 'HOLD')), confidence REAL CHECK (confidence BETWEEN 0 AND 1),
        reasoning TEXT, factors JSON, executed BOOLEAN DEFAULT 0, token_count INTEGER, decided_at_ms INTEGER NOT NULL,
        created_at TEXT NOT NULL DEFAULT (datetime('now', 'localtime')))",
    share: 800,
    least: 40,
    row: |random, place, row| {
        let stock = random.pick(STOCKS);
        row.extend([
            Value::Integer(place.index + 1),
            text(format!("{:016x}-{}", random.next(), place.index)),
            text(stock.0),
            text(random.pick(&["BUY", "SELL", "HOLD", "HOLD"])),
            Value::Real(random.unit()),
            text(format!("{}：{}，{}。综合来看，风险可控。", stock.1, random.pick(VIEWS), random.pick(VIEWS))),
            text(format!(r#"{{"momentum": {:.4}, "value": {:.4}, "消息": "{}"}}"#, random.unit(), random.unit(), random.pick(VIEWS))),
            Value::Integer(random.below(2)),
            Value::Integer(300 + random.below(4000)),
            Value::Integer(place.at * 1000 + random.below(1000)),
            text(shanghai(place.at)),
        ]);
    },
    dirt: &[
        (Dirt::BrokenJson, "factors", Often::Rows(4)),
        (Dirt::JsonNul, "factors", Often::Rows(2)),
        (Dirt::None, "reasoning", Often::OneOf(60)),
        (Dirt::Blob, "reasoning", Often::Rows(2)),
        (Dirt::Micros, "decided_at_ms", Often::Rows(4)),
        (Dirt::True, "executed", Often::Rows(5)),
    ],
    indexes: &["CREATE INDEX idx_decisions_symbol ON ai_decisions(symbol, created_at)"],
};

const TRADE_RECORDS: Table = Table {
    name: "trade_records",
    create: "CREATE TABLE trade_records (
        trade_id TEXT PRIMARY KEY NOT NULL, symbol VARCHAR(10) NOT NULL, side VARCHAR(4) NOT NULL CHECK (side IN ('BUY', 'SELL')),
        price DECIMAL(18,4) NOT NULL, quantity INTEGER NOT NULL, amount DECIMAL(18,4), fee DECIMAL(10,4), order_id INTEGER,
        exchange_us INTEGER, traded_at DATETIME NOT NULL, remark TEXT)",
    share: 1000,
    least: 40,
    row: |random, place, row| {
        let price = random.price();
        let quantity = 100 * (1 + random.below(500));
        let amount = (price * quantity as f64 * 1e4).round() / 1e4;
        row.extend([
            text(format!("T{:010}", place.index + 1)),
            text(random.pick(STOCKS).0),
            text(random.pick(&["BUY", "SELL"])),
            Value::Real(price),
            Value::Integer(quantity),
            Value::Real(amount),
            Value::Real((amount * 0.0003 * 1e4).round() / 1e4),
            Value::Integer(9_000_000_000 + place.index),
            Value::Integer(place.at * 1_000_000 + random.below(1_000_000)),
            text(shanghai(place.at)),
            if random.below(5) == 0 { text(random.pick(&["手动", "自动", "止损"])) } else { Value::Null },
        ]);
    },
    dirt: &[
        (Dirt::Huge, "order_id", Often::Rows(3)),
        (Dirt::Nan, "fee", Often::Rows(4)),
        (Dirt::None, "amount", Often::Rows(3)),
        (Dirt::Empty, "remark", Often::OneOf(7)),
        (Dirt::Offset, "traded_at", Often::OneOf(20)),
        (Dirt::Epoch, "traded_at", Often::OneOf(50)),
    ],
    indexes: &[
        "CREATE INDEX idx_trades_symbol ON trade_records(symbol, traded_at)",
        "CREATE UNIQUE INDEX idx_trades_order ON trade_records(order_id) WHERE order_id IS NOT NULL",
    ],
};

const PORTFOLIOS: Table = Table {
    name: "portfolios",
    create: "CREATE TABLE portfolios (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, cash DECIMAL(18,4) NOT NULL DEFAULT 0,
        config JSON DEFAULT '{}', is_default BOOLEAN NOT NULL DEFAULT 0, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
    share: 2,
    least: 5,
    row: |random, place, row| {
        row.extend([
            Value::Integer(place.index + 1),
            text(format!("组合{}", place.index + 1)),
            Value::Real((random.unit() * 1e9).round() / 1e3),
            text(format!(r#"{{"max_position": {:.2}, "风格": "{}"}}"#, random.unit(), random.pick(&["稳健", "激进"]))),
            Value::Integer(i64::from(place.index == 0)),
            text(shanghai(place.at)),
        ]);
    },
    dirt: &[],
    indexes: &[],
};

const PORTFOLIO_POSITIONS: Table = Table {
    name: "portfolio_positions",
    create: "CREATE TABLE portfolio_positions (
        id INTEGER PRIMARY KEY, portfolio_id INTEGER NOT NULL REFERENCES portfolios(id) ON DELETE CASCADE,
        symbol VARCHAR(10) NOT NULL, quantity INTEGER NOT NULL DEFAULT 0 CHECK (quantity >= 0), cost DECIMAL(18,4),
        market_value REAL, opened_on DATE, updated_at DATETIME)",
    share: 100,
    least: 20,
    row: |random, place, row| {
        let price = random.price();
        let quantity = 100 * random.below(300);
        row.extend([
            Value::Integer(place.index + 1),
            Value::Integer(1 + random.below(place.portfolios)),
            text(random.pick(STOCKS).0),
            Value::Integer(quantity),
            Value::Real(price),
            Value::Real(price * quantity as f64),
            text(&shanghai(place.at)[..10]),
            text(shanghai(place.at)),
        ]);
    },
    dirt: &[
        (Dirt::Orphan, "portfolio_id", Often::Rows(3)),
        (Dirt::Empty, "opened_on", Often::OneOf(10)),
        (Dirt::Nan, "cost", Often::Rows(2)),
    ],
    indexes: &["CREATE INDEX idx_holdings_portfolio ON portfolio_positions(portfolio_id, symbol)"],
};

const SECTOR_SIGNALS: Table = Table {
    name: "sector_signals",
    create: "CREATE TABLE sector_signals (
        signal_time DATETIME NOT NULL, sector_code TEXT NOT NULL, sector_name TEXT, strength REAL, rank INTEGER,
        signals JSON, PRIMARY KEY (signal_time, sector_code)) WITHOUT ROWID",
    share: 500,
    least: 30,
    row: |random, place, row| {
        let sector = place.index % SECTORS.len() as i64;
        // All sectors of one signal have its time.
        let at = place.until - SPAN + SPAN * (place.index - sector) / place.rows;
        row.extend([
            text(shanghai(at)),
            text(format!("BK{:04}", 400 + sector)),
            text(SECTORS[sector as usize]),
            Value::Real(random.unit() * 2.0 - 1.0),
            Value::Integer(1 + random.below(100)),
            text(format!(r#"{{"资金流入": {:.2}, "涨停": {}}}"#, random.unit() * 1e4, random.below(20))),
        ]);
    },
    dirt: &[],
    indexes: &["CREATE INDEX idx_sectors_code ON sector_signals(sector_code, signal_time)"],
};

const LONGHUBANG: Table = Table {
    name: "longhubang",
    create: "CREATE TABLE longhubang (
        trade_date DATE NOT NULL, code VARCHAR(6) NOT NULL, name TEXT, reason TEXT, seat TEXT, buy DECIMAL(18,2),
        sell DECIMAL(18,2), net REAL, detail JSON)",
    share: 1000,
    least: 30,
    row: |random, place, row| {
        let stock = random.pick(STOCKS);
        let (buy, sell) = ((random.unit() * 1e10).round() / 100.0, (random.unit() * 1e10).round() / 100.0);
        row.extend([
            text(&shanghai(place.at)[..10]),
            text(stock.0),
            text(stock.1),
            text(random.pick(&["日涨幅偏离值达7%", "日换手率达20%", "连续三个交易日涨幅偏离值累计20%"])),
            text(random.pick(&["机构专用", "沪股通专用", "东方财富拉萨团结路", "国泰君安上海江苏路"])),
            Value::Real(buy),
            Value::Real(sell),
            Value::Real(buy - sell),
            text(format!(r#"{{"席位": {}, "上榜": true}}"#, random.below(10))),
        ]);
    },
    dirt: &[
        (Dirt::Empty, "sell", Often::OneOf(30)),
        (Dirt::None, "detail", Often::OneOf(45)),
        (Dirt::Nan, "net", Often::Rows(3)),
    ],
    indexes: &["CREATE INDEX idx_longhubang_day ON longhubang(trade_date, code)"],
};

const SYSTEM_LOGS: Table = Table {
    name: "system_logs",
    create: "CREATE TABLE system_logs (
        id INTEGER PRIMARY KEY, level VARCHAR(8) NOT NULL CHECK (level IN ('DEBUG', 'INFO', 'WARN', 'ERROR')), module TEXT,
        message TEXT, context TEXT, ts INTEGER NOT NULL, host TEXT DEFAULT 'localhost')",
    share: 2548,
    least: 50,
    row: |random, place, row| {
        row.extend([
            Value::Integer(place.index + 1),
            text(random.pick(&["INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"])),
            text(random.pick(&["scheduler", "quotes", "ai.agent", "broker"])),
            text(format!("处理 {} 完成, {} ms", random.pick(STOCKS).1, random.below(900))),
            if random.below(3) == 0 { text(format!(r#"{{"trace": "{:016x}"}}"#, random.next())) } else { Value::Null },
            Value::Integer(place.at * 1000 + random.below(1000)),
            text("localhost"),
        ]);
    },
    dirt: &[(Dirt::Nul, "message", Often::Rows(3)), (Dirt::Empty, "context", Often::OneOf(17)), (Dirt::BrokenJson, "context", Often::Rows(4))],
    indexes: &["CREATE INDEX idx_logs_ts ON system_logs(ts)"],
};

/// Stocks: code and name. Some codes begin with zeros.
#[rustfmt::skip]
const STOCKS: &[(&str, &str)] = &[
    ("000001", "平安银行"), ("000002", "万科A"), ("000063", "中兴通讯"), ("000333", "美的集团"), ("000651", "格力电器"),
    ("000725", "京东方A"), ("000858", "五粮液"), ("002230", "科大讯飞"), ("002415", "海康威视"), ("002594", "比亚迪"),
    ("300059", "东方财富"), ("300750", "宁德时代"), ("600000", "浦发银行"), ("600036", "招商银行"), ("600519", "贵州茅台"),
    ("601318", "中国平安"), ("601899", "紫金矿业"), ("688981", "中芯国际"),
];
const VIEWS: &[&str] = &["均线多头排列", "放量突破", "主力资金流出", "缩量回调", "政策利好", "业绩预增", "估值偏高"];
const SECTORS: &[&str] = &["半导体", "白酒", "新能源车", "银行", "医药", "军工", "光伏", "传媒", "煤炭", "人工智能"];

// ---------------------------------------------------------------- creation of the files

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

    /// Returns a stock price, with two decimal places.
    fn price(&mut self) -> f64 {
        (300 + self.below(180_000)) as f64 / 100.0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as i64) as usize]
    }
}

/// The length of the history: half a year.
const SPAN: i64 = 180 * 86_400;

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

/// Formats a time without a zone, local to Asia/Shanghai, which has no daylight saving time.
fn shanghai(at: i64) -> String {
    let local = DateTime::from_timestamp(at + 8 * 3600, 0).unwrap_or_default();
    local.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Returns the number of rows of a table.
fn rows_of(table: &Table, total: i64) -> i64 {
    (total * table.share / 10_000).max(table.least)
}

/// Creates files with invalid values in a folder, for tests.
#[allow(dead_code)]
pub(crate) fn make_in(folder: &Path, rows: i64) -> Result<serde_json::Value> {
    make(&Args { out: folder.to_owned(), rows, seed: 1, until: None, clean: false, one_file: false, facts: true })
}

/// Creates all files in parallel, and returns their description.
fn make(args: &Args) -> Result<serde_json::Value> {
    std::fs::create_dir_all(&args.out)?;
    let day = args.until.unwrap_or_else(|| Utc::now().date_naive());
    // In Shanghai, a day begins eight hours before it begins in UTC.
    let until = day.and_time(NaiveTime::MIN).and_utc().timestamp() - 8 * 3600;
    let files: Vec<(&str, Journal, u32, Vec<&Table>, String)> = if args.one_file {
        let tables = FILES.iter().flat_map(|file| file.tables);
        let mut names = BTreeSet::new();
        let tables = tables.filter(|table| names.insert(table.name)).collect();
        let more: String = FILES.iter().map(|file| file.more).collect();
        vec![("trading.db", Journal::Delete, 4096, tables, more)]
    } else {
        let parts = FILES
            .iter()
            .map(|file| (file.name, file.journal, file.page_size, file.tables.iter().collect(), file.more.to_owned()));
        parts.collect()
    };
    if let Some((name, ..)) = files.iter().find(|file| args.out.join(file.0).exists()) {
        return Err(format!("{name} already exists").into());
    }
    let facts: Vec<serde_json::Value> = std::thread::scope(|scope| {
        let made: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(number, (name, journal, page_size, tables, more))| {
                let maker =
                    Maker { args, until, random: Random(args.seed ^ ((number as u64) << 32)), found: BTreeMap::new() };
                scope.spawn(move || maker.file(name, *journal, *page_size, tables, more))
            })
            .collect();
        made.into_iter().map(|file| file.join().map_err(|_| "a thread panicked")?).collect::<Result<_>>()
    })?;
    let (first, second) = (rows_of(&NOTIFICATIONS, args.rows), rows_of(&OLD_NOTIFICATIONS, args.rows));
    let shared = if args.one_file { 0 } else { first.min(second) };
    Ok(json!({
        "rows": facts.iter().filter_map(|file| file["rows"].as_i64()).sum::<i64>(),
        "zone": "Asia/Shanghai",
        "until": shanghai(until),
        "files": facts,
        "duplicate_keys": { "table": "notifications", "files": ["monitor.db", "portfolio.db"], "count": shared },
    }))
}

/// The state for the creation of one file.
struct Maker<'a> {
    args: &'a Args,
    until: i64,
    random: Random,
    /// The invalid values, by table, column and kind.
    found: BTreeMap<(&'static str, &'static str, &'static str), Found>,
}

/// The rows with one kind of invalid value in a column.
#[derive(Default)]
struct Found {
    count: i64,
    rowids: Vec<i64>,
}

impl Maker<'_> {
    fn file(
        mut self,
        name: &str,
        journal: Journal,
        page_size: u32,
        tables: &[&Table],
        more: &str,
    ) -> Result<serde_json::Value> {
        let mut database = Connection::open(self.args.out.join(name))?;
        database.pragma_update(None, "page_size", page_size)?;
        for (pragma, value) in
            [("journal_mode", "off"), ("synchronous", "off"), ("foreign_keys", "off"), ("cache_size", "-65536")]
        {
            database.pragma_update(None, pragma, value)?;
        }
        let last = if journal == Journal::Wal { 10 } else { 0 };
        let work = database.transaction()?;
        for (number, table) in tables.iter().enumerate() {
            work.execute_batch(&self.create(table))?;
            let rows = rows_of(table, self.args.rows);
            self.fill(&work, table, 0..rows - if number == 0 { last } else { 0 })?;
            // A clean file has no partial indexes, because some programs do not copy them unchanged.
            for index in table.indexes.iter().filter(|sql| !(self.args.clean && sql.contains(" WHERE "))) {
                work.execute_batch(index)?;
            }
        }
        work.execute_batch(more)?;
        work.commit()?;
        if journal == Journal::Wal {
            database.pragma_update(None, "journal_mode", "wal")?;
            database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            let rows = rows_of(tables[0], self.args.rows);
            let work = database.transaction()?;
            self.fill(&work, tables[0], rows - last..rows)?;
            work.commit()?;
        }
        database.close().map_err(|(_, error)| error)?;
        let dirt: Vec<serde_json::Value> = self
            .found
            .into_iter()
            .map(|((table, column, kind), Found { count, rowids })| {
                json!({ "file": name, "table": table, "column": column, "kind": kind, "count": count, "rowids": rowids })
            })
            .collect();
        let rows = |table: &Table| rows_of(table, self.args.rows);
        let counts: BTreeMap<&str, i64> = tables.iter().map(|table| (table.name, rows(table))).collect();
        Ok(json!({ "file": name, "rows": counts.values().sum::<i64>(), "tables": counts, "dirt": dirt }))
    }

    /// Returns the CREATE TABLE statement. In a clean file, its defaults are supported by every program.
    fn create(&self, table: &Table) -> String {
        let sql = table.create;
        if !self.args.clean {
            return sql.to_owned();
        }
        ["(datetime('now'))", "(datetime('now', 'localtime'))"]
            .into_iter()
            .fold(sql.to_owned(), |sql, default| sql.replace(default, "CURRENT_TIMESTAMP"))
    }

    /// Inserts a range of rows into a table, and records the invalid values.
    fn fill(&mut self, database: &Connection, table: &Table, range: Range<i64>) -> Result<()> {
        let columns: Vec<String> = {
            let statement = database.prepare(&format!("SELECT * FROM {}", table.name))?;
            statement.column_names().map(str::to_owned).collect()
        };
        let mut kinds = Vec::new();
        for &(kind, column, often) in table.dirt.iter().filter(|_| !self.args.clean) {
            let place = columns.iter().position(|name| name == column).ok_or("no such column for an invalid value")?;
            let found = self.found.remove(&(table.name, column, kind.name())).unwrap_or_default();
            kinds.push((kind, place, often, found));
        }
        let mut sql = format!("INSERT INTO {} VALUES (?", table.name);
        for _ in 1..columns.len() {
            sql.write_str(", ?")?;
        }
        sql.push(')');
        let mut insert = database.prepare(&sql)?;
        let rows = rows_of(table, self.args.rows);
        let portfolios = rows_of(&PORTFOLIOS, self.args.rows);
        let step = SPAN as f64 / rows as f64;
        let mut values = Vec::with_capacity(columns.len());
        for index in range {
            let at = self.until - SPAN + (step * (index as f64 + self.random.unit())) as i64;
            let place = Place { index, rows, at, until: self.until, portfolios };
            values.clear();
            (table.row)(&mut self.random, &place, &mut values);
            // If two kinds apply to one value, the first is used.
            let mut taken = 0_u64;
            for (shift, (kind, column, often, found)) in kinds.iter_mut().enumerate() {
                if taken & (1 << *column) == 0 && often.applies(index, rows, shift as i64) {
                    taken |= 1 << *column;
                    values[*column] = kind.value(&values[*column], &place, found.count);
                    found.count += 1;
                    if found.rowids.len() < MOST_ROWIDS {
                        found.rowids.push(index + 1);
                    }
                }
            }
            insert.execute(params_from_iter(&values))?;
        }
        for ((kind, column, ..), (.., found)) in table.dirt.iter().zip(kinds).filter(|(_, (.., found))| found.count > 0)
        {
            self.found.insert((table.name, column, kind.name()), found);
        }
        Ok(())
    }
}

/// The maximum number of recorded rowids per kind.
const MOST_ROWIDS: usize = 100;
