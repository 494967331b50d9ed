//! Secrets are shown nowhere: a marker in each variable and in each payload field that may hold
//! one, and a search for it in all that the worker shows.

mod table;

use std::path::{Path, PathBuf};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use sandbox::redis::{Redis, RedisOptions, is_installed};
use sandbox::reservation_api::{Reply, ReservationStatus};
use sandbox::script::Scripted;
use sandbox::testing::program::{Env, Running, all, env, free_port, run};
use sandbox::testing::world::{World, eventually, expired};
use serde_json::{Value, json};

use self::table::{Held, SECRETS};

/// An environment with markers, and which variable or field each marker is from.
struct Planted {
    variables: Env,
    folder: PathBuf,
    markers: Vec<(String, String)>,
}

impl Planted {
    /// Plants nothing but AWS's secret key. `name` is the test's.
    fn new(world: &World, name: &str) -> Self {
        let name = format!("secrets-{name}-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut planted = Self { variables: env(world), folder, markers: Vec::new() };
        for name in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            let marker = planted.marker(name, "");
            planted.variables.insert(name, marker);
        }
        planted
    }

    /// Returns a new marker. It needs no encoding in a URL, a header or JSON.
    fn marker(&mut self, of: &str, part: &str) -> String {
        let marker = format!("s3cr3t-{}{part}-end", of.to_lowercase());
        self.markers.push((of.to_owned(), marker.clone()));
        marker
    }

    /// Plants a user and a password: `before` is the scheme, `after` the host and the rest.
    fn url(&mut self, name: &'static str, before: &str, after: &str) {
        let (user, password) = (self.marker(name, "-user"), self.marker(name, "-password"));
        self.variables.insert(name, format!("{before}{user}:{password}@{after}"));
    }

    /// Writes a file, whose path is the variable's value.
    fn path(&mut self, name: &'static str, content: &str) {
        let path = self.folder.join(name);
        std::fs::write(&path, content).unwrap();
        self.variables.insert(name, path.to_string_lossy().into_owned());
    }

    /// Writes a token or a password.
    fn file(&mut self, name: &'static str) {
        let content = self.marker(name, "");
        self.path(name, &content);
    }

    /// Writes certificates and a key; of each, every line of base64 is a marker.
    fn pem(&mut self, names: [&'static str; 3]) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let texts = [cert.pem(), cert.pem(), signing_key.serialize_pem()];
        for (name, text) in names.into_iter().zip(texts) {
            let lines = text.lines().filter(|line| !line.starts_with("-----") && line.len() > 20);
            self.markers.extend(lines.map(|line| (name.to_owned(), line.to_owned())));
            self.path(name, &text);
        }
    }

    fn headers(&mut self, name: &'static str) {
        let marker = self.marker(name, "");
        self.variables.insert(name, format!("authorization=Bearer%20{marker},x-key={marker}"));
    }

    /// Checks that no marker is in what was shown; `places` has the name and the text of each.
    fn assert_shown_nowhere(&self, places: &[(String, String)]) {
        for (place, text) in places {
            assert!(!text.is_empty(), "{place} shows nothing");
            for (of, marker) in &self.markers {
                let line = text.lines().find(|line| line.contains(marker));
                assert!(line.is_none(), "{of} is shown by {place}: {}", line.unwrap());
            }
        }
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Returns all that a running worker shows.
async fn shown(worker: &Running, variables: &Env) -> Vec<(String, String)> {
    let mut places = Vec::new();
    for path in ["/status", "/status.json", "/metrics", "/readyz", "/healthz"] {
        let (_, body) = worker.get(path).await.unwrap();
        places.push((format!("GET {path}"), body));
    }
    for command in [
        &["ctl", "status"][..],
        &["ctl", "status", "--json"],
        &["ctl", "event", "evt-held"],
        &["check"],
        &["event", "evt-held"],
    ] {
        let output = all(&run(command, variables).await);
        places.push((format!("`{}`", command.join(" ")), output));
    }
    places.push((format!("the log ({})", variables["LOG_FORMAT"]), worker.log()));
    places
}

const FORMATS: [&str; 2] = ["json", "pretty"];

/// Plants a marker in each field of a payload.
fn payload(planted: &mut Planted) -> Value {
    let mut text = |field: &str| planted.marker(&format!("payload.{field}"), "");
    let payload = json!({
        "payment_intent_id": text("payment_intent_id"),
        "user_id": text("user_id"),
        "currency": text("currency"),
        "error_code": text("error_code"),
        "error_message": text("error_message"),
        "seat_ids": [text("seat_ids")],
        "note": text("note"),
        "qty": 1,
        "amount": 918_273_645_546_372_i64,
    });
    planted.markers.push(("payload.amount".to_owned(), payload["amount"].to_string()));
    payload
}

/// Sends events with this payload that succeed, fail, wait, and can never succeed.
async fn send_events(world: &World, payload: &Value) {
    let status = Scripted::<Reply>::status;
    let event = |id: &str, event_type: &str, payload: &Value| {
        let mut event = expired(&format!("evt-{id}"), id);
        (event["type"], event["payload"]) = (json!(event_type), payload.clone());
        event
    };
    world.api.script_for("held", vec![status(503); 1_000]);
    world.api.script_for("refused", [status(422).body(payload["note"].to_string())]);
    world.api.set_status("money", ReservationStatus::Expired);
    for (id, event_type) in [
        ("fine", "payment.approved"),
        ("failed", "payment.failed"),
        ("expired", "reservation.expired"),
        ("refused", "payment.failed"),
        ("money", "payment.approved"),
    ] {
        world.send(&event(id, event_type, payload));
    }
    let fields: Vec<&String> = payload.as_object().unwrap().keys().collect();
    for field in fields {
        // Each field once with a value that it must not have, around the right one.
        let mut bad = payload.clone();
        bad[field] = json!({"not": payload[field]});
        world.send(&event(&format!("bad-{field}"), "payment.failed", &bad));
        bad[field] = json!(format!("{}\u{1}", payload[field]));
        world.send(&event(&format!("odd-{field}"), "reservation.expired", &bad));
    }
    world.sqs.send(&world.queue, format!("no event: {payload}"));
    world.emptied().await;
    world.send(&event("held", "payment.failed", payload));
}

async fn redis_with_user(planted: &mut Planted) -> Redis {
    let redis = RedisOptions::default().start().await.unwrap();
    planted.url("IDEMPOTENCY_STORE", "redis://", &format!("127.0.0.1:{}", redis.port()));
    let [.., (_, user), (_, password)] = planted.markers.as_slice() else { unreachable!() };
    let password = format!(">{password}");
    redis.command(&["ACL", "SETUSER", user, "on", &password, "~*", "&*", "+@all"]).await.unwrap();
    redis
}

#[tokio::test]
async fn a_worker_at_work_shows_no_secret_and_no_payload() {
    if !is_installed("secrets of a shared store") {
        return;
    }
    for format in FORMATS {
        let world = World::start().await;
        let mut planted = Planted::new(&world, "at-work");
        let _redis = redis_with_user(&mut planted).await;
        planted.file("INVENTORY_TOKEN_FILE");
        planted.file("RESERVATION_API_TOKEN_FILE");
        planted.headers("OTEL_EXPORTER_OTLP_HEADERS");
        planted.headers("OTEL_EXPORTER_OTLP_TRACES_HEADERS");
        planted.url("HTTPS_PROXY", "http://", "127.0.0.1:9");
        let endpoint = format!("http://127.0.0.1:{}", free_port());
        planted.variables.extend([
            ("LOG_LEVEL", "debug".to_owned()),
            ("LOG_FORMAT", format.to_owned()),
            ("OTEL_SDK_DISABLED", "false".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ]);
        let payload = payload(&mut planted);
        let mut worker = Running::started(&planted.variables).await;
        send_events(&world, &payload).await;
        eventually("an event fails and is held", || worker.log().contains("evt-held")).await;
        let status = worker.answers("/status.json", 200).await;
        let status: Value = serde_json::from_str(&status).unwrap();
        assert!(!status["failures"].as_array().unwrap().is_empty(), "{status}");
        let mut places = shown(&worker, &planted.variables).await;
        worker.process.terminate();
        assert_eq!(worker.exit_code().await, Some(0));
        places.push((format!("the log at the end ({format})"), worker.log()));
        planted.assert_shown_nowhere(&places);
        let seats = payload["seat_ids"].to_string();
        let calls = world.calls("fine").concat();
        assert!(calls.contains(seats.trim_matches(['[', ']'])), "no payload was used: {calls}");
    }
}

/// The services and the store do not speak TLS: their certificates and keys are read, and each
/// connection fails.
#[tokio::test]
async fn a_worker_whose_connections_fail_shows_no_secret() {
    for format in FORMATS {
        let world = World::start().await;
        let mut planted = Planted::new(&world, "failing");
        for service in [
            ["INVENTORY_CA_FILE", "INVENTORY_CLIENT_CERT_FILE", "INVENTORY_KEY_FILE"],
            [
                "RESERVATION_API_CA_FILE",
                "RESERVATION_API_CLIENT_CERT_FILE",
                "RESERVATION_API_KEY_FILE",
            ],
            [
                "IDEMPOTENCY_STORE_CA_FILE",
                "IDEMPOTENCY_STORE_CLIENT_CERT_FILE",
                "IDEMPOTENCY_STORE_KEY_FILE",
            ],
        ] {
            planted.pem(service);
        }
        planted.file("IDEMPOTENCY_STORE_PASSWORD_FILE");
        planted.url("OTEL_EXPORTER_OTLP_ENDPOINT", "https://", "collector:4317");
        planted.url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://", "collector:4317/?key=x");
        planted.headers("OTEL_EXPORTER_OTLP_HEADERS");
        planted.variables.extend([
            ("LOG_LEVEL", "debug".to_owned()),
            ("LOG_FORMAT", format.to_owned()),
            ("OTEL_SDK_DISABLED", "true".to_owned()),
            ("INVENTORY_GRPC_ADDR", format!("https://{}", world.inventory.addr())),
            ("RESERVATION_API_BASE", world.api.base_url().replace("http:", "https:")),
            // With a password in a file, `check` names the user.
            ("IDEMPOTENCY_STORE", format!("rediss://worker@127.0.0.1:{}", free_port())),
            ("IDEMPOTENCY_STORE_AUTH", "file".to_owned()),
        ]);
        let worker = Running::started(&planted.variables).await;
        world.send(&expired("evt-held", "held"));
        eventually("an event waits", || worker.log().contains("cannot be reached")).await;
        let places = shown(&worker, &planted.variables).await;
        planted.assert_shown_nowhere(&places);
    }
}

/// Checks that each of `names` is complained about, and that nothing planted is shown.
async fn assert_complaints(planted: &Planted, names: impl Iterator<Item = &'static str>) {
    let mut places = Vec::new();
    for command in [&[][..], &["check"], &["health"]] {
        let output = run(command, &planted.variables).await;
        let place = format!("the start-up errors of `{}`", command.join(" "));
        assert_eq!(output.status.code(), Some(2), "{place}");
        places.push((place, all(&output)));
    }
    for name in names {
        let (place, said) = &places[0];
        assert!(said.contains(&format!("{name} is")), "{name} is not among {place}: {said}");
    }
    planted.assert_shown_nowhere(&places);
}

#[tokio::test]
async fn errors_at_the_start_show_no_secret() {
    let world = World::start().await;
    let mut planted = Planted::new(&world, "errors");
    planted.variables.insert("OTEL_SDK_DISABLED", "false".to_owned());
    planted.variables.insert("IDEMPOTENCY_STORE_AUTH", "file".to_owned());
    for (name, held) in SECRETS {
        match held {
            Held::Url | Held::PlainUrl => {
                let key = planted.marker(name, "-query");
                planted.url(name, "ftp://", &format!("host:1/?key={key}"));
            }
            // Neither one line of text nor PEM.
            Held::File => {
                let marker = planted.marker(name, "");
                planted.path(name, &format!("{marker}\n-----BEGIN {marker}\n{marker}\u{1}\n"));
            }
            Held::Headers => {
                let marker = planted.marker(name, "");
                planted.variables.insert(name, format!("Bearer {marker}"));
            }
        }
    }
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_STS"] {
        planted.url(name, "http://", "127.0.0.1:9");
    }
    planted.url("HTTPS_PROXY", "socks5://", "127.0.0.1:9");
    for name in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        let spaced = format!("{} x", planted.variables[name]);
        planted.variables.insert(name, spaced);
    }
    // The second of each pair is looked at only where the first is not set, or is right.
    let is_second = |name: &str| name.contains("_OTLP_TRACES_") || name.ends_with("_KEY_FILE");
    let names = || SECRETS.iter().map(|(name, _)| *name);
    let (mut first, whole) = (Env::new(), planted.variables.clone());
    first.extend(whole.clone().into_iter().filter(|(name, _)| !name.contains("_OTLP_TRACES_")));
    planted.variables = first;
    assert_complaints(&planted, names().filter(|name| !is_second(name))).await;
    planted.variables = whole;
    let CertifiedKey { cert, .. } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    names()
        .filter(|name| name.ends_with("_CERT_FILE"))
        .for_each(|name| planted.path(name, &cert.pem()));
    assert_complaints(&planted, names().filter(|name| is_second(name))).await;
}

/// A secret in place of the path of its file: a mistake that is easily made.
#[tokio::test]
async fn a_secret_in_place_of_a_path_is_not_shown() {
    let world = World::start().await;
    let mut planted = Planted::new(&world, "no-path");
    planted.variables.insert("IDEMPOTENCY_STORE_AUTH", "file".to_owned());
    let files = SECRETS.iter().filter(|(_, held)| *held == Held::File);
    for (n, (name, _)) in files.enumerate() {
        let marker = planted.marker(name, "");
        let value = match n % 2 {
            0 => marker,
            _ => format!("-----BEGIN PRIVATE KEY-----\n{marker}/x\n-----END PRIVATE KEY-----\n"),
        };
        planted.variables.insert(name, value);
    }
    for command in [&[][..], &["check"]] {
        let output = run(command, &planted.variables).await;
        assert_eq!(output.status.code(), Some(2));
        let place = format!("the start-up errors of `{}`", command.join(" "));
        planted.assert_shown_nowhere(&[(place, all(&output))]);
    }
}
