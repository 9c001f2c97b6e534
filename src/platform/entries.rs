//! The interface between databases and archives: an archive is a sequence of entries, each with a path and content.

use crate::platform::digest::Sha256;
use crate::platform::error::Result;

/// Writes the entries of an archive, one after the other.
pub trait EntryWriter {
    /// Starts an entry with exactly `bytes` bytes of content.
    fn start_entry(&mut self, path: &str, bytes: u64) -> Result<()>;

    /// Adds content to the current entry. More than the announced number of bytes is an error.
    fn write(&mut self, content: &[u8]) -> Result<()>;

    /// Ends the current entry. Less content than announced is an error.
    fn finish_entry(&mut self) -> Result<()>;

    /// Separates what follows from what was written: later entries can be read without reading earlier ones. Allowed
    /// only between entries.
    fn cut(&mut self) -> Result<()>;

    /// Adds a small entry in one call.
    fn append(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.start_entry(path, content.len() as u64)?;
        self.write(content)?;
        self.finish_entry()
    }
}

/// Receives the content of entries, in the order of the archive. The content is verified only when the function that
/// reads the archive has returned without an error.
pub trait EntryVisitor {
    /// An entry begins.
    fn start(&mut self, path: &str, bytes: u64) -> Result<()>;

    /// The next bytes of the entry.
    fn data(&mut self, bytes: &[u8]) -> Result<()>;

    /// The entry has ended, and its content is what was written.
    fn end(&mut self) -> Result<()>;
}

/// The maximum number of bytes of an encoded name. With a suffix such as `-journal`, it still fits in the 255 bytes of
/// a file name.
const MAX_PART_BYTES: usize = 247;

/// Encodes any name as one part of a path. Different names give different parts.
///
/// Control characters and `% / \\ : " * ? < > |` are percent-encoded, byte by byte of their UTF-8, in upper case;
/// so is the first dot of a name made of dots only. The empty name is `%`. If the result is longer than 247 bytes, it
/// is cut to its first 200 (fewer if a character would be split), followed by `%~` and the first 32 hexadecimal
/// digits of the name's SHA-256.
#[must_use]
pub fn encode_name(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() || "%/\\:\"*?<>|".contains(character) {
            let mut utf8 = [0; 4];
            character.encode_utf8(&mut utf8).bytes().for_each(|byte| part.push_str(&format!("%{byte:02X}")));
        } else {
            part.push(character);
        }
    }
    if part.is_empty() {
        part.push('%');
    } else if part.bytes().all(|byte| byte == b'.') {
        part.replace_range(..1, "%2E");
    }
    if part.len() > MAX_PART_BYTES {
        part.truncate(part.floor_char_boundary(200));
        part.push_str("%~");
        part.push_str(&Sha256::of(name.as_bytes()).to_string()[..32]);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_apart_and_harmless() {
        let (long, longer) = ("日".repeat(100), "%".repeat(300));
        let names = [
            long.as_str(),
            longer.as_str(),
            "a.b",
            "a/b",
            "a%2Fb",
            ".",
            "..",
            "...",
            "../../x",
            "",
            "%",
            "a\nb",
            "数据",
            "a b",
            "\\",
            "a:b",
            "-rf",
            "'",
            "%2E",
        ];
        let mut encoded: Vec<String> = names.iter().map(|name| encode_name(name)).collect();
        for part in &encoded {
            assert!(
                !part.is_empty()
                    && !part.contains(['/', '\\', '\n'])
                    && part.bytes().any(|byte| byte != b'.')
                    && part.len() <= MAX_PART_BYTES
            );
        }
        encoded.sort();
        encoded.dedup();
        assert_eq!(encoded.len(), names.len());
    }
}
