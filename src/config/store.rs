//! The idempotency store: its address, how the worker logs in to it, and its certificates.

use std::sync::Arc;

use super::credentials::{self, file, kept};
use super::raw::Raw;
use super::read::Reader;
use super::store_url::store_url;
use super::table::{self, Variable};
use super::{IdempotencyConfig, IdempotencyStore, SecretUrl};
use crate::credentials::{PasswordFile, password};

/// The maximum length of the key prefix, in bytes; short, because every key contains the prefix.
const KEY_PREFIX_BYTES_MAX: usize = 64;

/// The maximum length of the name of an AWS cache (ElastiCache and MemoryDB: 40 or 50).
const CACHE_NAME_BYTES_MAX: usize = 50;

/// How the worker logs in to the shared store.
#[derive(Clone, Debug, Default)]
pub enum StoreAuth {
    /// With the user and password in the URL, if it has them.
    #[default]
    Url,
    /// With the user in the URL and the password in this file.
    File(Arc<PasswordFile>),
    /// With the user in the URL and a token of AWS IAM for this cache.
    AwsIam(AwsCache),
}

/// A cache of AWS, as its tokens name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsCache {
    /// The service that runs it.
    pub service: AwsCacheService,
    /// Its name, in lower case.
    pub name: String,
}

/// A service of AWS that runs Redis or Valkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsCacheService {
    /// ElastiCache, with nodes of its own.
    ElastiCache,
    /// ElastiCache Serverless.
    ElastiCacheServerless,
    /// MemoryDB.
    MemoryDb,
}

impl IdempotencyConfig {
    pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<Self> {
        let store = store(reader, raw);
        let auth = auth(reader, raw, store.as_ref());
        let uses_tls = store.as_ref().map(|store| match store {
            IdempotencyStore::Memory => false,
            IdempotencyStore::Redis(url) => url.uses_tls(),
        });
        let certificates = credentials::store(reader, raw, uses_tls);
        let ttl = reader.seconds(&table::IDEMPOTENCY_TTL, &raw.idempotency_ttl);
        let capacity = reader.count(&table::IDEMPOTENCY_CAPACITY, &raw.idempotency_capacity);
        let prefix = |value: &str| {
            let fits = value.len() <= KEY_PREFIX_BYTES_MAX
                && value.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| value.to_owned())
        };
        let key_prefix =
            reader.parsed(&table::IDEMPOTENCY_KEY_PREFIX, &raw.idempotency_key_prefix, prefix);
        let shared_order = reader.parsed(&table::SHARED_ORDER, &raw.shared_order, |value| {
            value.to_ascii_lowercase().parse().ok()
        });
        Some(Self {
            store: store?,
            auth: auth?,
            certificates,
            ttl: ttl?,
            capacity: capacity?,
            key_prefix: key_prefix?,
            shared_order,
        })
    }
}

fn store(reader: &mut Reader, raw: &Raw) -> Option<IdempotencyStore> {
    let variable = &table::IDEMPOTENCY_STORE;
    let given = reader.text(variable, &raw.idempotency_store)?;
    if given == "memory" {
        return Some(IdempotencyStore::Memory);
    }
    match store_url(given) {
        Ok(url) => Some(IdempotencyStore::Redis(url)),
        Err(fault) => {
            let fault = if fault.is_empty() { fault } else { format!("; {fault}") };
            reader.wrong(variable, given, format!("{}{fault}", variable.allowed));
            None
        }
    }
}

/// The words of `IDEMPOTENCY_STORE_AUTH`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthWord {
    Url,
    File,
    AwsIam,
}

/// Reads how the worker logs in.
///
/// A setting that would have no effect is an error, because it would not protect the store.
fn auth(reader: &mut Reader, raw: &Raw, store: Option<&IdempotencyStore>) -> Option<StoreAuth> {
    let word = |value: &str| match value.to_ascii_lowercase().as_str() {
        "url" => Some(AuthWord::Url),
        "file" => Some(AuthWord::File),
        "aws-iam" => Some(AuthWord::AwsIam),
        _ => None,
    };
    let variable = &table::IDEMPOTENCY_STORE_AUTH;
    let word = reader.parsed(variable, &raw.idempotency_store_auth, word);
    let path = (&table::IDEMPOTENCY_STORE_PASSWORD_FILE, &raw.idempotency_store_password_file);
    let cache = (&table::IDEMPOTENCY_STORE_AWS_CACHE, &raw.idempotency_store_aws_cache);
    let file = file(reader, path);
    let named = reader.parsed(cache.0, cache.1, aws_cache);
    // Where the word is wrong, nothing is known about the others.
    let word = word?;
    for (other, (variable, given)) in [(AuthWord::File, path), (AuthWord::AwsIam, cache)] {
        let Some(given) = given.as_deref().filter(|_| other != word) else { continue };
        let word = if other == AuthWord::File { "file" } else { "aws-iam" };
        reader.wrong(variable, given, format!("set only where IDEMPOTENCY_STORE_AUTH is {word}"));
    }
    match word {
        AuthWord::Url => Some(StoreAuth::Url),
        AuthWord::File => {
            fits(reader, store, "file", false);
            let file = required(reader, path, "file", file)?;
            kept(reader, password(file)).map(StoreAuth::File)
        }
        AuthWord::AwsIam => {
            fits(reader, store, "aws-iam", true);
            required(reader, cache, "aws-iam", named).map(StoreAuth::AwsIam)
        }
    }
}

/// Records an error for an address that does not go with a login other than that of the URL.
fn fits(reader: &mut Reader, store: Option<&IdempotencyStore>, word: &str, is_of_aws: bool) {
    let url = match store {
        // That the address is wrong is recorded already.
        None => return,
        Some(IdempotencyStore::Memory) => {
            let allowed = "url where IDEMPOTENCY_STORE is memory, which nobody logs in to";
            reader.wrong(&table::IDEMPOTENCY_STORE_AUTH, word, allowed);
            return;
        }
        Some(IdempotencyStore::Redis(url)) => url,
    };
    let mut wrong = |what: &str| {
        let allowed = format!("{what}, as IDEMPOTENCY_STORE_AUTH is {word}");
        reader.wrong(&table::IDEMPOTENCY_STORE, url.expose().as_str(), allowed);
    };
    if url.expose().password().is_some() {
        wrong("a URL without a password");
    }
    if is_of_aws && !url.uses_tls() {
        wrong("a rediss:// URL: AWS accepts tokens over TLS only");
    }
    if is_of_aws && url.user().is_none() {
        wrong("a URL with the user's name (rediss://USER@HOST:PORT)");
    }
}

/// Returns the value, or records that it is missing.
fn required<T>(
    reader: &mut Reader,
    (variable, given): (&'static Variable, &Option<String>),
    word: &str,
    value: Option<T>,
) -> Option<T> {
    // A wrong value is recorded already.
    if given.is_none() {
        let allowed = variable.allowed;
        let told = format!("set, as IDEMPOTENCY_STORE_AUTH is {word}: {allowed}");
        reader.missing(variable.name, told);
    }
    value
}

/// Parses `NAME`, `serverless/NAME` or `memorydb/NAME`.
fn aws_cache(value: &str) -> Option<AwsCache> {
    let (service, name) = match value.split_once('/') {
        None => (AwsCacheService::ElastiCache, value),
        Some(("serverless", name)) => (AwsCacheService::ElastiCacheServerless, name),
        Some(("memorydb", name)) => (AwsCacheService::MemoryDb, name),
        Some(_) => return None,
    };
    // AWS keeps names in lower case; a token for another spelling is refused.
    let is_name = name.len() <= CACHE_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    is_name.then(|| AwsCache { service, name: name.to_owned() })
}

impl SecretUrl {
    /// Returns whether the scheme of a shared store means TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        matches!(self.expose().scheme(), "rediss" | "valkeys")
    }
}
