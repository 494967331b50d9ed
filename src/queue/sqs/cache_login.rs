//! Tokens of AWS IAM, with which the worker logs in to ElastiCache and MemoryDB as a shared store.
//!
//! A token is a request to connect as a user, signed in advance (SigV4) and without its scheme: AWS
//! takes it as the password. Signing is local. Each connection gets a token of its own, because a
//! token ends after a quarter of an hour, or with the credentials that signed it.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::words;
use crate::config::{AwsCache, AwsCacheService};
use crate::credentials::{Password, PasswordSource};

/// How long a token is valid; AWS accepts no other value.
const TOKEN_LASTS: Duration = Duration::from_secs(900);

/// Credentials that end within this time are fetched again.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// Credentials without an end are fetched again after this time.
const ENDLESS_MAX: Duration = Duration::from_secs(300);

/// Wait for credentials when a connection is made: less than the store's timeout, whose text would
/// not name them. The lookup goes on, and the next connection finds what it has brought.
const CREDENTIALS_WAIT: Duration = Duration::from_millis(800);

/// Characters that a value in a query may have, besides letters and digits (RFC 3986, section 2.3).
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Credentials and the time at which they were there.
type FoundCredentials = Result<(Credentials, SystemTime), String>;

/// What a lookup of credentials finds; all callers share it.
type CredentialsLookup = Shared<BoxFuture<'static, FoundCredentials>>;

/// A lookup of credentials, under way or done, with its task.
struct LookupTask {
    found: CredentialsLookup,
    /// Ends the lookup when it is dropped.
    _task: JoinSet<()>,
}

impl LookupTask {
    /// Starts a lookup.
    ///
    /// # Panics
    /// If called outside a Tokio runtime.
    fn start(provider: Option<SharedCredentialsProvider>) -> Self {
        let (sender, found) = oneshot::channel::<FoundCredentials>();
        let mut task = JoinSet::new();
        task.spawn(async move {
            // The receiver lives as long as the task.
            let _ = sender.send(fetched(provider).await);
        });
        let found = found.map(|found| {
            found.unwrap_or_else(|_| Err("the lookup of credentials broke off".to_owned()))
        });
        Self { found: found.boxed().shared(), _task: task }
    }

    /// Whether its credentials are still good, or it is under way, or its error is still unread.
    fn is_usable(&self) -> bool {
        let was_read = self.found.peek().is_some();
        match self.found.clone().now_or_never() {
            None => true,
            Some(Ok((credentials, since))) => are_good(&credentials, since, SystemTime::now()),
            Some(Err(_)) => !was_read,
        }
    }
}

/// The login to a cache of AWS.
pub struct CacheLogin {
    provider: Option<SharedCredentialsProvider>,
    region: String,
    cache: AwsCache,
    user: String,
    lookup: Mutex<Option<LookupTask>>,
}

impl CacheLogin {
    pub(super) fn new(
        provider: Option<SharedCredentialsProvider>,
        region: &str,
        cache: &AwsCache,
        user: &str,
    ) -> Self {
        Self {
            provider,
            region: region.to_owned(),
            cache: cache.clone(),
            user: user.to_owned(),
            lookup: Mutex::default(),
        }
    }

    /// Waits until credentials are there, or it is known that there are none.
    pub async fn prepare(&self) {
        // The error is returned when a connection is made.
        let _ = self.lookup().await;
    }

    /// Returns the lookup under way, or the last one if it is still usable, or begins a new one.
    ///
    /// It has a task of its own: if a caller gives up, it goes on, and the next caller gets what it
    /// found.
    fn lookup(&self) -> CredentialsLookup {
        let mut lookup = self.lookup.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = lookup.as_ref().filter(|lookup| lookup.is_usable());
        match usable {
            Some(usable) => usable.found.clone(),
            None => lookup.insert(LookupTask::start(self.provider.clone())).found.clone(),
        }
    }
}

async fn fetched(provider: Option<SharedCredentialsProvider>) -> FoundCredentials {
    let Some(provider) = provider else { return Err("no AWS credentials are configured".into()) };
    match provider.provide_credentials().await {
        Ok(credentials) => Ok((credentials, SystemTime::now())),
        Err(error) => Err(words(&error)),
    }
}

fn are_good(credentials: &Credentials, since: SystemTime, now: SystemTime) -> bool {
    match credentials.expiry() {
        Some(end) => now + EXPIRY_MARGIN < end,
        None => now.duration_since(since).is_ok_and(|age| age < ENDLESS_MAX),
    }
}

#[async_trait]
impl PasswordSource for CacheLogin {
    async fn password(&self) -> Result<Password, String> {
        let found = timeout(CREDENTIALS_WAIT, self.lookup()).await;
        let found = found.map_err(|_| {
            format!(
                "no AWS credentials within {} ms; they are still awaited",
                CREDENTIALS_WAIT.as_millis()
            )
        })?;
        let (credentials, _) = found?;
        token(credentials, &self.region, &self.cache, &self.user, SystemTime::now())
    }
}

impl fmt::Debug for CacheLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLogin").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Signs a token.
fn token(
    credentials: Credentials,
    region: &str,
    cache: &AwsCache,
    user: &str,
    now: SystemTime,
) -> Result<Password, String> {
    let unsigned =
        |why: String| format!("the token for the cache {} cannot be made: {why}", cache.name);
    let (service, resource) = match cache.service {
        AwsCacheService::ElastiCache => ("elasticache", ""),
        AwsCacheService::ElastiCacheServerless => ("elasticache", "&ResourceType=ServerlessCache"),
        AwsCacheService::MemoryDb => ("memorydb", ""),
    };
    let user = utf8_percent_encode(user, VALUE);
    let url = format!("http://{}/?Action=connect&User={user}{resource}", cache.name);
    let identity = Identity::from(credentials);
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(TOKEN_LASTS);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|why| unsigned(why.to_string()))?
        .into();
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::empty())
        .map_err(|why| unsigned(why.to_string()))?;
    let signed = sign(request, &params).map_err(|why| unsigned(why.to_string()))?;
    let (instructions, _signature) = signed.into_parts();
    let mut token = url.trim_start_matches("http://").to_owned();
    for (name, value) in instructions.params() {
        token.push('&');
        token.push_str(name);
        token.push('=');
        token.extend(utf8_percent_encode(value, VALUE));
    }
    Ok(Password::new(token))
}

#[cfg(test)]
mod tests;
