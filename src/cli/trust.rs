//! The options that use snapshots which are not trusted.

use std::sync::Arc;

use clap::Args;

use crate::config::Config;
use crate::platform::signature::SigningKey;
use crate::snapshots::trust::{ALLOW_PLAINTEXT, ALLOW_UNSIGNED, Plaintext, Signer, Trust};
use crate::store::StoreUrl;

/// The snapshots that a subcommand uses although they are not trusted.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct TrustArgs {
    /// Also use snapshots that are not encrypted, where the config or an older snapshot of the source is
    #[arg(long)]
    allow_plaintext: bool,
    /// Also use snapshots that no key of the config's 'trusted' has signed
    #[arg(long)]
    allow_unsigned: bool,
    /// True for a subcommand that has these options.
    #[arg(skip = true)]
    are_options: bool,
}

impl TrustArgs {
    /// Returns the options that were given.
    fn given(self) -> Vec<&'static str> {
        let given = [(self.allow_plaintext, ALLOW_PLAINTEXT), (self.allow_unsigned, ALLOW_UNSIGNED)];
        given.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option).collect()
    }

    /// Returns the rules by which snapshots are trusted. `stores` are those of the run.
    pub(super) fn trust(self, config: Option<&Config>, stores: &[StoreUrl]) -> Trust {
        let plaintext = match config.map(Config::encryption) {
            _ if self.allow_plaintext => Plaintext::Allowed,
            Some(Ok(encryption)) if encryption.allow_plaintext => Plaintext::Allowed,
            Some(Ok(encryption)) if encryption.encrypts() => Plaintext::Refused,
            // The section is written, and a variable or a file of it is missing: it is there to encrypt.
            Some(Err(_)) => Plaintext::Refused,
            Some(Ok(_)) | None => Plaintext::RefusedAfterEncrypted,
        };
        // With keys in the config, snapshots may be encrypted in every store of it, also if the command line names one.
        let expects_encryption =
            config.is_some_and(|config| config.encryption().map_or(true, |found| found.is_written));
        let mut history = stores.to_vec();
        if let Some(Ok(configured)) = config.filter(|_| expects_encryption).map(Config::stores) {
            let others = configured.iter().map(|configured| &configured.store);
            history.extend(others.filter(|other| !stores.iter().any(|store| store.is_same_place(other))).cloned());
        }
        let trust = Trust::default().with_plaintext(plaintext).with_history(history, expects_encryption);
        let trust = match self.are_options {
            true => trust.with_options(self.given()),
            false => trust,
        };
        match config.map(Config::signing) {
            None => trust,
            Some(Ok(signing)) => {
                let signer = match signing.key_file.as_deref().map(SigningKey::read) {
                    None => Signer::None,
                    Some(Ok(key)) => Signer::Key(Arc::new(key)),
                    Some(Err(error)) => Signer::Unusable(Arc::new(error)),
                };
                trust.with_trusted(signing.trusted.clone(), self.allow_unsigned).with_signer(signer)
            }
            // The keys are not known, so no signature is that of one of them.
            Some(Err(error)) => {
                let signer = Signer::Unusable(Arc::new(error));
                trust.with_trusted(Some(Vec::new()), self.allow_unsigned).with_signer(signer)
            }
        }
    }
}
