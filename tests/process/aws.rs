//! The program's use of AWS: endpoints, proxies, credentials, and what it reports when the server
//! is not SQS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use sandbox::testing::program::{Env, Running, all, at_home, run, stdout};
use sandbox::testing::world::{World, eventually};

/// A server that gives every request the same answer or none, and keeps the requests.
struct Stub {
    address: SocketAddr,
    /// The head of each request and its time.
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    _tasks: JoinSet<()>,
}

impl Stub {
    async fn answering(answer: Option<&str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (answer.map(str::to_owned), Arc::clone(&asked));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                open.spawn(serve(client, answer.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    /// Starts a server that answers with this status, media type and body.
    async fn saying(status: &str, media_type: &str, body: &str) -> Self {
        let length = body.len();
        Self::answering(Some(&format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        )))
        .await
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<(Instant, String)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut client: TcpStream,
    answer: Option<String>,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
) {
    let mut read = Vec::new();
    loop {
        let end = read.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            if client.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
        while read.len() < end + 4 + length {
            if client.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        read.drain(..end + 4 + length);
        asked.lock().unwrap().push((Instant::now(), head));
        match &answer {
            Some(answer) if client.write_all(answer.as_bytes()).await.is_ok() => {}
            Some(_) => return,
            None => std::future::pending().await,
        }
    }
}

/// Runs `check`, which must fail, and returns its line about the queue.
async fn failing(variables: &Env) -> String {
    let output = run(&["check"], variables).await;
    let said = all(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for dump in ["Error {", "source:", "DispatchFailure", "panicked"] {
        assert!(!said.contains(dump), "{dump}: {said}");
    }
    let line = said.lines().find(|line| line.contains("FAIL  queue"));
    line.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[tokio::test]
async fn endpoint_and_region_are_taken_from_the_queue_url() {
    let world = World::start().await;
    let mut variables = at_home(&world, "");
    variables.remove("AWS_ENDPOINT_URL");
    // A queue URL as LocalStack has it, with the region in the path.
    variables.remove("AWS_REGION");
    let path = format!("{}/queue/eu-west-2/000000000000/events", world.sqs.endpoint_url());
    variables.insert("SQS_QUEUE_URL", path);
    let output = run(&["check"], &variables).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let place = format!("SQS is called at {}, for the region eu-west-2", world.sqs.endpoint_url());
    assert!(said.contains(&place), "{said}");
    assert!(!said.contains("warning"), "{said}");
    // Explicit settings take precedence, and `check` reports them.
    variables.insert("AWS_REGION", "us-west-1".to_owned());
    variables
        .insert("AWS_ENDPOINT_URL_SQS", world.sqs.endpoint_url().replace("127.0.0.1", "localhost"));
    let output = run(&["check"], &variables).await;
    let said = stdout(&output);
    assert!(said.contains("SQS is called at http://localhost:"), "{said}");
    assert!(said.contains("warning: SQS is called at http://localhost:"), "{said}");
    assert!(
        said.contains("signed for the region us-west-1, but SQS_QUEUE_URL is in eu-west-2"),
        "{said}"
    );
}

#[tokio::test]
async fn sqs_is_called_through_the_proxy_except_as_no_proxy_says() {
    let world = World::start().await;
    let proxy = Stub::saying("200 OK", "application/x-amz-json-1.0", "{}").await;
    let mut variables = at_home(&world, "");
    variables.insert("HTTP_PROXY", proxy.url());
    let said = all(&run(&["check"], &variables).await);
    assert!(said.contains(&format!("through {}", proxy.url())), "{said}");
    let asked = proxy.asked();
    let through = format!("POST {}/ HTTP/1.1", world.sqs.endpoint_url());
    assert!(asked.iter().any(|(_, head)| head.starts_with(&through)), "{asked:?}");

    let before = asked.len();
    variables.insert("NO_PROXY", "example.com,127.0.0.1".to_owned());
    let output = run(&["check"], &variables).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    assert!(!all(&output).contains("through"), "{}", all(&output));
    assert_eq!(proxy.asked().len(), before);

    // A proxy without a scheme, in a lower-case variable, for https.
    variables.remove("NO_PROXY");
    variables.insert("AWS_ENDPOINT_URL", "https://sqs.invalid".to_owned());
    variables.insert("https_proxy", proxy.address.to_string());
    drop(failing(&variables).await);
    let connect = "CONNECT sqs.invalid:443 HTTP/1.1";
    assert!(proxy.asked().iter().any(|(_, head)| head.starts_with(connect)), "{:?}", proxy.asked());
}

#[tokio::test]
async fn credential_requests_to_the_local_machine_use_no_proxy() {
    let world = World::start().await;
    let proxy = Stub::saying("200 OK", "application/x-amz-json-1.0", "{}").await;
    let keys = r#"{"AccessKeyId":"AKIDPOD","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
    let agent = Stub::saying("200 OK", "application/json", keys).await;
    let mut variables = at_home(&world, "");
    for key in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        variables.remove(key);
    }
    let address = format!("{}/v1/credentials", agent.url());
    variables.insert("AWS_CONTAINER_CREDENTIALS_FULL_URI", address);
    variables.insert("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-token".to_owned());
    variables.insert("HTTP_PROXY", proxy.url());
    drop(run(&["check"], &variables).await);
    assert!(agent.asked().iter().any(|(_, head)| head.contains("pod-token")));
    let proxied = proxy.asked();
    assert!(!proxied.is_empty(), "SQS was not called through the proxy");
    assert!(proxied.iter().all(|(_, head)| !head.contains("pod-token")), "{proxied:?}");
}

/// The environment of a pod whose credentials come from STS.
fn web_identity(world: &World, sts: &Stub) -> Env {
    let mut variables = at_home(world, "");
    let home = variables["HOME"].clone();
    let token = format!("{home}/token");
    std::fs::write(&token, "token").unwrap();
    for key in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        variables.remove(key);
    }
    variables.insert("AWS_WEB_IDENTITY_TOKEN_FILE", token);
    variables.insert("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/worker".to_owned());
    variables.insert("AWS_ENDPOINT_URL_STS", sts.url());
    variables
}

#[tokio::test]
async fn a_failure_of_sts_is_reported_as_such() {
    let world = World::start().await;
    let sts = Stub::answering(None).await;
    let line = failing(&web_identity(&world, &sts)).await;
    for word in ["STS", "AWS_ROLE_ARN", "no answer within 4 s"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let refusal = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error><RequestId>r</RequestId></ErrorResponse>";
    let sts = Stub::saying("403 Forbidden", "text/xml", refusal).await;
    let line = failing(&web_identity(&world, &sts)).await;
    for word in ["STS", "AWS_ROLE_ARN", "Not authorized to perform sts:AssumeRoleWithWebIdentity"] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

const START: &str = "https://portal.invalid/start";

/// The environment of a user of AWS SSO, with a token that expires at `until` or without one.
fn signed_on(world: &World, portal: &Stub, until: Option<&str>) -> Env {
    let profile = format!(
        "[profile dev]\nsso_start_url = {START}\nsso_region = us-east-1\nsso_account_id = 123456789012\nsso_role_name = dev\n"
    );
    let mut variables = at_home(world, &profile);
    for key in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        variables.remove(key);
    }
    variables.insert("AWS_PROFILE", "dev".to_owned());
    variables.insert("AWS_ENDPOINT_URL_SSO", portal.url());
    if let Some(until) = until {
        let folder = format!("{}/.aws/sso/cache", variables["HOME"]);
        std::fs::create_dir_all(&folder).unwrap();
        let name: String = Sha1::digest(START).iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!(
            r#"{{"startUrl":"{START}","region":"us-east-1","accessToken":"t","expiresAt":"{until}"}}"#
        );
        std::fs::write(format!("{folder}/{name}.json"), token).unwrap();
    }
    variables
}

#[tokio::test]
async fn an_sso_profile_works_or_check_names_the_login_command() {
    let world = World::start().await;
    let keys = r#"{"roleCredentials":{"accessKeyId":"AKIDSSO","secretAccessKey":"s","sessionToken":"t","expiration":4070908800000}}"#;
    let portal = Stub::saying("200 OK", "application/json", keys).await;
    let variables = signed_on(&world, &portal, Some("2099-01-01T00:00:00Z"));
    let output = run(&["check"], &variables).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let asked = portal.asked();
    assert!(
        asked.iter().any(|(_, head)| head.starts_with("GET /federation/credentials")),
        "{asked:?}"
    );
    let refused =
        r#"{"__type":"UnauthorizedException","message":"Session token not found or invalid"}"#;
    let refusing = Stub::saying("401 Unauthorized", "application/json", refused).await;
    for (portal, until) in [(&portal, None), (&refusing, Some("2099-01-01T00:00:00Z"))] {
        let line = failing(&signed_on(&world, portal, until)).await;
        for word in ["SSO", "\"dev\"", "run `aws sso login --profile dev`"] {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_not_from_sqs_is_reported_with_its_status() {
    let world = World::start().await;
    let xml = "<?xml version=\"1.0\"?><ErrorResponse><Error><Code>InvalidAction</Code></Error></ErrorResponse>";
    for (status, media_type, body, word) in [
        ("400 Bad Request", "text/xml", xml, "older protocol"),
        ("200 OK", "text/xml", xml, "older protocol"),
        ("502 Bad Gateway", "text/html", "<html><h1>Bad Gateway</h1></html>", "a web page"),
        ("403 Forbidden", "text/html; charset=utf-8", "<html>Blocked</html>", "a web page"),
        ("200 OK", "text/html", "<html>Sign in</html>", "a web page"),
        ("404 Not Found", "text/plain", "404 page not found", "another server"),
        ("503 Service Unavailable", "text/plain", "", "a load balancer"),
    ] {
        let stub = Stub::saying(status, media_type, body).await;
        let mut variables = at_home(&world, "");
        variables.insert("AWS_ENDPOINT_URL", stub.url());
        let line = failing(&variables).await;
        let status = format!("HTTP {}", &status[..3]);
        for word in [&*status, word, "AWS_ENDPOINT_URL"] {
            assert!(line.contains(word), "{status} {word}: {line}");
        }
    }
}

#[tokio::test]
async fn the_source_queue_is_rejected_as_its_own_dead_letter_queue() {
    let world = World::start().await;
    let mut variables = at_home(&world, "");
    for spelt in [
        world.queue.replace("127.0.0.1", "localhost"),
        "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/events".to_owned(),
        "http://localhost:4566/queue/us-east-1/000000000000/events".to_owned(),
        "http://localhost:4566/queue/events".to_owned(),
    ] {
        variables.insert("SQS_DLQ_URL", spelt.clone());
        let output = run(&["check"], &variables).await;
        assert_eq!(output.status.code(), Some(2), "{spelt}: {}", all(&output));
        assert!(all(&output).contains("SQS_DLQ_URL is"), "{}", all(&output));
    }
    // By its URL the queue is of another account; its ARN shows that it is the same queue.
    variables.insert("SQS_DLQ_URL", world.queue.replace("000000000000", "111111111111"));
    let output = run(&["check"], &variables).await;
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    assert!(stdout(&output).contains("SQS_DLQ_URL is the queue itself"), "{}", all(&output));
    world.sqs.send(&world.queue, "poison");
    let worker = Running::started(&variables).await;
    eventually("the log names the mistake", || {
        worker.log().contains("SQS_DLQ_URL is the queue itself")
    })
    .await;
    eventually("the poison is in flight", || world.sqs.counts(&world.queue).in_flight == 1).await;
    assert_eq!(world.sqs.counts(&world.queue).total(), 1, "a copy was made");
}

#[tokio::test]
async fn empty_receives_that_are_answered_at_once_back_off() {
    let world = World::start().await;
    let stub = Stub::saying("200 OK", "application/x-amz-json-1.0", "{}").await;
    let mut variables = at_home(&world, "");
    variables.insert("AWS_ENDPOINT_URL", stub.url());
    variables.insert("SQS_WAIT_TIME", "20".to_owned());
    let receives = || -> Vec<Instant> {
        let is_receive = |head: &str| head.contains("AmazonSQS.ReceiveMessage");
        stub.asked().iter().filter(|(_, head)| is_receive(head)).map(|(at, _)| *at).collect()
    };
    let _worker = Running::started(&variables).await;
    eventually("the fifth receive is sent", || receives().len() >= 5).await;
    let at = receives();
    // The first pause is at least 100 ms, and each further one is twice as long.
    assert!(at[4] - at[0] >= Duration::from_millis(400), "{:?}", at[4] - at[0]);
}
