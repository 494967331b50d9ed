//! Wraps the SDK's credentials provider: applies a timeout shorter than that of a call, rejects
//! keys that a header cannot carry, catches panics, and returns errors that name the source and the
//! remedy.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aws_config::profile::{Profile, ProfileSet};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{
    ProvideCredentials, Result, SharedCredentialsProvider, future,
};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::error::{CredentialsFailure, panic_text, shorten, words};
use crate::config::AwsConfig;

/// Timeout of a credentials lookup. It is shorter than that of a call, whose timeout error would
/// not mention credentials.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The source of credentials.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The source as text; empty if it is not known.
    who: String,
    /// The remedy, if it is known; else empty.
    cure: String,
}

/// The kind of credentials source in a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    /// AWS IAM Identity Center (single sign-on).
    Sso,
    /// The session of `aws login`.
    Login,
    /// STS, to assume a role.
    Sts,
    /// An external program.
    Process,
    /// Static keys in the profile.
    Keys,
}

/// Returns the credentials source of a profile, as far as its keys show it.
pub(super) fn asked_by(profile: &str, profiles: &ProfileSet) -> Option<SourceKind> {
    let profile: &Profile = profiles.get_profile(profile)?;
    let has = |key| profile.get(key).is_some();
    let sources = [
        (["sso_session", "sso_start_url"], SourceKind::Sso),
        (["login_session"; 2], SourceKind::Login),
        (["role_arn"; 2], SourceKind::Sts),
        (["credential_process"; 2], SourceKind::Process),
        (["aws_access_key_id", "aws_secret_access_key"], SourceKind::Keys),
    ];
    sources.into_iter().find(|(keys, _)| keys.iter().any(|key| has(key))).map(|(_, asked)| asked)
}

impl Source {
    /// Derives the source from the variables and the profile. The profile has priority over
    /// everything but keys in the environment.
    pub(super) fn new(aws: &AwsConfig, profile: &str, profiles: &ProfileSet) -> Self {
        let (what, cure) = match asked_by(profile, profiles).filter(|_| !aws.has_keys()) {
            Some(SourceKind::Sso) => (
                "SSO",
                format!("run `aws sso login --profile {profile}`, and mount ~/.aws/sso/cache"),
            ),
            Some(SourceKind::Login) => (
                "a login session",
                format!(
                    "`aws login` is not spoken here: run `aws configure export-credentials --profile {profile} --format env`"
                ),
            ),
            Some(SourceKind::Sts) => ("STS, for its role_arn", String::new()),
            Some(SourceKind::Process) => ("its credential_process", String::new()),
            Some(SourceKind::Keys) => ("its keys", String::new()),
            None => return Self { who: aws.credentials.to_owned(), cure: String::new() },
        };
        Self { who: format!("{what} (AWS profile {profile:?})"), cure }
    }

    fn fails(&self, what: &str) -> CredentialsError {
        let cure = if self.cure.is_empty() { String::new() } else { format!("; {}", self.cure) };
        let text = if self.who.is_empty() {
            // The error lists all sources, one per line; the last one is the instance metadata
            // service.
            let last = shorten(what.lines().next_back().unwrap_or_default().trim());
            format!(
                "no credentials are configured, and no instance's metadata service has any: set AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role (IRSA, Pod Identity); the last that was asked: {last}"
            )
        } else {
            format!("no credentials from {}: {}{cure}", self.who, shorten(what))
        };
        CredentialsError::provider_error(CredentialsFailure(text))
    }
}

/// The SDK's credentials chain with timeout, panic guard and checks.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) inner: SharedCredentialsProvider,
    pub(super) source: Source,
}

impl Guarded {
    async fn provide(&self) -> Result {
        let asked = AssertUnwindSafe(self.inner.provide_credentials()).catch_unwind();
        let found = match timeout(TIMEOUT, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(panic)) => return Err(self.source.fails(&panic_text(&*panic))),
            Err(_elapsed) => {
                return self.inner.fallback_on_interrupt().ok_or_else(|| {
                    let what =
                        format!("no answer within {} s; check the way there", TIMEOUT.as_secs());
                    self.source.fails(&what)
                });
            }
        };
        match found {
            Ok(credentials) if is_usable(&credentials) => Ok(credentials),
            Ok(_) => Err(self.source.fails(
                "a key or token holds spaces, line ends or control characters, and cannot be sent",
            )),
            Err(why) => Err(self.source.fails(&reason(&why))),
        }
    }
}

/// Returns the provider's own error text, without the SDK's text around it.
fn reason(why: &CredentialsError) -> String {
    why.source().map_or_else(|| why.to_string(), words)
}

/// Whether a request can carry the credentials in its headers.
fn is_usable(credentials: &Credentials) -> bool {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain(credentials.access_key_id())
        && is_plain(credentials.secret_access_key())
        && credentials.session_token().is_none_or(is_plain)
}

impl ProvideCredentials for Guarded {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.inner.fallback_on_interrupt()
    }
}
