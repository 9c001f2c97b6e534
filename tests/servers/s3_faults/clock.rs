//! Uploads from a machine whose clock is wrong.

use std::process::Command;

use super::bench::Setup;
use crate::support::LIFEBOAT;

#[test]
#[ignore = "needs S3 servers"]
fn a_wrong_clock_causes_a_warning_and_the_snapshot_succeeds() {
    for (offset, words) in [("-2h", "behind"), ("+2h", "ahead")] {
        let setup = Setup::new();
        let store = setup.direct_url();
        let mut command = Command::new("faketime");
        command.args(["-f", offset, LIFEBOAT, "snapshot", "app.db", "--store", &store]);
        command.current_dir(setup.sandbox.root());
        setup.server.set_credentials(&mut command);
        let run = setup.sandbox.finish(command);
        // The service refuses the first request, because its signature has another time. After that, the client uses
        // the time of the service.
        assert_eq!(run.exit(), 0, "{}", run.transcript());
        let has_warning = run.stderr().contains("clock is") && run.stderr().contains(words);
        assert!(has_warning, "{}", run.transcript());
        assert_eq!(setup.ids().len(), 1);
        setup.direct(&["verify", "--all"]).code(0);
        let mut doctor = Command::new("faketime");
        doctor.args(["-f", offset, LIFEBOAT, "doctor", "--store", &store]).current_dir(setup.sandbox.root());
        setup.server.set_credentials(&mut doctor);
        let run = setup.sandbox.finish(doctor);
        assert_eq!(run.exit(), 3, "{}", run.transcript());
        assert!(run.stdout().contains("this machine's clock is"), "{}", run.transcript());
    }
}
