//! Lifeboat and the program `age` decrypt what the other one has encrypted.

use crate::support::have;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use lifeboat::archive::{
    ArchiveReader, ArchiveWriter, Compression, DecryptedArchive, EncryptWith, EncryptingWriter, Keys, Recipient,
    generate_key,
};
use lifeboat::platform::digest::Sha256;
use lifeboat::platform::entries::EntryWriter;
use lifeboat::platform::error::Kind;
use lifeboat::platform::ranged::Ranged;
use lifeboat::platform::secret::Secret;

/// Lengths near the chunk size of age, which is 65,536 bytes.
const SIZES: [usize; 6] = [0, 1, 65_535, 65_536, 65_537, 1_000_000];

fn plaintext(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn encrypt(bytes: &[u8], encrypt_with: &EncryptWith) -> Vec<u8> {
    let mut writer = EncryptingWriter::create(Vec::new(), encrypt_with).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap().0
}

/// Decrypts with Lifeboat, both by ranges and as a stream.
fn decrypt(cipher: Vec<u8>, keys: &Keys) -> Vec<u8> {
    let decrypted = DecryptedArchive::open(Arc::new(cipher.clone()), keys).unwrap();
    let mut bytes = vec![0; usize::try_from(decrypted.len()).unwrap()];
    for (number, piece) in bytes.chunks_mut(100_000).enumerate() {
        decrypted.read_at(number as u64 * 100_000, piece).unwrap();
    }
    let mut streamed = Vec::new();
    decrypted.stream(&cipher[..]).unwrap().read_to_end(&mut streamed).unwrap();
    assert!(streamed == bytes);
    bytes
}

/// Runs a program with input on its stdin.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} is missing ({error}): run scripts/test"));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program may close its stdin before it has read everything.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

/// Requires that a program succeeded, and returns its stdout.
#[track_caller]
fn stdout_of(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs age on a new terminal, because it reads passphrases only from a terminal. It asks for it `count` times.
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
    stdout_of(run("python3", &all, b""));
}

#[test]
fn age_decrypts_what_lifeboat_encrypts_to_a_key_of_age_keygen() {
    if !have(&["age", "age-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.txt");
    let key = key.to_str().unwrap();
    stdout_of(run("age-keygen", &["-o", key], b""));
    let mut keys = Keys::new();
    keys.add_identity_file(Path::new(key)).unwrap();
    let public = String::from_utf8(stdout_of(run("age-keygen", &["-y", key], b""))).unwrap();
    let recipient: Recipient = public.parse().unwrap();
    assert!(keys.recipients().iter().eq([&recipient]));
    let encrypt_with = EncryptWith::Recipients(vec![recipient, generate_key(chrono::Utc::now()).0]);
    for size in SIZES {
        let cipher = encrypt(&plaintext(size), &encrypt_with);
        assert!(stdout_of(run("age", &["--decrypt", "-i", key], &cipher)) == plaintext(size));
        assert!(decrypt(cipher, &keys) == plaintext(size));
    }
}

#[test]
fn age_and_lifeboat_decrypt_what_age_encrypts_to_a_key_of_lifeboat() {
    if !have(&["age", "age-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (public, text) = generate_key(chrono::Utc::now());
    let key = folder.path().join("key.txt");
    fs::write(&key, text.expose()).unwrap();
    let key = key.to_str().unwrap();
    assert_eq!(stdout_of(run("age-keygen", &["-y", key], b"")), format!("{public}\n").as_bytes());
    let mut keys = Keys::new();
    keys.add_identity(text.expose(), "the key").unwrap();
    for size in SIZES {
        let cipher = stdout_of(run("age", &["-r", &public.to_string()], &plaintext(size)));
        assert!(stdout_of(run("age", &["--decrypt", "-i", key], &cipher)) == plaintext(size));
        assert!(decrypt(cipher, &keys) == plaintext(size));
    }
    let armored = stdout_of(run("age", &["--armor", "-r", &public.to_string()], b"text"));
    let error = DecryptedArchive::open(Arc::new(armored), &keys).map(|_| ()).unwrap_err();
    assert_eq!(error.kind, Kind::Problem);
    assert!(error.message.contains("text form"), "{}", error.full_message());
}

#[test]
fn age_and_lifeboat_decrypt_each_others_files_with_a_passphrase() {
    if !have(&["age", "python3"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let passphrase = "correct horse battery st\u{e4}ple";
    let mut keys = Keys::new();
    keys.add_passphrase(Secret::new("another"));
    keys.add_passphrase(Secret::new(passphrase));

    let encrypt_with = EncryptWith::Passphrase(Secret::new(passphrase));
    fs::write(path("ours.age"), encrypt(&plaintext(70_000), &encrypt_with)).unwrap();
    age_with_passphrase(&["--decrypt", "-o", &path("ours"), &path("ours.age")], passphrase, 1);
    assert!(fs::read(path("ours")).unwrap() == plaintext(70_000));
    assert!(decrypt(fs::read(path("ours.age")).unwrap(), &keys) == plaintext(70_000));

    fs::write(path("theirs"), plaintext(70_000)).unwrap();
    age_with_passphrase(&["--passphrase", "-o", &path("theirs.age"), &path("theirs")], passphrase, 2);
    assert!(decrypt(fs::read(path("theirs.age")).unwrap(), &keys) == plaintext(70_000));
}

#[test]
fn an_encrypted_archive_is_read_by_lifeboat_and_by_age_and_tar() {
    if !have(&["age", "tar"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (public, text) = generate_key(chrono::Utc::now());
    let key = folder.path().join("key.txt");
    fs::write(&key, text.expose()).unwrap();
    let mut keys = Keys::new();
    keys.add_identity(text.expose(), "the key").unwrap();

    let encrypted = EncryptingWriter::create(Vec::new(), &EncryptWith::Recipients(vec![public])).unwrap();
    let compression: Compression = "gzip:1".parse().unwrap();
    let mut writer = ArchiveWriter::create(encrypted, compression, 2, 1_795_280_701).unwrap();
    writer.append("README.txt", b"read me").unwrap();
    writer.append("data/app.db", &plaintext(10_000_000)).unwrap();
    writer.append("manifest.json", b"{}").unwrap();
    let (encrypted, inner) = writer.finish().unwrap();
    let (cipher, outer) = encrypted.finish().unwrap();
    assert_eq!((outer.bytes, outer.sha256), (cipher.len() as u64, Sha256::of(&cipher)));

    let decrypted = Arc::new(DecryptedArchive::open(Arc::new(cipher.clone()), &keys).unwrap());
    assert_eq!(decrypted.len(), inner.bytes);
    let reader = ArchiveReader::open(decrypted, 2).unwrap();
    assert!(reader.read_entry("data/app.db", 10_000_000).unwrap() == plaintext(10_000_000));
    let walk = reader.inspect().unwrap();
    assert!(walk.problems.is_empty() && walk.sha256 == inner.sha256);

    let archive = folder.path().join("archive.tar.gz.age");
    fs::write(&archive, cipher).unwrap();
    let line = format!("age --decrypt -i {} {} | tar xzO data/app.db", key.display(), archive.display());
    assert!(stdout_of(run("sh", &["-c", &line], b"")) == plaintext(10_000_000));
}
