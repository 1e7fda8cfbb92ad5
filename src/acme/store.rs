//! What outlasts the process: the account, and the certificate with its key.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde_json::Value;

use crate::config::AcmeConfig;
use crate::state::{self, StateError};

const ACCOUNT: &str = "acme-account.json";

/// In it, beside what is the crate's.
const KID: &str = "eab_kid";

pub struct Store {
    account: PathBuf,
    certificate: PathBuf,
    /// Accounts are of one authority, and some of an account that it knew before.
    directory: String,
    kid: Option<String>,
}

impl Store {
    pub fn new(config: &AcmeConfig) -> Store {
        Store {
            account: config.state_dir.join(ACCOUNT),
            certificate: config.certificate(),
            directory: config.directory.clone(),
            kid: config.external.as_ref().map(|external| external.kid.clone()),
        }
    }

    /// Where the certificate and its key are, in one file: it is replaced as a whole.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub fn account(&self) -> Result<Option<AccountCredentials>, StateError> {
        let Some(bytes) = state::read(&self.account)? else { return Ok(None) };
        let damaged = |_| StateError::Damaged(self.account.clone());
        let value: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        // Once it is made it needs nothing else, and the setting may go.
        let is_bound_so = self.kid.is_none() || value[KID].as_str() == self.kid.as_deref();
        if value["directory"].as_str() != Some(&self.directory) || !is_bound_so {
            return Ok(None);
        }
        serde_json::from_value(value).map(Some).map_err(damaged)
    }

    pub fn keep_account(&self, credentials: &AccountCredentials) -> Result<(), StateError> {
        let mut value = serde_json::to_value(credentials).expect("it is text all through");
        if let Some(kid) = &self.kid {
            value[KID] = kid.as_str().into();
        }
        let text = serde_json::to_vec(&value).expect("it is text all through");
        state::write(&self.account, &text)
    }

    pub fn forget_account(&self) -> Result<(), StateError> {
        match fs::remove_file(&self.account) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(StateError::Io(self.account.clone(), error))
            }
            _ => Ok(()),
        }
    }

    pub fn keep_certificate(&self, text: &str) -> Result<(), StateError> {
        state::write(&self.certificate, text.as_bytes())
    }
}
