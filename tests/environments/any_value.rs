//! No value of any variable or profile key makes the process panic.
//!
//! A thousand processes. Outside CI (`CI` is not set) every fifth of them: each name still meets
//! some of the values, and each value some of the names.

use futures_util::{StreamExt, stream};

use crate::table::{AT_ONCE, UNSET};
use sandbox::testing::program::{Env, all, at_home, run};
use sandbox::testing::world::World;

/// The variables that the SDK reads, and those that the worker reads outside its table.
const VARIABLES: &[&str] = &[
    "ALL_PROXY",
    "AWS_ACCESS_KEY_ID",
    "AWS_ACCOUNT_ID",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_DISABLE_CLOCK_SKEW_CORRECTION",
    "AWS_DISABLE_REQUEST_COMPRESSION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ENDPOINT_URL_STS",
    "AWS_EXECUTION_ENV",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_MAX_ATTEMPTS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_RETRY_MODE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SDK_UA_APP_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_SIGV4A_SIGNING_REGION_SET",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "_X_AMZN_TRACE_ID",
];

/// The keys of a profile.
const KEYS: &[&str] = &[
    "account_id_endpoint_mode",
    "auth_scheme_preference",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "credential_process",
    "credential_source",
    "defaults_mode",
    "disable_request_compression",
    "duration_seconds",
    "ec2_metadata_service_endpoint",
    "ec2_metadata_service_endpoint_mode",
    "endpoint_url",
    "external_id",
    "ignore_configured_endpoint_urls",
    "login_session",
    "max_attempts",
    "mfa_serial",
    "region",
    "request_checksum_calculation",
    "request_min_compression_size_bytes",
    "retry_mode",
    "role_arn",
    "role_session_name",
    "sdk_ua_app_id",
    "services",
    "sigv4a_signing_region_set",
    "source_profile",
    "sso_account_id",
    "sso_region",
    "sso_role_name",
    "sso_session",
    "sso_start_url",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
    "web_identity_token_file",
];

/// Values from bug reports, and others like them: nothing, a line end, numbers out of range, half
/// of a URL, bytes that no header allows.
const VALUES: &[&str] = &["", "\n", "x\r\n", "-1", "http://[::1", "\u{e9} \u{7f}"];

/// Sources of credentials. A fault in one source hides faults in the sources after it.
const CREDENTIALS: &[&[(&str, &str)]] = &[
    &[],
    &[
        ("AWS_ACCESS_KEY_ID", UNSET),
        ("AWS_SECRET_ACCESS_KEY", UNSET),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/credentials"),
    ],
];

/// Outside CI, one in this many environments is tried. It has no factor in common with the number
/// of values and of credentials, so all names and all values occur.
const STRIDE: usize = 5;

/// Runs `check` in each environment. It must exit by itself, without a panic.
async fn survives(environments: Vec<(String, Env)>) {
    let stride = if std::env::var_os("CI").is_some() { 1 } else { STRIDE };
    let environments = environments.into_iter().step_by(stride);
    let checks = environments.map(|(what, variables)| async move {
        let output = run(&["check"], &variables).await;
        (what, output)
    });
    let mut ended = stream::iter(checks).buffer_unordered(AT_ONCE);
    while let Some((what, output)) = ended.next().await {
        let said = all(&output);
        let code = output.status.code();
        assert!(code.is_some_and(|code| code <= 2), "{what}: {code:?} {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
}

#[tokio::test]
async fn no_value_of_any_variable_ends_the_process_by_a_panic() {
    let world = World::start().await;
    let mut environments = Vec::new();
    for (number, credentials) in CREDENTIALS.iter().enumerate() {
        for name in VARIABLES {
            for value in VALUES {
                let mut variables = at_home(&world, "");
                variables.insert("AWS_MAX_ATTEMPTS", "1".to_owned());
                for &(name, value) in *credentials {
                    match value {
                        UNSET => drop(variables.remove(name)),
                        value => drop(variables.insert(name, value.to_owned())),
                    }
                }
                variables.insert(name, (*value).to_owned());
                environments.push((format!("{number}: {name}={value:?}"), variables));
            }
        }
    }
    survives(environments).await;
}

#[tokio::test]
async fn no_value_of_any_profile_key_ends_the_process_by_a_panic() {
    let world = World::start().await;
    let mut environments = Vec::new();
    for key in KEYS {
        for value in VALUES {
            // Beside what makes a profile with a role, so that each key is looked at.
            let role = "role_arn = arn:aws:iam::1:role/r\ncredential_source = Environment\n";
            for beside in ["", role] {
                let profiles = format!("[default]\n{beside}{key} = {}\n", value.trim());
                let mut variables = at_home(&world, &profiles);
                variables.insert("AWS_MAX_ATTEMPTS", "1".to_owned());
                if beside.is_empty() {
                    variables.remove("AWS_ACCESS_KEY_ID");
                    variables.remove("AWS_SECRET_ACCESS_KEY");
                }
                environments.push((profiles, variables));
            }
        }
    }
    survives(environments).await;
}
