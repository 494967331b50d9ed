//! Parses a password from a file.

use std::fmt;
use std::sync::Arc;

use super::watched::FileFault;

/// Maximum length of a password. A token of AWS IAM has one or two thousand characters.
const PASSWORD_BYTES_MAX: usize = 7 * 1024;

/// A password. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Creates a password from its text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text. Use it to log in only; never show it.
    #[must_use]
    pub const fn expose(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Returns the password in the first file. A line end at the end of the file is not part of it.
pub(super) fn password(files: &[Vec<u8>]) -> Result<Arc<Password>, FileFault> {
    let fault = |what: &str| FileFault { file: 0, what: what.to_owned() };
    let text = std::str::from_utf8(&files[0]).map_err(|_| fault("is not UTF-8 text"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(fault("is empty"));
    }
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(fault("is longer than 7 KiB"));
    }
    if text.contains(char::is_control) {
        return Err(fault("holds something else than one line of text"));
    }
    Ok(Arc::new(Password(text.to_owned())))
}
