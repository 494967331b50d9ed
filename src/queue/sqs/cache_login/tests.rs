//! Tokens against those of botocore 1.44.8 (`RequestSigner.generate_presigned_url`), and the lookup
//! of the credentials that sign them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use tokio::sync::Notify;

use super::*;

const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// 2025-01-02T03:04:05Z, the time of all vectors.
const NOW_S: u64 = 1_735_787_045;

/// What all vectors have between service and signature.
fn signed(region: &str, service: &str) -> String {
    format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY_ID}%2F20250102%2F{region}%2F{service}%2Faws4_request&X-Amz-Date=20250102T030405Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host"
    )
}

fn cache(service: AwsCacheService, name: &str) -> AwsCache {
    AwsCache { service, name: name.to_owned() }
}

fn credentials(session: Option<&str>, expires: Option<SystemTime>) -> Credentials {
    Credentials::new(KEY_ID, SECRET, session.map(str::to_owned), expires, "test")
}

/// Splits a token into its host and its parameters, sorted: botocore has another order.
fn parts(token: &str) -> (&str, Vec<&str>) {
    let (host, query) = token.split_once("/?").unwrap();
    let mut parameters: Vec<&str> = query.split('&').collect();
    parameters.sort_unstable();
    (host, parameters)
}

#[test]
fn tokens_are_those_of_botocore() {
    use AwsCacheService::{ElastiCache, ElastiCacheServerless, MemoryDb};
    let session = "IQoJb3JpZ2luX2VjE//+==example/token";
    let session_encoded = "&X-Amz-Security-Token=IQoJb3JpZ2luX2VjE%2F%2F%2B%3D%3Dexample%2Ftoken";
    for (cache, region, user, session, begins, signature) in [
        (
            cache(ElastiCache, "my-cache"),
            "eu-west-1",
            "worker",
            None,
            "my-cache/?Action=connect&User=worker",
            "ccd72d8f08659d79de5f52bcadaa7811180c82741aeab98aebe3dce7c86ff9bd",
        ),
        (
            cache(ElastiCacheServerless, "my-cache"),
            "ap-northeast-2",
            "worker",
            None,
            "my-cache/?Action=connect&User=worker&ResourceType=ServerlessCache",
            "1c0e10b3299581fd17ce1643088a4b6b35579479aa5db3881c770f9be7bc09e0",
        ),
        (
            cache(MemoryDb, "my-cluster"),
            "us-east-1",
            "worker-1",
            None,
            "my-cluster/?Action=connect&User=worker-1",
            "3c15059fac020a3c1a4980c23dc7ba92f137d7108071dba8ac920892d9eae5af",
        ),
        (
            cache(ElastiCache, "my-cache"),
            "eu-west-1",
            "worker",
            Some(session),
            "my-cache/?Action=connect&User=worker",
            "d00eb3dba0cd7db01c5b42d368118671c72dfd38847c84ec764bab7f49d41cb2",
        ),
        (
            cache(ElastiCache, "my-cache"),
            "eu-west-1",
            "a_b.c~d+e/f&g=h%",
            None,
            "my-cache/?Action=connect&User=a_b.c~d%2Be%2Ff%26g%3Dh%25",
            "cd594bd551419e07b35f5822805549354ec4e916b099a566f5e7b68c48236471",
        ),
    ] {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S);
        let token = token(credentials(session, None), region, &cache, user, now).unwrap();
        let service = if cache.service == MemoryDb { "memorydb" } else { "elasticache" };
        let session = session.map_or("", |_| session_encoded);
        let signed = signed(region, service);
        let expected = format!("{begins}&{signed}{session}&X-Amz-Signature={signature}");
        assert_eq!(parts(token.expose()), parts(&expected));
        assert!(!format!("{token:?}").contains("Signature"));
    }
}

/// A provider whose answers are held back until they are let go, and counted.
#[derive(Clone, Debug, Default)]
struct Held {
    asked: Arc<AtomicU32>,
    go: Arc<Notify>,
    is_held: bool,
    expires: Option<SystemTime>,
    fails: bool,
}

impl ProvideCredentials for Held {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.is_held {
                self.go.notified().await;
            }
            if self.fails {
                return Err(CredentialsError::not_loaded("nobody is at home"));
            }
            Ok(credentials(None, self.expires))
        })
    }
}

fn login(provider: &Held) -> CacheLogin {
    let cache = cache(AwsCacheService::ElastiCache, "my-cache");
    let provider = SharedCredentialsProvider::new(provider.clone());
    CacheLogin::new(Some(provider), "eu-west-1", &cache, "worker")
}

#[tokio::test]
async fn credentials_are_fetched_again_before_they_end() {
    let now = SystemTime::now();
    for (expires, fetched) in [
        (Some(now + Duration::from_secs(3600)), 1),
        (Some(now + Duration::from_secs(30)), 2),
        (None, 1),
    ] {
        let provider = Held { expires, ..Held::default() };
        let login = login(&provider);
        for _ in 0..2 {
            assert!(login.password().await.unwrap().expose().starts_with("my-cache/?Action="));
        }
        assert_eq!(provider.asked.load(Ordering::Relaxed), fetched, "{expires:?}");
    }
    let long_ago = now - Duration::from_secs(301);
    assert!(!are_good(&credentials(None, None), long_ago, now));
}

#[tokio::test(start_paused = true)]
async fn a_slow_lookup_is_named_and_goes_on_for_the_next_connection() {
    let provider = Held { is_held: true, ..Held::default() };
    let login = login(&provider);
    let said = login.password().await.unwrap_err();
    assert!(said.contains("no AWS credentials within 800 ms"), "{said}");
    provider.go.notify_one();
    login.password().await.unwrap();
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
}

/// A provider that needs five answers, one after the other, each half a second late.
#[derive(Clone, Debug, Default)]
struct Slow {
    asked: Arc<AtomicU32>,
}

impl ProvideCredentials for Slow {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.asked.fetch_add(1, Ordering::Relaxed);
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Ok(credentials(None, None))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_of_several_steps_goes_on_while_nobody_waits_for_it() {
    let provider = Slow::default();
    let cache = cache(AwsCacheService::ElastiCache, "my-cache");
    let shared = SharedCredentialsProvider::new(provider.clone());
    let login = CacheLogin::new(Some(shared), "eu-west-1", &cache, "worker");
    login.password().await.unwrap_err();
    // The store is looked at every 10 s.
    tokio::time::sleep(Duration::from_secs(10)).await;
    login.password().await.unwrap();
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_failed_lookup_is_reported_and_repeated() {
    let provider = Held { fails: true, ..Held::default() };
    let login = login(&provider);
    login.prepare().await;
    for _ in 0..2 {
        let said = login.password().await.unwrap_err();
        assert!(said.contains("nobody is at home"), "{said}");
    }
    assert!(provider.asked.load(Ordering::Relaxed) >= 2);
    let none = CacheLogin { provider: None, ..login };
    assert!(none.password().await.is_err());
}
