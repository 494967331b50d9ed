//! The variables of the AWS SDK and of the proxy.
//!
//! This module reads the values that the worker uses. It also finds values that would make the SDK
//! end the process, or that the SDK would silently ignore. The SDK interprets everything else, and
//! its profile files.

use std::collections::BTreeMap;

use url::Url;

use super::address::{self, SecretUrl};
use super::error::mask;
use super::read::Reader;
use super::table::{Allowed, Fallback, Variable, variable, with_login};
use crate::escaped::Escaped;

/// AWS settings from the environment. An empty value counts as not set.
#[derive(Clone, Debug, Default)]
pub struct AwsConfig {
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// The variable and value of `AWS_ENDPOINT_URL_SQS`, else of `AWS_ENDPOINT_URL`.
    pub endpoint: Option<(&'static str, String)>,
    /// Whether `AWS_ENDPOINT_URL` is set but empty.
    ///
    /// The SDK's calls for credentials would then have no address.
    pub is_endpoint_empty: bool,
    /// `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`: ignores endpoints of the environment and the profile.
    ///
    /// It has priority over the same key in the profile.
    pub ignores_endpoints: Option<bool>,
    /// `AWS_PROFILE`.
    pub profile: Option<String>,
    /// `AWS_RETRY_MODE`, for the calls for credentials.
    pub retry_mode: Option<RetryMode>,
    /// `AWS_MAX_ATTEMPTS`, for the calls for credentials.
    pub max_attempts: Option<u32>,
    /// The credentials source, as far as variables define it; named in the error if it fails.
    pub credentials: &'static str,
    /// The proxies.
    pub proxies: Proxies,
}

/// The retry mode of the SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryMode {
    /// The default mode of the SDK.
    Standard,
    /// Standard mode with a rate limit that adapts to throttling.
    Adaptive,
}

/// The proxies for calls to AWS.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// The proxy for `http` addresses.
    pub http: Option<SecretUrl>,
    /// The proxy for `https` addresses.
    pub https: Option<SecretUrl>,
    /// The hosts that are called without a proxy, separated by commas.
    pub no_proxy: String,
    /// Scheme, host and port of local credentials services.
    ///
    /// They are called without a proxy, because the request may carry a token.
    pub near: Vec<String>,
}

const URL: Allowed = Allowed::Told("an http or https URL without user, query or fragment");
const REGION: Allowed = Allowed::Told("the name of a region, such as eu-west-1");
const PLAIN: Allowed =
    Allowed::Told("without spaces, line ends and control characters (a file's last line end?)");
const MODES: Allowed = Allowed::OneOf(&["standard", "adaptive"]);
const ATTEMPTS: Allowed = Allowed::Whole { min: 1, max: 100, also: "" };
const SWITCH: Allowed = Allowed::OneOf(&["true", "false"]);
const PROXY: Allowed =
    Allowed::Told("an http or https URL of a proxy, or `host:port`; SOCKS is not spoken");

/// Variables that the SDK reads and whose values may become part of a header.
const TEXTS: &[&str] = &[
    "AWS_ACCOUNT_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SDK_UA_APP_ID",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// Variables as in `TEXTS`, whose values are never shown.
const SECRETS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

/// Endpoints of the services that provide credentials. An empty value would stop the SDK.
const CREDENTIALS_ENDPOINTS: &[&str] =
    &["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO", "AWS_ENDPOINT_URL_SSO_OIDC"];

/// Endpoints of credentials services on this machine or task.
///
/// With http, the SDK accepts only an address of the machine itself.
const NEAR: [&str; 2] = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];

/// The credentials source when the environment contains the keys; no profile is read then.
const OF_KEYS: &str = "AWS_ACCESS_KEY_ID";

/// The environment and the reader that records faults.
struct Environment<'a> {
    reader: &'a mut Reader,
    vars: &'a BTreeMap<String, String>,
}

/// Every row may have a login: many are URLs.
const fn row(name: &'static str, allowed: Allowed) -> Variable {
    with_login(variable(name, Fallback::Told("the AWS SDK's own default"), "", allowed))
}

impl AwsConfig {
    pub(super) fn read(reader: &mut Reader, vars: &BTreeMap<String, String>) -> Self {
        let mut environment = Environment { reader, vars };
        environment.check_texts();
        environment.check_keys();
        environment.check_credentials_endpoints();
        let switch = |value: &str| value.to_ascii_lowercase().parse::<bool>().ok();
        for name in ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"] {
            environment.parsed(name, SWITCH, switch);
        }
        let ignores_endpoints =
            environment.parsed("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", SWITCH, switch);
        Self {
            region: environment.region(),
            endpoint: environment.endpoint(),
            is_endpoint_empty: vars.get("AWS_ENDPOINT_URL").is_some_and(String::is_empty),
            ignores_endpoints,
            profile: environment.value("AWS_PROFILE").map(str::to_owned),
            retry_mode: environment.retry_mode(),
            max_attempts: environment.parsed("AWS_MAX_ATTEMPTS", ATTEMPTS, max_attempts),
            credentials: environment.credentials(),
            proxies: environment.proxies(),
        }
    }
}

impl AwsConfig {
    /// Returns whether the environment contains the keys; no profile is read for them then.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.credentials == OF_KEYS
    }
}

/// Parses a number of attempts, from the environment or a profile.
pub(crate) fn max_attempts(value: &str) -> Option<u32> {
    value.parse().ok().filter(|attempts| (1..=100).contains(attempts))
}

/// Parses a retry mode, from the environment or a profile.
///
/// `legacy`, which other SDKs have, is not accepted.
pub(crate) fn retry_mode(value: &str) -> Option<RetryMode> {
    match value.to_ascii_lowercase().as_str() {
        "standard" => Some(RetryMode::Standard),
        "adaptive" => Some(RetryMode::Adaptive),
        _ => None,
    }
}

/// Returns whether `value` is valid as a region, from the environment or a profile.
///
/// The region becomes part of a host name and of a header.
pub(crate) fn is_region(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&value.len())
        && value.bytes().all(inner)
        && !value.starts_with('-')
        && !value.ends_with('-')
}

/// Returns whether `value` is an endpoint of the AWS API, from the environment or a profile.
pub(crate) fn is_endpoint(value: &str) -> bool {
    address::endpoint(value).is_some()
}

impl Environment<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        allowed: Allowed,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?.to_owned();
        let parsed = parse(&value);
        if parsed.is_none() {
            self.reader.wrong(&row(name, allowed), &value, allowed.to_string());
        }
        parsed
    }

    fn check_texts(&mut self) {
        let has_control = |value: &str| {
            value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
        };
        for name in TEXTS {
            self.parsed(name, PLAIN, |value| (!has_control(value)).then_some(()));
        }
        let is_plain = |value: &str| value.bytes().all(|byte| byte.is_ascii_graphic());
        for name in SECRETS {
            if self.value(name).is_some_and(|value| !is_plain(value)) {
                self.reader.wrong_secret(&row(name, PLAIN));
            }
        }
    }

    /// Refuses a key pair with one half missing.
    ///
    /// The SDK would otherwise silently use the credentials of the profile or the node's role.
    fn check_keys(&mut self) {
        let (id, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        let is_set = |name| self.value(name).is_some();
        let missing = match (is_set(id), is_set(secret) || is_set("SECRET_ACCESS_KEY")) {
            (true, false) => (secret, id),
            (false, true) if is_set(secret) => (id, secret),
            (true, true) | (false, false | true) => return,
        };
        self.reader.missing(missing.0, format!("set, as {} is", missing.1));
    }

    fn check_credentials_endpoints(&mut self) {
        let is_asked = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_PROFILE"]
            .into_iter()
            .any(|name| self.value(name).is_some());
        let general = is_asked.then_some("AWS_ENDPOINT_URL");
        for name in CREDENTIALS_ENDPOINTS.iter().copied().chain(general) {
            if self.vars.get(name).is_some_and(|value| !is_endpoint(value)) {
                let value = self.vars[name].clone();
                self.reader.wrong(&row(name, URL), &value, format!("{URL}, or not set at all"));
            }
        }
    }

    fn region(&mut self) -> Option<String> {
        let region = |value: &str| is_region(value).then(|| value.to_owned());
        let first = self.parsed("AWS_REGION", REGION, region);
        let second = self.parsed("AWS_DEFAULT_REGION", REGION, region);
        first.or(second)
    }

    fn endpoint(&mut self) -> Option<(&'static str, String)> {
        let [of_sqs, general] = ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"].map(|name| {
            let endpoint = |value: &str| is_endpoint(value).then(|| (name, value.to_owned()));
            self.parsed(name, URL, endpoint)
        });
        of_sqs.or(general)
    }

    fn retry_mode(&mut self) -> Option<RetryMode> {
        let name = "AWS_RETRY_MODE";
        // Only a warning, because the value may be intended for other programs in the same pod.
        if self.value(name).is_some_and(|value| value.eq_ignore_ascii_case("legacy")) {
            let instead = "calls for credentials are tried again by the standard mode";
            self.reader.ignored(&row(name, MODES), "legacy", instead);
            return None;
        }
        self.parsed(name, MODES, retry_mode)
    }

    fn credentials(&self) -> &'static str {
        let is_set = |name| self.value(name).is_some();
        if is_set("AWS_ACCESS_KEY_ID") {
            OF_KEYS
        } else if is_set("AWS_PROFILE") {
            "the profile that AWS_PROFILE names (its STS, SSO or credential_process)"
        } else if is_set("AWS_WEB_IDENTITY_TOKEN_FILE") {
            "STS, for the role AWS_ROLE_ARN and the token in AWS_WEB_IDENTITY_TOKEN_FILE"
        } else if is_set("AWS_CONTAINER_CREDENTIALS_FULL_URI")
            || is_set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        {
            "the container's credentials service, at AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI"
        } else {
            ""
        }
    }

    /// Reads the proxies as the AWS CLI does: lower-case names have priority.
    fn proxies(&mut self) -> Proxies {
        let mut first = |names: [&'static str; 2]| {
            let name = names.into_iter().find(|name| self.value(name).is_some())?;
            let value = self.value(name)?.to_owned();
            let proxy = address::proxy(&value);
            if proxy.is_none() {
                self.reader.wrong(&row(name, PROXY), &value, PROXY.to_string());
            }
            proxy
        };
        let http = first(["http_proxy", "HTTP_PROXY"]);
        let https = first(["https_proxy", "HTTPS_PROXY"]);
        let none = self.value("no_proxy").or_else(|| self.value("NO_PROXY"));
        let no_proxy = none.unwrap_or_default().to_owned();
        let near = NEAR.iter().filter_map(|name| Url::parse(self.value(name)?).ok());
        let near = near.map(|url| url.origin().ascii_serialization()).collect();
        Proxies { http, https, no_proxy, near }
    }
}

/// Describes a profile value that would make the SDK end the process.
pub(crate) fn profile_fault(key: &str, value: &str) -> Option<String> {
    let (is_right, allowed) = match key {
        "retry_mode" => {
            (retry_mode(value).is_some() || value.eq_ignore_ascii_case("legacy"), MODES)
        }
        "max_attempts" => (max_attempts(value).is_some(), ATTEMPTS),
        "region" => (is_region(value), REGION),
        "endpoint_url" => (is_endpoint(value), URL),
        _ => (true, PLAIN),
    };
    (!is_right).then(|| format!("{key} is {}: must be {allowed}", Escaped(&mask(value))))
}
