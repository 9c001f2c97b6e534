//! A machine whose clock is wrong.

use std::process::Command;

use super::bench::Bench;
use crate::support::LIFEBOAT;

#[test]
#[ignore = "needs S3 servers"]
fn wrong_clock_is_told_and_nothing_half_is_left() {
    for (offset, words) in [("-2h", "behind"), ("+2h", "ahead")] {
        let bench = Bench::new();
        let store = bench.direct_url();
        let mut command = Command::new("faketime");
        command.args(["-f", offset, LIFEBOAT, "snapshot", "app.db", "--store", &store]);
        command.current_dir(bench.sandbox.root());
        bench.server.identify(&mut command);
        let run = bench.sandbox.finish(command);
        // The service refuses a signature of another hour, once; the client then takes the service's word for the time.
        assert_eq!(run.exit(), 0, "{}", run.transcript());
        let is_told = run.stderr().contains("clock is") && run.stderr().contains(words);
        assert!(is_told, "{}", run.transcript());
        assert_eq!(bench.ids().len(), 1);
        bench.direct(&["verify", "--all"]).code(0);
        let mut doctor = Command::new("faketime");
        doctor.args(["-f", offset, LIFEBOAT, "doctor", "--store", &store]).current_dir(bench.sandbox.root());
        bench.server.identify(&mut doctor);
        let run = bench.sandbox.finish(doctor);
        assert_eq!(run.exit(), 3, "{}", run.transcript());
        assert!(run.stdout().contains("this machine's clock is"), "{}", run.transcript());
    }
}
