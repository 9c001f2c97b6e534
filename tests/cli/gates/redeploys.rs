//! Ten redeploys of a container without a volume, with crashes, overlaps, expired rows and an outage of the store among
//! them. Every row is counted.

use std::collections::BTreeMap;

use rustix::process::Signal;

use super::guard::wait_for;
use super::guard_overlap::{Containers, orders, stop};
use crate::support::{Running, open};

/// The orders that the data must have, by the container that added them.
type Expected = BTreeMap<&'static str, u32>;

/// Requires that the database of a container has exactly these orders.
#[track_caller]
fn assert_orders(containers: &Containers, name: &str, expected: &Expected) {
    let connection = open(containers.sandbox.path(format!("{name}/app.db")));
    let mut statement = connection.prepare("SELECT note, count(*) FROM orders GROUP BY note").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?))).unwrap();
    let found: BTreeMap<String, u32> = rows.map(Result::unwrap).collect();
    let expected = expected.iter().filter(|(_, count)| **count > 0);
    let expected: BTreeMap<String, u32> = expected.map(|(note, count)| ((*note).to_owned(), *count)).collect();
    assert_eq!(found, expected, "{}", containers.log(name));
}

/// Starts a container that adds orders, and requires that it has all orders that are expected.
#[track_caller]
fn deploy(containers: &Containers, name: &'static str, add: u32, options: &[&str], expected: &mut Expected) -> Running {
    let running = containers.start_with(name, &orders(name, add), options);
    wait_for(&containers.sandbox.path(format!("{name}.count")));
    expected.insert(name, add);
    assert_orders(containers, name, expected);
    running
}

#[test]
fn ten_redeploys_lose_no_row_without_a_word() {
    let Some(containers) = Containers::new("[guard]\ngrace = \"60s\"\n") else { return };
    let mut expected = Expected::new();
    let backups = containers.sandbox.path("backups");

    stop(deploy(&containers, "one", 100, &[], &mut expected));

    // The second is killed, after an interval in which it saved its rows.
    let second = deploy(&containers, "two", 50, &["--every", "1s"], &mut expected);
    containers.wait_for_words("two", "150 rows");
    second.signal(Signal::KILL);
    let _ = second.finish();

    // The fourth starts before the third has ended.
    let third = deploy(&containers, "three", 10, &[], &mut expected);
    assert!(containers.log("three").contains("has ended without its last snapshot"), "{}", containers.log("three"));
    let fourth = containers.start_with("four", &orders("four", 5), &[]);
    containers.wait_for_words("four", "is still running");
    stop(third);
    wait_for(&containers.sandbox.path("four.count"));
    expected.insert("four", 5);
    assert_orders(&containers, "four", &expected);

    // The store is away when the fourth ends: its rows are lost, and both say so.
    std::fs::rename(&backups, containers.sandbox.path("away")).unwrap();
    stop(fourth);
    assert!(containers.log("four").contains("the last snapshot was not taken"), "{}", containers.log("four"));
    std::fs::rename(containers.sandbox.path("away"), &backups).unwrap();
    expected.remove("four");
    let fifth = deploy(&containers, "five", 7, &[], &mut expected);
    assert!(containers.log("five").contains("has ended without its last snapshot"), "{}", containers.log("five"));

    // The sixth is refused, because the fifth is not stopped for it.
    containers.start_with("six", "", &["--handover", "1s"]).finish().code(3);
    assert!(!containers.sandbox.path("six.count").exists());
    stop(fifth);

    // The seventh crashes at once, again and again.
    let count = containers.snapshots().len();
    for _ in 0..3 {
        let _ = std::fs::remove_dir_all(containers.sandbox.path("seven"));
        containers.start_with("seven", "SELECT * FROM no_such_table;", &[]).finish().code(9);
    }
    assert_eq!(containers.snapshots().len(), count, "{}", containers.log("seven"));

    // Old orders expire in the eighth.
    let eighth = containers.start_with("eight", "DELETE FROM orders WHERE id <= 12;", &[]);
    wait_for(&containers.sandbox.path("eight.count"));
    *expected.get_mut("one").unwrap() -= 12;
    assert_orders(&containers, "eight", &expected);
    stop(eighth);

    stop(deploy(&containers, "nine", 20, &["--every", "1s"], &mut expected));
    stop(deploy(&containers, "ten", 1, &[], &mut expected));
    assert_eq!(containers.snapshots()[0]["rows"], 176);
    assert_eq!(expected.values().sum::<u32>(), 176);
    assert!(containers.leases().is_empty());
}
