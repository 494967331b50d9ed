//! Determines endpoint, credentials and region from the environment, the profile and the queue's
//! URL. A condition for which the SDK would panic is an error here.

use std::panic::AssertUnwindSafe;

use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::{ProfileFileRegionProvider, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::config::SharedHttpClient;
use aws_sdk_sqs::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::service_config::ServiceConfigKey;
use futures_util::FutureExt;

use super::credentials::{Guarded, Source, SourceKind, asked_by};
use super::error::panic_text;
use super::{IDLE_TIMEOUT, http};
use crate::config::{
    AwsConfig, QueueUrl, RetryMode, is_endpoint, is_region, max_attempts, profile_fault, retry_mode,
};

/// The profile that is used if none is named.
const DEFAULT_PROFILE: &str = "default";

/// The profile keys that the SDK or this module reads for SQS.
const PROFILE_KEYS: [&str; 4] = ["region", "endpoint_url", "retry_mode", "max_attempts"];

/// Why SQS cannot be called from this environment.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// A profile file cannot be parsed.
    #[error("the AWS profiles cannot be read (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE): {0}")]
    ProfileFiles(String),
    /// The named profile does not exist.
    #[error(
        "AWS_PROFILE is {name:?}: must be a profile in ~/.aws/config or ~/.aws/credentials, or in the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name; there: {known}"
    )]
    NoProfile {
        /// The profile's name.
        name: String,
        /// The existing profiles.
        known: String,
    },
    /// A profile key has an invalid value.
    #[error("the AWS profile {profile:?}: {fault}")]
    ProfileKey {
        /// The profile's name.
        profile: String,
        /// The key, its value, and the allowed values.
        fault: String,
    },
    /// The empty endpoint would also apply to the profile's credentials source.
    #[error(
        "AWS_ENDPOINT_URL is \"\": must be an http or https URL, or not set at all, as the AWS profile {profile:?} asks {who} for credentials"
    )]
    EmptyEndpoint {
        /// The profile's name.
        profile: String,
        /// The service that the profile uses for credentials.
        who: &'static str,
    },
    /// An HTTPS proxy is set for `http` addresses, whose calls are made without TLS.
    #[error(
        "HTTP_PROXY is an https URL: must be an http URL, or `host:port`, as SQS is called at {endpoint}"
    )]
    SecureProxy {
        /// The endpoint of SQS.
        endpoint: String,
    },
    /// No source names a region.
    #[error(
        "AWS_REGION is not set: must be the name of the queue's region, such as eu-west-1, as neither a profile nor the host of SQS_QUEUE_URL names one"
    )]
    NoRegion,
    /// The SDK rejects the environment for a reason that this module does not check.
    #[error(
        "the AWS SDK cannot work in this environment: {0}; check the variables that begin with AWS_"
    )]
    Sdk(String),
}

/// The endpoint of SQS and how it is reached.
#[derive(Clone, Debug, Default)]
pub struct Called {
    /// Scheme, host, port, and an optional path.
    pub endpoint: String,
    /// The region for which calls are signed.
    pub region: String,
    /// The proxy for this endpoint, without its password.
    pub proxy: Option<String>,
    /// Contradictions between the environment and the queue's URL, one line each.
    pub warnings: Vec<String>,
}

/// The inputs of a client.
pub(super) struct Prepared {
    pub(super) shared: SdkConfig,
    /// The endpoint, unless the SDK resolves it.
    pub(super) endpoint: Option<String>,
    pub(super) called: Called,
}

/// Combines all sources.
/// Makes no network call, except to the instance metadata service if no other source names a
/// region.
pub(super) async fn prepare(aws: &AwsConfig, queue: &QueueUrl) -> Result<Prepared, AwsError> {
    let name = aws.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    let profiles = profiles(aws, name).await?;
    check_endpoint_for_credentials(aws, name, &profiles)?;
    let http = http::client(IDLE_TIMEOUT, aws.proxies.clone());
    let region = region(aws, name, queue, &http).await.ok_or(AwsError::NoRegion)?;
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .profile_name(name)
        .region(Region::new(region.clone()))
        .retry_config(retries(aws, &profiles))
        .http_client(http);
    // The SDK panics for invalid settings. The known cases are checked above.
    let loading = AssertUnwindSafe(loader.load()).catch_unwind().await;
    let loaded = loading.map_err(|panic| AwsError::Sdk(panic_text(&*panic)))?;
    let source = Source::new(aws, name, &profiles);
    let shared = match loaded.credentials_provider() {
        Some(inner) => {
            let guarded = SharedCredentialsProvider::new(Guarded { inner, source });
            loaded.into_builder().credentials_provider(guarded).build()
        }
        None => loaded,
    };
    let set = set_endpoint(aws, &shared, name, &profiles)?;
    let endpoint = match &set {
        Some((_, endpoint)) => Some(endpoint.clone()),
        None if is_left_to_sdk(&shared, queue) => None,
        None => Some(queue.origin()),
    };
    let address = match &endpoint {
        Some(endpoint) => endpoint.clone(),
        None => resolved(&shared, &region).await?,
    };
    let warnings = contradictions(queue, &address, &region, set.map(|(who, _)| who));
    if http::lacks_tls(&aws.proxies, &address) {
        return Err(AwsError::SecureProxy { endpoint: address });
    }
    let proxy = http::proxy_for(&aws.proxies, &address);
    let called = Called { endpoint: address, region, proxy, warnings };
    Ok(Prepared { shared, endpoint, called })
}

async fn profiles(aws: &AwsConfig, name: &str) -> Result<ProfileSet, AwsError> {
    let (files, environment) = (Fs::real(), Env::real());
    let which = Default::default();
    let loaded =
        aws_config::profile::load(&files, &environment, &which, Some(name.to_owned().into()));
    let profiles = loaded.await.map_err(|why| AwsError::ProfileFiles(why.to_string()))?;
    if aws.profile.is_some() && name != DEFAULT_PROFILE && profiles.get_profile(name).is_none() {
        let mut known: Vec<_> = profiles.profiles().map(str::to_owned).collect();
        known.sort();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(AwsError::NoProfile { name: name.to_owned(), known });
    }
    for key in PROFILE_KEYS {
        if let Some(fault) = profiles.get(key).and_then(|value| profile_fault(key, value)) {
            return Err(AwsError::ProfileKey { profile: name.to_owned(), fault });
        }
    }
    Ok(profiles)
}

/// Rejects an empty endpoint with which the SDK would call STS or SSO.
fn check_endpoint_for_credentials(
    aws: &AwsConfig,
    profile: &str,
    profiles: &ProfileSet,
) -> Result<(), AwsError> {
    let asked = asked_by(profile, profiles);
    match asked.filter(|_| aws.is_endpoint_empty && !aws.has_keys()) {
        Some(SourceKind::Sso) => {
            Err(AwsError::EmptyEndpoint { profile: profile.to_owned(), who: "SSO" })
        }
        Some(SourceKind::Sts) => {
            Err(AwsError::EmptyEndpoint { profile: profile.to_owned(), who: "STS" })
        }
        Some(SourceKind::Login | SourceKind::Process | SourceKind::Keys) | None => Ok(()),
    }
}

/// Returns the region: from the environment, the profile, the queue's URL, or else the instance.
async fn region(
    aws: &AwsConfig,
    profile: &str,
    queue: &QueueUrl,
    http: &SharedHttpClient,
) -> Option<String> {
    if let Some(region) = &aws.region {
        return Some(region.clone());
    }
    let of_profile = ProfileFileRegionProvider::builder().profile_name(profile).build();
    let named = of_profile.region().await.map(|region| region.as_ref().to_owned());
    if let Some(region) = named.filter(|name| is_region(name)).or_else(|| queue.region()) {
        return Some(region);
    }
    let config = ProviderConfig::without_region().with_http_client(http.clone());
    let of_machine = ImdsRegionProvider::builder().configure(&config).build();
    of_machine.region().await.map(|region| region.as_ref().to_owned())
}

/// Retries of the calls for credentials. Calls to SQS are retried by their callers, which know how
/// long a lease lasts.
fn retries(aws: &AwsConfig, profiles: &ProfileSet) -> RetryConfig {
    let mode = aws.retry_mode.or_else(|| profiles.get("retry_mode").and_then(retry_mode));
    let retries = match mode {
        None | Some(RetryMode::Standard) => RetryConfig::standard(),
        Some(RetryMode::Adaptive) => RetryConfig::adaptive(),
    };
    let attempts = aws.max_attempts.or_else(|| profiles.get("max_attempts").and_then(max_attempts));
    attempts.map_or(retries.clone(), |attempts| retries.with_max_attempts(attempts))
}

/// Returns the configured endpoint, and the name of its source.
fn set_endpoint(
    aws: &AwsConfig,
    shared: &SdkConfig,
    profile: &str,
    profiles: &ProfileSet,
) -> Result<Option<(String, String)>, AwsError> {
    let ignores = || {
        let key = profiles.get("ignore_configured_endpoint_urls");
        key.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    };
    if aws.ignores_endpoints.unwrap_or_else(ignores) {
        return Ok(None);
    }
    if let Some((name, endpoint)) = &aws.endpoint {
        return Ok(Some(((*name).to_owned(), endpoint.clone())));
    }
    let of_profile = |key| {
        // No variable has this name, so only the profile and its `services` section are read.
        let key = ServiceConfigKey::builder().service_id("SQS").env("\0").profile(key).build();
        shared.service_config().zip(key.ok()).and_then(|(config, key)| config.load_config(key))
    };
    let Some(endpoint) = of_profile("endpoint_url") else { return Ok(None) };
    if is_endpoint(&endpoint) {
        return Ok(Some((format!("endpoint_url of the AWS profile {profile:?}"), endpoint)));
    }
    let fault = profile_fault("endpoint_url", &endpoint).unwrap_or_default();
    Err(AwsError::ProfileKey { profile: profile.to_owned(), fault })
}

/// Whether the SDK must resolve an endpoint that is not configured: FIPS or dual-stack is
/// requested, or the URL has a legacy host.
fn is_left_to_sdk(shared: &SdkConfig, queue: &QueueUrl) -> bool {
    let special = shared.use_fips() == Some(true) || shared.use_dual_stack() == Some(true);
    special || queue.has_legacy_host()
}

/// Resolves the endpoint by the SDK's rules.
async fn resolved(shared: &SdkConfig, region: &str) -> Result<String, AwsError> {
    let params = Params::builder()
        .region(region.to_owned())
        .use_fips(shared.use_fips().unwrap_or(false))
        .use_dual_stack(shared.use_dual_stack().unwrap_or(false))
        .build()
        .map_err(|why| AwsError::Sdk(why.to_string()))?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).await;
    endpoint.map(|found| found.url().to_owned()).map_err(|why| AwsError::Sdk(why.to_string()))
}

fn contradictions(
    queue: &QueueUrl,
    endpoint: &str,
    region: &str,
    set_by: Option<String>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let is_same = endpoint == queue.origin() || endpoint.starts_with(&(queue.origin() + "/"));
    if !is_same && !queue.has_legacy_host() {
        let who = set_by.as_deref().unwrap_or(
            "AWS_USE_FIPS_ENDPOINT or AWS_USE_DUALSTACK_ENDPOINT (or the profile's use_fips_endpoint or use_dualstack_endpoint)",
        );
        lines.push(format!(
            "SQS is called at {endpoint}, as {who} says, and not at {}, the host of SQS_QUEUE_URL",
            queue.origin()
        ));
    }
    if let Some(of_queue) = queue.region().filter(|of_queue| of_queue != region) {
        lines.push(format!(
            "Calls are signed for the region {region}, but SQS_QUEUE_URL is in {of_queue}: SQS refuses them unless AWS_REGION, or the profile's region, is the queue's"
        ));
    }
    lines
}
