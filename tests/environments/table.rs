//! The program with different environments: variables of the AWS SDK, profile files, proxies,
//! regions, endpoints. Each row has the exit code and parts of the output.

use futures_util::{StreamExt, stream};

use sandbox::testing::program::{SECRET, all, at_home, run};
use sandbox::testing::world::World;

/// The number of programs that run concurrently. Most of them wait for a timeout.
pub(crate) const AT_ONCE: usize = 12;

/// A value that stands for a variable that is not set.
pub(crate) const UNSET: &str = "\u{1}unset";

/// One environment, and the result of `check`.
struct Row {
    variables: &'static [(&'static str, &'static str)],
    profiles: &'static str,
    code: i32,
    says: &'static [&'static str],
}

const fn row(
    variables: &'static [(&'static str, &'static str)],
    code: i32,
    says: &'static [&'static str],
) -> Row {
    Row { variables, profiles: "", code, says }
}

const fn with_profile(
    profiles: &'static str,
    variables: &'static [(&'static str, &'static str)],
    code: i32,
    says: &'static [&'static str],
) -> Row {
    Row { variables, profiles, code, says }
}

async fn hold(rows: &[Row]) {
    let world = World::start().await;
    let checks = rows.iter().map(|row| {
        let mut variables = at_home(&world, row.profiles);
        for &(name, value) in row.variables {
            match value {
                UNSET => drop(variables.remove(name)),
                value => drop(variables.insert(name, value.to_owned())),
            }
        }
        async move { (row, run(&["check"], &variables).await) }
    });
    let mut ended = stream::iter(checks).buffer_unordered(AT_ONCE);
    while let Some((row, output)) = ended.next().await {
        let said = all(&output);
        let what = format!("{:?} {:?}", row.variables, row.profiles);
        assert_eq!(output.status.code(), Some(row.code), "{what}: {said}");
        for word in row.says {
            assert!(said.contains(word), "{what} does not say {word:?}: {said}");
        }
        assert!(!said.contains(SECRET) && !said.contains("panicked"), "{what}: {said}");
        // Debug output of the SDK.
        for dump in [
            "ConnectorError",
            "source:",
            "DispatchFailure",
            "CredentialsError",
            "custom endpoint",
            "failed to apply endpoint",
        ] {
            assert!(!said.contains(dump), "{what} says {dump}: {said}");
        }
    }
}

#[tokio::test]
async fn values_on_which_the_sdk_would_fail_are_ignored_or_rejected() {
    hold(&[
        row(&[("AWS_ENDPOINT_URL", "")], 0, &["SQS is called at http://127.0.0.1:"]),
        row(&[("AWS_ENDPOINT_URL_SQS", "")], 0, &["SQS is called at http://127.0.0.1:"]),
        row(&[("AWS_RETRY_MODE", "")], 0, &[]),
        row(&[("AWS_RETRY_MODE", "legacy")], 0, &["AWS_RETRY_MODE is \"legacy\"", "ignored"]),
        row(&[("AWS_RETRY_MODE", "never")], 2, &["AWS_RETRY_MODE is \"never\": must be one of"]),
        row(&[("AWS_MAX_ATTEMPTS", "")], 0, &[]),
        row(&[("AWS_MAX_ATTEMPTS", "0")], 2, &["AWS_MAX_ATTEMPTS is \"0\": must be"]),
        row(&[("AWS_MAX_ATTEMPTS", "-1")], 2, &["AWS_MAX_ATTEMPTS is \"-1\": must be"]),
        row(&[("AWS_MAX_ATTEMPTS", "10\n")], 2, &["AWS_MAX_ATTEMPTS is \"10\\n\": must be"]),
        row(&[("AWS_ACCESS_KEY_ID", "AKID\n")], 2, &["AWS_ACCESS_KEY_ID is set", "not shown"]),
        row(&[("AWS_ACCESS_KEY_ID", "AKID\r")], 2, &["AWS_ACCESS_KEY_ID is set", "line end"]),
        row(
            &[("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-hunter2-secret\n")],
            2,
            &["AWS_SECRET_ACCESS_KEY is set"],
        ),
        row(&[("AWS_SECRET_ACCESS_KEY", "")], 2, &["AWS_SECRET_ACCESS_KEY is not set"]),
        row(&[("AWS_ACCESS_KEY_ID", UNSET)], 2, &["AWS_ACCESS_KEY_ID is not set"]),
        row(&[("AWS_SESSION_TOKEN", "a b")], 2, &["AWS_SESSION_TOKEN is set"]),
        row(&[("AWS_REGION", "us-east-1\n")], 2, &["AWS_REGION is \"us-east-1\\n\": must be"]),
        row(&[("AWS_ENDPOINT_URL", "ftp://x")], 2, &["AWS_ENDPOINT_URL is \"ftp://x\": must be"]),
        row(&[("AWS_ENDPOINT_URL_SQS", "localhost:4566")], 2, &["AWS_ENDPOINT_URL_SQS is"]),
        row(&[("AWS_ENDPOINT_URL_STS", "")], 2, &["AWS_ENDPOINT_URL_STS is \"\": must be"]),
        row(&[("AWS_EXECUTION_ENV", "a\nb")], 2, &["AWS_EXECUTION_ENV is \"a\\nb\": must be"]),
        row(&[("AWS_USE_FIPS_ENDPOINT", "yes")], 2, &["AWS_USE_FIPS_ENDPOINT is \"yes\""]),
        row(&[("HTTPS_PROXY", "socks5://u:pw@p:1")], 2, &["HTTPS_PROXY is \"socks5://***@p:1\""]),
        // Several at once, with a variable of the worker.
        row(
            &[("AWS_MAX_ATTEMPTS", "0"), ("AWS_RETRY_MODE", "x"), ("SQS_WAIT_TIME", "21")],
            2,
            &["SQS_WAIT_TIME is", "AWS_MAX_ATTEMPTS is", "AWS_RETRY_MODE is"],
        ),
        with_profile("[default]\nretry_mode = legacy\n", &[], 0, &[]),
        with_profile("[default]\nretry_mode = x\n", &[], 2, &["profile \"default\": retry_mode"]),
        with_profile("[default]\nmax_attempts = 0\n", &[], 2, &["max_attempts is \"0\": must be"]),
        with_profile("[default]\nendpoint_url =\n", &[], 2, &["endpoint_url is \"\": must be"]),
        with_profile("[default]\nregion = us east\n", &[], 2, &["region is \"us east\""]),
        with_profile(
            "[default]\nservices = s\n[services s]\nsqs =\n  endpoint_url = x\n",
            &[("AWS_ENDPOINT_URL", UNSET)],
            2,
            &["endpoint_url is \"x\": must be"],
        ),
        with_profile("[default\nregion\n", &[], 2, &["the AWS profiles cannot be read"]),
    ])
    .await;
}

#[tokio::test]
async fn a_missing_region_or_profile_is_reported() {
    hold(&[
        row(&[("AWS_REGION", UNSET)], 2, &["AWS_REGION is not set: must be"]),
        row(&[("AWS_REGION", "")], 2, &["AWS_REGION is not set: must be"]),
        row(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "eu-west-1")], 0, &["region eu-west-1"]),
        with_profile(
            "[default]\nregion = eu-west-3\n",
            &[("AWS_REGION", UNSET)],
            0,
            &["eu-west-3"],
        ),
        row(
            &[("AWS_PROFILE", "prod")],
            2,
            &["AWS_PROFILE is \"prod\": must be a profile in", "there: none"],
        ),
        with_profile(
            "[profile dev]\n[profile test]\n",
            &[("AWS_PROFILE", "prod")],
            2,
            &["dev, test"],
        ),
        with_profile("[profile dev]\n", &[("AWS_PROFILE", "dev")], 0, &[]),
        row(&[("AWS_PROFILE", "")], 0, &[]),
        row(
            &[("AWS_ACCESS_KEY_ID", UNSET), ("AWS_SECRET_ACCESS_KEY", UNSET)],
            1,
            &["no credentials are configured", "AWS_PROFILE"],
        ),
    ])
    .await;
}

const LEGACY: &str = "https://eu-west-1.queue.amazonaws.com/123456789012/events";

/// A proxy address on which no server listens: no call leaves this machine.
const NOWHERE: (&str, &str) = ("HTTPS_PROXY", "http://127.0.0.1:9");

const FIPS_HOST: &str = "https://sqs-fips.us-east-1.amazonaws.com";
const DUAL_HOST: &str = "https://sqs.us-east-1.api.aws";

#[tokio::test]
async fn an_empty_endpoint_counts_as_not_set() {
    const EMPTY: (&str, &str) = ("AWS_ENDPOINT_URL", "");
    const EMPTY_OF_SQS: (&str, &str) = ("AWS_ENDPOINT_URL_SQS", "");
    const NONE: (&str, &str) = ("AWS_ENDPOINT_URL", UNSET);
    const FIPS: (&str, &str) = ("AWS_USE_FIPS_ENDPOINT", "true");
    const DUAL: (&str, &str) = ("AWS_USE_DUALSTACK_ENDPOINT", "true");
    const OLD: (&str, &str) = ("SQS_QUEUE_URL", LEGACY);
    const OLD_REGION: (&str, &str) = ("AWS_REGION", UNSET);
    let ignores = "[default]\nignore_configured_endpoint_urls = true\n";
    hold(&[
        row(&[EMPTY, FIPS, NOWHERE], 1, &[FIPS_HOST, "Connection refused"]),
        row(&[NONE, EMPTY_OF_SQS, FIPS, NOWHERE], 1, &[FIPS_HOST, "Connection refused"]),
        row(&[EMPTY, DUAL, NOWHERE], 1, &[DUAL_HOST, "Connection refused"]),
        row(
            &[EMPTY, OLD, OLD_REGION, NOWHERE],
            1,
            &["https://sqs.eu-west-1.", "Connection refused"],
        ),
        with_profile(
            "[default]\nuse_fips_endpoint = true\n",
            &[EMPTY, NOWHERE],
            1,
            &[FIPS_HOST, "as AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint", "Connection refused"],
        ),
        // Configured endpoints are ignored if the environment or the profile says so.
        row(
            &[FIPS, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"), NOWHERE],
            1,
            &[FIPS_HOST, "Connection refused"],
        ),
        with_profile(ignores, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")], 0, &[]),
        with_profile(ignores, &[("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")], 0, &[]),
        with_profile(ignores, &[FIPS, NOWHERE], 1, &[FIPS_HOST, "Connection refused"]),
        with_profile(
            ignores,
            &[
                ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false"),
                ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
            ],
            1,
            &["SQS is called at http://127.0.0.1:9,"],
        ),
    ])
    .await;
}

const NO_ID: (&str, &str) = ("AWS_ACCESS_KEY_ID", UNSET);
const NO_SECRET: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", UNSET);

#[tokio::test]
async fn an_empty_endpoint_is_rejected_where_a_profile_needs_sts_or_sso() {
    const ROLE: &str =
        "[default]\nrole_arn = arn:aws:iam::1:role/r\ncredential_source = Environment\n";
    const SSO: &str = "[default]\nsso_start_url = https://portal.invalid/start\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n";
    const EMPTY: (&str, &str) = ("AWS_ENDPOINT_URL", "");
    let without_keys = &[NO_ID, NO_SECRET, EMPTY];
    hold(&[
        with_profile(ROLE, without_keys, 2, &["AWS_ENDPOINT_URL is \"\"", "\"default\"", "STS"]),
        with_profile(SSO, without_keys, 2, &["AWS_ENDPOINT_URL is \"\"", "\"default\"", "SSO"]),
        // Keys of the environment take precedence.
        with_profile(ROLE, &[EMPTY], 0, &[]),
        with_profile(SSO, &[EMPTY], 0, &[]),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_credentials_from_profiles_and_metadata_are_reported() {
    let without_keys = &[NO_ID, NO_SECRET];
    hold(&[
        with_profile(
            "[default]\naws_access_key_id = AKID\naws_secret_access_key = wJalr hunter2\n",
            without_keys,
            1,
            &["from its keys (AWS profile \"default\")", "holds spaces"],
        ),
        with_profile(
            "[default]\naws_access_key_id = AKID\n",
            without_keys,
            1,
            &["from its keys (AWS profile \"default\")", "aws_secret_access_key"],
        ),
        row(
            &[
                NO_ID,
                NO_SECRET,
                ("AWS_EC2_METADATA_DISABLED", UNSET),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9"),
                ("AWS_MAX_ATTEMPTS", "1"),
            ],
            1,
            &[
                "no credentials are configured",
                "the last that was asked: Ec2InstanceMetadata",
                "Connection refused",
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_https_proxy_is_rejected_for_an_http_endpoint() {
    const PROXY: (&str, &str) = ("HTTP_PROXY", "https://u:pw@127.0.0.1:9");
    hold(&[
        row(&[PROXY], 2, &["HTTP_PROXY is an https URL: must be", "SQS is called at http://127"]),
        row(&[PROXY, ("NO_PROXY", "127.0.0.1")], 0, &[]),
        row(
            &[PROXY, NOWHERE, ("AWS_ENDPOINT_URL", "https://sqs.invalid")],
            1,
            &["SQS is called at https://sqs.invalid"],
        ),
    ])
    .await;
}
