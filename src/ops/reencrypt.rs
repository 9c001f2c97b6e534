//! `copy --encrypt-to`: copies an encrypted snapshot and encrypts it to other keys. Its content, and the manifest in it,
//! stay as they are.

use std::io::Write as _;
use std::sync::Arc;

use crate::archive::{self, DecryptedArchive, EncryptWith, EncryptingWriter, MANIFEST_PATH};
use crate::ops::{Context, fetch};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::publish::{Publishing, ReadBack};
use crate::snapshots::rivals::Rivals;
use crate::snapshots::signatures::Signing;
use crate::snapshots::trust::Signer;

/// The most bytes by which the header of an archive for other keys can be longer.
const MAX_HEADER_GROWTH: u64 = 1 << 20;

/// Copies a snapshot of `from`, whose manifest outside the archive is `manifest`, to `to`, and encrypts it to other
/// keys. Returns the new manifest outside the archive.
///
/// Every byte that is read was hashed and authenticated, and the new archive is read back. A key of `context` must open
/// the archive; the secret halves of the new keys are not needed.
pub(crate) fn copy(
    from: &Catalog,
    to: &Catalog,
    manifest: &Manifest,
    encrypt_with: &EncryptWith,
    rivals: Rivals,
    context: &Context,
) -> Result<Manifest> {
    let id = &manifest.id;
    if !manifest.encrypted {
        return Err(Error::usage(format!(
            "the snapshot {id} is not encrypted, so it cannot be encrypted to other keys"
        ))
        .hint("copy it without --encrypt-to, or take a new snapshot with --encrypt-to"));
    }
    let opened = fetch::open(from, id, context)?;
    let inside = opened.reader.read_entry(MANIFEST_PATH, Manifest::MAX_BYTES)?;
    let cipher = from.open_archive(manifest)?;
    if Some(archive::stream(Arc::clone(&cipher), &mut |_| Ok(()))?) != manifest.sha256 {
        let message = "the SHA-256 of its archive is not the one in the manifest";
        return Err(Error::problem(format!("the snapshot {id} is damaged: {message}")));
    }
    let upload = to.start_archive(id, &manifest.archive, cipher.len() + MAX_HEADER_GROWTH)?;
    let plain = Arc::new(DecryptedArchive::open(cipher, &context.keys)?);
    let mut writer = EncryptingWriter::create(upload, encrypt_with)?;
    context.progress.start(&format!("encrypting {id}"), manifest.archive_bytes.unwrap_or(0));
    let written = archive::stream(plain, &mut |bytes| {
        context.progress.advance(bytes.len() as u64);
        writer.write_all(bytes).io(Kind::Failed, || "cannot write the encrypted archive".to_owned())
    });
    context.progress.finish();
    written?;
    let (upload, summary) = writer.finish()?;
    let opened_document = opened.document;
    let copied = Manifest { archive_bytes: Some(summary.bytes), sha256: Some(summary.sha256), ..opened.manifest };
    let document = copied.document_from(&inside)?;
    // The document must be read as the manifest that it stands for.
    let outside = Manifest::from_json(&document)?;
    // A signature says who made the snapshot, so only one that we or a trusted key have signed is signed anew.
    let signing = match from.uses_signatures() && from.is_signed_by_ours(id, &opened_document)? {
        true => Signing::New,
        false => Signing::Keep(None),
    };
    let is_signed = matches!((&signing, to.signer()), (Signing::New, Signer::Key(_) | Signer::Unusable(_)));
    if from.uses_signatures() && !is_signed {
        tracing::warn!(
            "the copy of {id} is not signed: its manifest is another one, and there is no key, or nobody who is trusted here \
             has signed the original"
        );
    }
    let options = Publishing { read_back: ReadBack::Always, rivals, signing };
    to.publish_document(upload, summary, &outside, &document, options)?;
    Ok(outside)
}
