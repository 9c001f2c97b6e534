//! What is encrypted here opens with the stock `age`, and the other way round.

use crate::support::have;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use lifeboat::archive::{
    ArchiveReader, ArchiveWriter, Compression, Keys, Recipient, SealedWriter, Sealing, Unsealed, generate_key,
};
use lifeboat::platform::digest::Sha256;
use lifeboat::platform::error::Kind;
use lifeboat::platform::ranged::Ranged;
use lifeboat::platform::secret::Secret;

/// Sizes about the chunks that age has.
const SIZES: [usize; 6] = [0, 1, 65_535, 65_536, 65_537, 1_000_000];

fn plain(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn seal(bytes: &[u8], sealing: &Sealing) -> Vec<u8> {
    let mut writer = SealedWriter::create(Vec::new(), sealing).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap().0
}

/// Opens it with our reader, and reads it by ranges and in order.
fn unseal(cipher: Vec<u8>, keys: &Keys) -> Vec<u8> {
    let unsealed = Unsealed::open(Arc::new(cipher.clone()), keys).unwrap();
    let mut bytes = vec![0; usize::try_from(unsealed.len()).unwrap()];
    for (number, piece) in bytes.chunks_mut(100_000).enumerate() {
        unsealed.read_at(number as u64 * 100_000, piece).unwrap();
    }
    let mut streamed = Vec::new();
    unsealed.stream(&cipher[..]).unwrap().read_to_end(&mut streamed).unwrap();
    assert!(streamed == bytes);
    bytes
}

/// Runs a program with bytes on its stdin.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} is missing ({error}): run scripts/test"));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // One that has seen enough closes its end.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

#[track_caller]
fn ok(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs the stock age on a terminal of its own, where it asks for a passphrase (`count` times).
fn age_with_passphrase(arguments: &[&str], passphrase: &str, count: usize) {
    let script = "
import os, pty, sys
passphrase, count = sys.argv[1].encode() + b'\\n', int(sys.argv[2])
process, terminal = pty.fork()
if process == 0:
    os.execvp('age', ['age'] + sys.argv[3:])
seen = b''
try:
    while True:
        piece = os.read(terminal, 1024)
        if not piece:
            break
        seen += piece
        if count and seen.rstrip().endswith(b':'):
            os.write(terminal, passphrase)
            seen, count = b'', count - 1
except OSError:
    pass
sys.stderr.write(seen.decode(errors='replace'))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
";
    let count = count.to_string();
    let all = [&["-c", script, passphrase, &count], arguments].concat();
    ok(run("python3", &all, b""));
}

#[test]
fn the_stock_age_opens_what_is_encrypted_to_a_key_of_age_keygen() {
    if !have(&["age", "age-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.txt");
    let key = key.to_str().unwrap();
    ok(run("age-keygen", &["-o", key], b""));
    let mut keys = Keys::new();
    keys.add_identity_file(Path::new(key)).unwrap();
    let public = String::from_utf8(ok(run("age-keygen", &["-y", key], b""))).unwrap();
    let recipient: Recipient = public.parse().unwrap();
    assert!(keys.recipients().iter().eq([&recipient]));
    let sealing = Sealing::Recipients(vec![recipient, generate_key(chrono::Utc::now()).0]);
    for size in SIZES {
        let cipher = seal(&plain(size), &sealing);
        assert!(ok(run("age", &["--decrypt", "-i", key], &cipher)) == plain(size));
        assert!(unseal(cipher, &keys) == plain(size));
    }
}

#[test]
fn what_the_stock_age_encrypts_to_our_keys_opens_here_and_there() {
    if !have(&["age", "age-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (public, text) = generate_key(chrono::Utc::now());
    let key = folder.path().join("key.txt");
    fs::write(&key, text.expose()).unwrap();
    let key = key.to_str().unwrap();
    assert_eq!(ok(run("age-keygen", &["-y", key], b"")), format!("{public}\n").as_bytes());
    let mut keys = Keys::new();
    keys.add_identity(text.expose(), "the key").unwrap();
    for size in SIZES {
        let cipher = ok(run("age", &["-r", &public.to_string()], &plain(size)));
        assert!(ok(run("age", &["--decrypt", "-i", key], &cipher)) == plain(size));
        assert!(unseal(cipher, &keys) == plain(size));
    }
    let armored = ok(run("age", &["--armor", "-r", &public.to_string()], b"text"));
    let error = Unsealed::open(Arc::new(armored), &keys).map(|_| ()).unwrap_err();
    assert_eq!(error.kind, Kind::Problem);
    assert!(error.message.contains("text form"), "{}", error.whole());
}

#[test]
fn passphrases_open_what_either_has_encrypted() {
    if !have(&["age", "python3"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let passphrase = "correct horse battery st\u{e4}ple";
    let mut keys = Keys::new();
    keys.add_passphrase(Secret::new("another"));
    keys.add_passphrase(Secret::new(passphrase));

    fs::write(path("ours.age"), seal(&plain(70_000), &Sealing::Passphrase(Secret::new(passphrase)))).unwrap();
    age_with_passphrase(&["--decrypt", "-o", &path("ours"), &path("ours.age")], passphrase, 1);
    assert!(fs::read(path("ours")).unwrap() == plain(70_000));
    assert!(unseal(fs::read(path("ours.age")).unwrap(), &keys) == plain(70_000));

    fs::write(path("theirs"), plain(70_000)).unwrap();
    age_with_passphrase(&["--passphrase", "-o", &path("theirs.age"), &path("theirs")], passphrase, 2);
    assert!(unseal(fs::read(path("theirs.age")).unwrap(), &keys) == plain(70_000));
}

#[test]
fn an_encrypted_archive_is_read_through_its_encryption_and_by_age_and_tar() {
    if !have(&["age", "tar"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (public, text) = generate_key(chrono::Utc::now());
    let key = folder.path().join("key.txt");
    fs::write(&key, text.expose()).unwrap();
    let mut keys = Keys::new();
    keys.add_identity(text.expose(), "the key").unwrap();

    let sealed = SealedWriter::create(Vec::new(), &Sealing::Recipients(vec![public])).unwrap();
    let compression: Compression = "gzip:1".parse().unwrap();
    let mut writer = ArchiveWriter::create(sealed, compression, 2, 1_795_280_701).unwrap();
    writer.append("README.txt", b"read me").unwrap();
    writer.append("data/app.db", &plain(10_000_000)).unwrap();
    writer.append("manifest.json", b"{}").unwrap();
    let (sealed, inner) = writer.finish().unwrap();
    let (cipher, outer) = sealed.finish().unwrap();
    assert_eq!((outer.bytes, outer.sha256), (cipher.len() as u64, Sha256::of(&cipher)));

    let unsealed = Arc::new(Unsealed::open(Arc::new(cipher.clone()), &keys).unwrap());
    assert_eq!(unsealed.len(), inner.bytes);
    let reader = ArchiveReader::open(unsealed, 2).unwrap();
    assert!(reader.read_entry("data/app.db", 10_000_000).unwrap() == plain(10_000_000));
    let walk = reader.inspect().unwrap();
    assert!(walk.problems.is_empty() && walk.sha256 == inner.sha256);

    let archive = folder.path().join("archive.tar.gz.age");
    fs::write(&archive, cipher).unwrap();
    let line = format!("age --decrypt -i {} {} | tar xzO data/app.db", key.display(), archive.display());
    assert!(ok(run("sh", &["-c", &line], b"")) == plain(10_000_000));
}
