//! The shared store: URLs that are refused by name, and the rules of its login and certificates.

use super::*;
use crate::config::{AwsCache, AwsCacheService};
use crate::credentials::tests::authority::{Authority, Folder};

const STORE: &str = "IDEMPOTENCY_STORE";
const AUTH: &str = "IDEMPOTENCY_STORE_AUTH";
const PASSWORD_FILE: &str = "IDEMPOTENCY_STORE_PASSWORD_FILE";
const AWS_CACHE: &str = "IDEMPOTENCY_STORE_AWS_CACHE";

/// Returns the errors for variables that must be refused; none of them shows the password.
fn errors(vars: &[(&str, &str)]) -> Vec<String> {
    let errors = with(vars).map(|_| format!("{vars:?} was accepted")).unwrap_err();
    let said: Vec<_> = errors.as_slice().iter().map(ToString::to_string).collect();
    assert!(!said.iter().any(|line| line.contains("hunter2")), "{said:?}");
    said
}

/// Returns the only error.
fn error(vars: &[(&str, &str)]) -> String {
    let said = errors(vars);
    assert_eq!(said.len(), 1, "{said:?}");
    said.concat()
}

#[test]
fn characters_that_must_be_encoded_are_named() {
    for (url, shown, named) in [
        ("redis://:p@hunter2/w#rd@cache", "redis://***@cache", "has @ (%40), / (%2F), # (%23), to"),
        ("rediss://worker:hunter2?x@cache:6380", "rediss://***@cache:6380", "has ? (%3F), to"),
        ("redis://worker:12/hunter2@cache/0", "redis://***@cache/0", "has / (%2F), to"),
        ("redis://worker:12?hunter2@cache", "redis://***@cache", "has ? (%3F), to"),
        ("redis://:100%\\hunter2@cache", "redis://***@cache", "has % (%25), \\ (%5C), to"),
        ("redis://:hunter2 and@cache", "redis://***@cache", "has a space (%20), to"),
        (
            "redis://:hunter2\t@cache",
            "redis://***@cache",
            "has white space or a control character, to",
        ),
        ("valkey://hun/ter2@cache", "valkey://***@cache", "has / (%2F), to"),
    ] {
        let said = error(&[(STORE, url)]);
        assert!(said.starts_with(&format!("{STORE} is {shown:?}: must be `memory`")), "{said}");
        assert!(said.contains(&format!("in this one, the user or password {named} be")), "{said}");
        assert!(said.ends_with("put it into a file (IDEMPOTENCY_STORE_AUTH=file)"), "{said}");
    }
}

#[test]
fn addresses_of_other_kinds_are_refused_by_name() {
    for (url, why) in [
        ("redis+sentinel://:hunter2@a:26379,b:26379/master", "a Sentinel is not asked here"),
        ("redis-sentinel://a:26379/master", "a Sentinel is not asked here"),
        ("rediss+sentinel://a/master", "a Sentinel is not asked here"),
        ("sentinel://a/master", "a Sentinel is not asked here"),
        ("unix:///run/redis.sock?password=hunter2", "sockets of the machine are not"),
        ("redis+unix:///run/redis.sock", "sockets of the machine are not"),
        ("valkey+unix:///run/redis.sock", "sockets of the machine are not"),
        ("redis-socket:///run/redis.sock", "sockets of the machine are not"),
        ("rediss://:hunter2@cache#insecure", "a certificate is always verified"),
        ("rediss://cache:6379/0#insecure", "IDEMPOTENCY_STORE_CA_FILE"),
        ("redis://user:%ff@cache", "are not UTF-8"),
    ] {
        let said = error(&[(STORE, url)]);
        assert!(said.contains("must be `memory`") && said.contains(why), "{said}");
    }
}

#[test]
fn a_password_file_goes_with_a_url_without_password() {
    let folder = Folder::new();
    let file = folder.write("password", "p@ss/w#rd\n");
    let file = file.to_str().unwrap();
    for url in ["redis://worker@cache", "rediss://cache", "valkey://worker@cache"] {
        let vars = [(STORE, url), (AUTH, "File"), (PASSWORD_FILE, file)];
        let config = with(&vars).unwrap();
        let StoreAuth::File(password) = &config.idempotency.auth else { panic!("{url}") };
        assert_eq!(password.current().expose(), "p@ss/w#rd");
        assert!(!format!("{config:?}").contains("p@ss"));
        assert!(config.effective().any(|(name, shown)| name == PASSWORD_FILE && shown == file));
    }
    let url = (STORE, "redis://worker@cache");
    let with_password = (STORE, "redis://worker:hunter2@cache");
    let path = (PASSWORD_FILE, file);
    let by_file = (AUTH, "file");
    let said = error(&[with_password, by_file, path]);
    assert!(said.contains("a URL without a password, as IDEMPOTENCY_STORE_AUTH is file"), "{said}");
    let said = error(&[url, by_file]);
    assert!(said.starts_with("IDEMPOTENCY_STORE_PASSWORD_FILE is not set: must be set, as"));
    let said = error(&[url, path]);
    assert!(said.ends_with("set only where IDEMPOTENCY_STORE_AUTH is file"), "{said}");
    let said = error(&[by_file, path]);
    assert!(said.starts_with("IDEMPOTENCY_STORE_AUTH is \"file\": must be url where"), "{said}");
    let said = error(&[url, by_file, (PASSWORD_FILE, "/nowhere")]);
    assert!(said.contains("No such file"), "{said}");
    // A wrong address causes no second error about it.
    assert!(error(&[(STORE, "redis://"), by_file, path]).starts_with("IDEMPOTENCY_STORE is "));
    assert!(error(&[url, (AUTH, "iam"), path]).contains("one of url, file, aws-iam"));
}

#[test]
fn a_cache_of_aws_is_named_by_its_service() {
    use AwsCacheService::{ElastiCache, ElastiCacheServerless, MemoryDb};
    let url = (STORE, "rediss://worker@cache.abc.euw1.cache.amazonaws.com:6379");
    let by_token = (AUTH, "aws-iam");
    for (given, service, name) in [
        ("my-cache", ElastiCache, "my-cache"),
        ("serverless/my-cache-1", ElastiCacheServerless, "my-cache-1"),
        ("memorydb/c", MemoryDb, "c"),
    ] {
        let config = with(&[url, by_token, (AWS_CACHE, given)]).unwrap();
        let StoreAuth::AwsIam(cache) = &config.idempotency.auth else { panic!("{given}") };
        assert_eq!(*cache, AwsCache { service, name: name.to_owned() });
        assert!(config.effective().any(|(name, shown)| name == AWS_CACHE && shown == given));
    }
    let long = "a".repeat(51);
    for wrong in [
        "My-Cache",
        "-a",
        "1a",
        "a-",
        "a.b",
        "serverless/",
        "elasticache/a",
        "memorydb/a/b",
        "arn:aws:elasticache:eu-west-1:1:cluster:a",
        &long,
    ] {
        let said = error(&[url, by_token, (AWS_CACHE, wrong)]);
        assert!(said.contains("must be NAME or serverless/NAME"), "{said}");
    }
}

#[test]
fn tokens_of_aws_need_tls_a_user_and_a_cache() {
    let url = (STORE, "rediss://worker@cache");
    let (by_token, cache) = ((AUTH, "aws-iam"), (AWS_CACHE, "my-cache"));
    for (url, why) in [
        ("redis://worker@cache", "a rediss:// URL: AWS accepts tokens over TLS only, as"),
        ("valkey://worker@cache", "a rediss:// URL: AWS accepts tokens over TLS only, as"),
        ("rediss://cache", "a URL with the user's name (rediss://USER@HOST:PORT), as"),
        ("rediss://worker:hunter2@cache", "a URL without a password, as"),
    ] {
        let said = error(&[(STORE, url), by_token, cache]);
        assert!(
            said.contains(&format!("must be {why} IDEMPOTENCY_STORE_AUTH is aws-iam")),
            "{said}"
        );
    }
    let said = error(&[url, by_token]);
    assert!(said.starts_with("IDEMPOTENCY_STORE_AWS_CACHE is not set: must be set, as"), "{said}");
    let said = error(&[url, cache]);
    assert!(said.ends_with("set only where IDEMPOTENCY_STORE_AUTH is aws-iam"), "{said}");
    let said = errors(&[(STORE, "memory"), by_token, cache]);
    assert!(said.concat().contains("must be url where IDEMPOTENCY_STORE is memory"), "{said:?}");
}

#[test]
fn certificates_need_tls_and_come_in_pairs() {
    let folder = Folder::new();
    let authority = Authority::new("authority");
    let leaf = authority.signs("me");
    let write = |name: &str, text: &str| folder.write(name, text).to_str().unwrap().to_owned();
    let (ca, certificate, key) =
        (write("ca", &authority.pem()), write("crt", &leaf.certificate), write("key", &leaf.key));
    let files = [
        ("IDEMPOTENCY_STORE_CA_FILE", ca.as_str()),
        ("IDEMPOTENCY_STORE_CLIENT_CERT_FILE", certificate.as_str()),
        ("IDEMPOTENCY_STORE_KEY_FILE", key.as_str()),
    ];
    let with_url = |url| [&[(STORE, url)], &files[..]].concat();
    for url in ["rediss://cache", "valkeys://cache"] {
        let config = with(&with_url(url)).unwrap();
        let certificates = &config.idempotency.certificates;
        assert_eq!(**certificates.roots.as_ref().unwrap().current(), authority.pem().into_bytes());
        assert_eq!(certificates.identity.as_ref().unwrap().current().key, leaf.key.as_bytes());
        assert!(!format!("{config:?}").contains("PRIVATE"));
    }
    for url in ["redis://cache", "memory"] {
        let said = errors(&with_url(url));
        assert_eq!(said.len(), 3, "{said:?}");
        for (line, (name, _)) in said.iter().zip(files) {
            assert!(line.starts_with(&format!("{name} is ")), "{line}");
            assert!(
                line.ends_with("set only where IDEMPOTENCY_STORE is a rediss:// URL"),
                "{line}"
            );
        }
    }
    let url = (STORE, "rediss://cache");
    let said = error(&[url, files[1]]);
    assert!(said.ends_with("together with IDEMPOTENCY_STORE_KEY_FILE, which is not set"), "{said}");
    let said = error(&[url, files[2]]);
    assert!(said.contains("together with IDEMPOTENCY_STORE_CLIENT_CERT_FILE, which"), "{said}");
    let said = error(&[url, (files[0].0, key.as_str())]);
    assert!(said.ends_with("holds no PEM certificate"), "{said}");
    let said = error(&[url, files[1], (files[2].0, certificate.as_str())]);
    assert!(said.starts_with("IDEMPOTENCY_STORE_KEY_FILE is "), "{said}");
}
