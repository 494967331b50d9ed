//! How the worker gets in: the login and the certificates of each connection.
//!
//! Each connection, and each one to a node of a cluster, is made with what the files and the source
//! of passwords have at that time. Certificates are the exception in a cluster: its client keeps
//! those that it was built with, so that a change of them makes the whole connection due for
//! renewal.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream, stream};
use redis::cluster::ClusterClientBuilder;
use redis::{
    BasicAuth, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    RedisResult, StreamingCredentialsProvider, TlsCertificates,
};

use crate::credentials::{IdentityText, Password, PasswordSource, StoreCertificates};

/// The user that `AUTH` with a password alone means, since Redis 6.
const DEFAULT_USER: &str = "default";

/// What to check where the login of the URL is refused.
const CHECK_URL: &str = "check the user and password in IDEMPOTENCY_STORE";

/// How the worker gets in.
#[derive(Clone)]
pub struct StoreAccess {
    /// The source of passwords, instead of the password in the URL.
    pub passwords: Option<Arc<dyn PasswordSource>>,
    /// The certificates of TLS.
    pub certificates: StoreCertificates,
    /// What the operator must check if the server refuses the login.
    pub check: String,
    /// The age at which a connection is replaced, before the server ends it.
    pub renew_after: Option<Duration>,
}

impl Default for StoreAccess {
    /// Uses the user and password in the URL, and the system's root certificates.
    fn default() -> Self {
        Self {
            passwords: None,
            certificates: StoreCertificates::default(),
            check: CHECK_URL.to_owned(),
            renew_after: None,
        }
    }
}

impl fmt::Debug for StoreAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreAccess").field("check", &self.check).finish_non_exhaustive()
    }
}

/// Why no connection could be begun or made.
pub(super) enum AccessError {
    /// There is no password now; the text says why.
    NoPassword(String),
    /// The client or the server says so.
    Redis(RedisError),
}

impl From<RedisError> for AccessError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// The certificates of one connection.
#[derive(Clone, Default)]
pub(super) struct CertificatesInUse {
    roots: Option<Arc<Vec<u8>>>,
    identity: Option<Arc<IdentityText>>,
}

impl CertificatesInUse {
    /// Returns what the client takes, or `None` if nothing is configured.
    fn to_client(&self) -> Option<TlsCertificates> {
        let is_set = self.roots.is_some() || self.identity.is_some();
        is_set.then(|| TlsCertificates {
            root_cert: self.roots.as_deref().cloned(),
            client_tls: self.identity.as_deref().map(|identity| ClientTlsConfig {
                client_cert: identity.certificate.clone(),
                client_key: identity.key.clone(),
            }),
        })
    }
}

fn is_same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl StoreAccess {
    /// Returns the certificates for a new connection, after a look at their files.
    pub(super) fn certificates(&self) -> CertificatesInUse {
        let StoreCertificates { roots, identity } = &self.certificates;
        CertificatesInUse {
            roots: roots.as_ref().map(|roots| roots.latest()),
            identity: identity.as_ref().map(|identity| identity.latest()),
        }
    }

    /// Returns whether a connection with these certificates has the current ones.
    pub(super) fn are_current(&self, used: &CertificatesInUse) -> bool {
        let StoreCertificates { roots, identity } = &self.certificates;
        let roots = roots.as_ref().map(|roots| roots.current());
        let identity = identity.as_ref().map(|identity| identity.current());
        is_same(roots.as_ref(), used.roots.as_ref())
            && is_same(identity.as_ref(), used.identity.as_ref())
    }

    /// Returns a client for one connection, with a password of its own.
    pub(super) async fn client(
        &self,
        info: &ConnectionInfo,
        certificates: &CertificatesInUse,
    ) -> Result<Client, AccessError> {
        let mut info = info.clone();
        if let Some(passwords) = &self.passwords {
            let password = passwords.password().await.map_err(AccessError::NoPassword)?;
            let login = info.redis_settings().clone().set_password(password.expose());
            info = info.set_redis_settings(login);
        }
        Ok(match certificates.to_client().filter(|_| uses_tls(&info)) {
            None => Client::open(info)?,
            Some(certificates) => Client::build_with_tls(info, certificates)?,
        })
    }

    /// Sets login and certificates of a cluster's client. It asks for a password for each
    /// connection to a node.
    pub(super) fn for_cluster(
        &self,
        builder: ClusterClientBuilder,
        info: &ConnectionInfo,
        certificates: &CertificatesInUse,
    ) -> ClusterClientBuilder {
        let builder = match certificates.to_client().filter(|_| uses_tls(info)) {
            None => builder,
            Some(certificates) => builder.certs(certificates),
        };
        match &self.passwords {
            None => builder,
            Some(passwords) => builder.set_credentials_provider(NodeLogin {
                user: info.redis_settings().username().unwrap_or(DEFAULT_USER).to_owned(),
                passwords: Arc::clone(passwords),
            }),
        }
    }
}

fn uses_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

/// The login of the connections to a cluster's nodes.
///
/// The client subscribes twice for each connection: it logs in with the first password, and again
/// with that of the second subscription. Both are new, and the second login changes nothing.
struct NodeLogin {
    user: String,
    passwords: Arc<dyn PasswordSource>,
}

impl StreamingCredentialsProvider for NodeLogin {
    fn subscribe(&self) -> Pin<Box<dyn Stream<Item = RedisResult<BasicAuth>> + Send + 'static>> {
        let (user, passwords) = (self.user.clone(), Arc::clone(&self.passwords));
        let login = async move { passwords.password().await }.map(|password| match password {
            Ok(password) => Ok(BasicAuth::new(user, Password::expose(&password).to_owned())),
            Err(why) => {
                let what = "there is no password for the shared store";
                Err(RedisError::from((ErrorKind::InvalidClientConfig, what, why)))
            }
        });
        Box::pin(stream::once(login))
    }
}
