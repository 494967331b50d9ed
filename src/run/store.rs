//! Builds the idempotency store, and the login to a shared one.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{
    AwsCache, AwsCacheService, Config, IdempotencyConfig, IdempotencyStore, SecretUrl, StoreAuth,
};
use crate::credentials::PasswordSource;
use crate::idempotency::Store;
use crate::idempotency::memory::MemoryStore;
use crate::idempotency::redis::{BadUrl, RedisStore, StoreAccess};
use crate::queue::sqs::{CacheLogin, SqsQueue};

/// The age at which a connection with a token of AWS IAM is replaced: AWS ends it after 12 hours.
const TOKEN_CONNECTION_AGE_MAX: Duration = Duration::from_secs(11 * 3600);

/// A shared store, and how the worker gets in.
pub(crate) struct SharedStore {
    /// The store.
    pub(crate) store: RedisStore,
    /// The login, in words.
    pub(crate) login: String,
    /// The source of tokens of AWS IAM, if they are used.
    pub(crate) tokens: Option<Arc<CacheLogin>>,
}

/// Builds the idempotency store.
///
/// # Errors
/// Fails if the URL of the shared store is not valid.
pub(super) fn store(config: &Config, queue: &SqsQueue) -> Result<Arc<dyn Store>, BadUrl> {
    Ok(match &config.idempotency.store {
        IdempotencyStore::Memory => {
            let capacity = u64::try_from(config.idempotency.capacity.get()).unwrap_or(u64::MAX);
            Arc::new(MemoryStore::new(capacity, config.idempotency.ttl))
        }
        IdempotencyStore::Redis(url) => {
            Arc::new(shared_store(&config.idempotency, url, Some(queue))?.store)
        }
    })
}

/// Builds the shared store at `url`; opens no connection yet. Tokens of AWS IAM are signed with the
/// credentials of `queue`, which no other login needs.
///
/// # Errors
/// Fails if the URL is not valid.
pub(crate) fn shared_store(
    settings: &IdempotencyConfig,
    url: &SecretUrl,
    queue: Option<&SqsQueue>,
) -> Result<SharedStore, BadUrl> {
    let user = url.user();
    let mut access =
        StoreAccess { certificates: settings.certificates.clone(), ..StoreAccess::default() };
    let mut tokens = None;
    let login = match &settings.auth {
        StoreAuth::Url => login_of_url(url),
        StoreAuth::File(file) => {
            access.passwords = Some(Arc::clone(file) as Arc<dyn PasswordSource>);
            access.check = "check the user in IDEMPOTENCY_STORE, and the password in the file that IDEMPOTENCY_STORE_PASSWORD_FILE names".to_owned();
            let user = user.map_or_else(|| "as no user in particular".to_owned(), named);
            format!("logged in {user}, with the password in IDEMPOTENCY_STORE_PASSWORD_FILE")
        }
        StoreAuth::AwsIam(cache) => {
            let user = user.unwrap_or_default();
            let queue = queue.expect("who uses tokens of AWS IAM has the queue's client");
            let login = Arc::new(queue.cache_login(cache, &user));
            access.passwords = Some(Arc::clone(&login) as Arc<dyn PasswordSource>);
            access.check = check_of_tokens(cache);
            access.renew_after = Some(TOKEN_CONNECTION_AGE_MAX);
            tokens = Some(login);
            let region = &queue.called().region;
            format!(
                "logged in {}, with tokens of AWS IAM for {}, signed for the region {region}",
                named(user),
                shown(cache)
            )
        }
    };
    let store = RedisStore::with_access(url.expose(), access, &settings.key_prefix, settings.ttl)?;
    Ok(SharedStore { store, login, tokens })
}

fn login_of_url(url: &SecretUrl) -> String {
    let has_user = url.user().is_some();
    match (has_user, url.expose().password().is_some()) {
        (true, true) => "logged in with the user and password in IDEMPOTENCY_STORE",
        (false, true) => "logged in with the password in IDEMPOTENCY_STORE",
        // The client sends no user without a password.
        (true | false, false) => "not logged in, as IDEMPOTENCY_STORE has no password",
    }
    .to_owned()
}

fn named(user: String) -> String {
    format!("as {}", crate::escaped::Escaped(&user))
}

fn shown(cache: &AwsCache) -> String {
    let service = match cache.service {
        AwsCacheService::ElastiCache => "the ElastiCache cache",
        AwsCacheService::ElastiCacheServerless => "the serverless ElastiCache cache",
        AwsCacheService::MemoryDb => "the MemoryDB cluster",
    };
    format!("{service} {}", cache.name)
}

/// What to check if AWS refuses a token. The server's own answer does not tell these apart.
fn check_of_tokens(cache: &AwsCache) -> String {
    let action = match cache.service {
        AwsCacheService::ElastiCache | AwsCacheService::ElastiCacheServerless => {
            "elasticache:Connect"
        }
        AwsCacheService::MemoryDb => "memorydb:Connect",
    };
    format!(
        "check that the worker's role is allowed {action} on {} and on the user in IDEMPOTENCY_STORE, that the user's authentication is IAM, that IDEMPOTENCY_STORE_AWS_CACHE names the cache as AWS does, and AWS_REGION",
        shown(cache)
    )
}

/// Returns the name of the store, without credentials.
pub(super) fn store_name(config: &Config) -> String {
    match &config.idempotency.store {
        IdempotencyStore::Memory => "memory".to_owned(),
        IdempotencyStore::Redis(url) => url.without_user(),
    }
}
