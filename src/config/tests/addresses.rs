//! Addresses that are accepted or refused, and how their passwords are masked.

use super::*;

#[test]
fn queue_urls_are_validated() {
    for (url, name) in [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "orders"),
        ("http://localhost:4566/000000000000/orders-1_x", "orders-1_x"),
        ("http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/q.fifo", "q.fifo"),
        ("http://localhost:9324/queue/orders", "orders"),
        ("http://[::1]:9324/orders", "orders"),
    ] {
        let queue = with(&[("SQS_QUEUE_URL", url)]).unwrap().sqs.queue_url;
        assert_eq!((queue.as_str(), queue.name()), (url, name));
    }
    let long = format!("http://h/{}", "q".repeat(81));
    let long_fifo = format!("http://h/{}.fifo", "q".repeat(76));
    for bad in [
        "orders",
        "http://",
        "http://host",
        "http://host/",
        "http://host/orders/",
        "http://host/.fifo",
        "http://host/a.b",
        "http://host/a.fifo.fifo",
        "http://host/a%20b",
        "http://host/주문",
        "http://host:0/orders",
        "http://host:99999/orders",
        "ftp://host/orders",
        "arn:aws:sqs:eu-west-1:123456789012:orders",
        "http://host/orders?x=1",
        "http://host/orders#x",
        "http://user@host/orders",
        " http://host/orders",
        "http://host/orders\n",
        "http://host/ord\ters",
        "http:\\\\host\\orders",
        &long,
        &long_fifo,
    ] {
        assert!(refused("SQS_QUEUE_URL", bad).contains("the queue's name"), "{bad}");
        assert!(refused("SQS_DLQ_URL", bad).contains("as SQS_QUEUE_URL"), "{bad}");
    }
    with(&[("SQS_QUEUE_URL", &format!("http://h/{}", "q".repeat(80)))]).unwrap();
}

#[test]
fn inventory_addresses_are_validated() {
    for (given, url) in [
        ("inventory:50051", "http://inventory:50051/"),
        ("10.0.0.1:1", "http://10.0.0.1:1/"),
        ("[::1]:50051", "http://[::1]:50051/"),
        ("inventory:80", "http://inventory/"),
        ("http://inventory:50051", "http://inventory:50051/"),
        ("https://inventory.example.com", "https://inventory.example.com/"),
        ("HTTPS://Inventory/", "https://inventory/"),
        ("dns-name_x.svc.cluster.local:50051", "http://dns-name_x.svc.cluster.local:50051/"),
    ] {
        let config = with(&[("INVENTORY_GRPC_ADDR", given)]).unwrap();
        assert_eq!(config.inventory.url.as_str(), url);
    }
    for bad in [
        "inventory",
        ":50051",
        "inventory:",
        "inventory:0",
        "inventory:65536",
        "inventory:port",
        "::1:50051",
        "inventory:50051/path",
        "http://inventory:50051/path",
        "http://inventory?x",
        "http://inventory/#x",
        "grpc://inventory:50051",
        "unix:///run/inventory.sock",
        "user:secret@inventory:50051",
        "http://user@inventory",
        "a b:1",
    ] {
        assert!(refused("INVENTORY_GRPC_ADDR", bad).contains("must be `host:port`"), "{bad}");
    }
}

#[test]
fn reservation_api_addresses_are_validated() {
    for given in ["http://api", "https://api:8443/", "http://[::1]:80/v1", "http://api/a/b/"] {
        with(&[("RESERVATION_API_BASE", given)]).unwrap();
    }
    for bad in [
        "api:8080",
        "api",
        "http://",
        "ftp://api",
        "http://api?x=1",
        "http://api/#x",
        "http://u@api",
        "http://u:p@api",
        "http://api /",
    ] {
        assert!(refused("RESERVATION_API_BASE", bad).contains("must be an http"), "{bad}");
    }
}

#[test]
fn store_addresses_are_validated() {
    for given in [
        "redis://cache",
        "rediss://:secret@cache:6380/3",
        "redis://user:secret@[::1]:1/0?protocol=resp3",
        "valkey://cache",
        "valkeys://:s%2Fe%23c@cache:6380",
        "redis://:p@ss@cache",
    ] {
        let config = with(&[("IDEMPOTENCY_STORE", given)]).unwrap();
        let IdempotencyStore::Redis(url) = &config.idempotency.store else { panic!("{given}") };
        assert_eq!(url.expose().as_str().replace("p%40ss", "p@ss"), given);
        let has_tls = given.starts_with("rediss:") || given.starts_with("valkeys:");
        assert_eq!(url.uses_tls(), has_tls, "{given}");
    }
    for bad in [
        "Memory",
        "redis",
        "redis://",
        "redis:cache",
        "http://cache",
        "redis://cache:0",
        "redis://cache#x",
        "redis://cache/zero",
        "redis://user:%ff@cache",
        "redis://cache/0/1",
    ] {
        assert!(refused("IDEMPOTENCY_STORE", bad).contains("must be `memory`"), "{bad}");
    }
}

#[test]
fn passwords_are_never_shown() {
    for (name, value, shown) in [
        (
            "IDEMPOTENCY_STORE",
            "redis://user:hunter2@cache:6379/0?a=hunter2",
            "redis://***@cache:6379/0?***",
        ),
        ("IDEMPOTENCY_STORE", "rediss://:hunter2@cache", "rediss://***@cache"),
        ("IDEMPOTENCY_STORE", "rediss://hunter2@cache", "rediss://***@cache"),
    ] {
        let config = with(&[(name, value)]).unwrap();
        let effective: BTreeMap<_, _> = config.effective().collect();
        assert_eq!(effective[name], shown);
        let debug = format!("{config:?}");
        assert!(debug.contains(shown) && !debug.contains("hunter2"), "{debug}");
    }
    for (name, bad) in [
        ("IDEMPOTENCY_STORE", "http://user:hunter2@cache"),
        ("IDEMPOTENCY_STORE", "redis://user:pass/hunter2@x:hunter2@cache:99999"),
        ("IDEMPOTENCY_STORE", "user:hunter2@cache"),
        ("IDEMPOTENCY_STORE", "http://cache?password=hunter2"),
        ("RESERVATION_API_BASE", "http://user:hunter2@api"),
        ("RESERVATION_API_BASE", "http://api?key=hunter2"),
        ("INVENTORY_GRPC_ADDR", "user:hunter2@inventory:50051"),
        ("SQS_QUEUE_URL", "https://key:hunter2@sqs/q"),
        ("SQS_DLQ_URL", "https://key:hunter2@sqs/q"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://key:hunter2@collector"),
    ] {
        let said = refused(name, bad);
        assert!(said.contains("***") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn endpoint_and_region_are_read_from_a_queue_url() {
    for (url, origin, region) in [
        (
            "https://sqs.eu-west-1.amazonaws.com/1/q",
            "https://sqs.eu-west-1.amazonaws.com",
            "eu-west-1",
        ),
        (
            "https://sqs.cn-north-1.amazonaws.com.cn/1/q",
            "https://sqs.cn-north-1.amazonaws.com.cn",
            "cn-north-1",
        ),
        (
            "https://sqs-fips.us-gov-west-1.amazonaws.com/1/q",
            "https://sqs-fips.us-gov-west-1.amazonaws.com",
            "us-gov-west-1",
        ),
        (
            "https://sqs.ap-northeast-2.api.aws/1/q",
            "https://sqs.ap-northeast-2.api.aws",
            "ap-northeast-2",
        ),
        (
            "https://vpce-0a-1b.sqs.us-east-2.vpce.amazonaws.com/1/q",
            "https://vpce-0a-1b.sqs.us-east-2.vpce.amazonaws.com",
            "us-east-2",
        ),
        (
            "https://us-west-2.queue.amazonaws.com/1/q",
            "https://us-west-2.queue.amazonaws.com",
            "us-west-2",
        ),
        ("https://queue.amazonaws.com/1/q", "https://queue.amazonaws.com", "us-east-1"),
        (
            "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/q",
            "http://sqs.us-east-1.localhost.localstack.cloud:4566",
            "us-east-1",
        ),
        (
            "http://localhost:4566/queue/sa-east-1/000000000000/q",
            "http://localhost:4566",
            "sa-east-1",
        ),
        ("http://localhost:4566/000000000000/q", "http://localhost:4566", ""),
        ("http://[::1]:9324/queue/q", "http://[::1]:9324", ""),
        ("http://sqs.internal/queue/jobs/q", "http://sqs.internal", ""),
        ("http://elasticmq:9324/queue/order-events-1", "http://elasticmq:9324", ""),
        ("http://elasticmq:9324/queue/order-events-1/q", "http://elasticmq:9324", ""),
        ("http://h:1/queue/eu-west-1/1/q/r", "http://h:1", ""),
    ] {
        let queue = super::super::address::queue(url).unwrap();
        assert_eq!(queue.origin(), origin, "{url}");
        assert_eq!(queue.region().unwrap_or_default(), region, "{url}");
        assert_eq!(queue.has_legacy_host(), url.contains(".queue.a") || url.contains("//queue.a"));
    }
}

#[test]
fn different_urls_of_one_queue_are_recognised() {
    let queue = |url: &str| super::super::address::queue(url).unwrap();
    let first = queue("https://sqs.us-east-1.amazonaws.com/123456789012/q");
    for same in [
        "https://queue.amazonaws.com/123456789012/q",
        "https://us-east-1.queue.amazonaws.com/123456789012/q",
        "https://vpce-0a.sqs.us-east-1.vpce.amazonaws.com/123456789012/q",
        "http://localhost:4566/queue/us-east-1/123456789012/q",
        "http://localhost:9324/queue/q",
    ] {
        assert!(first.is_same_queue(&queue(same)) && queue(same).is_same_queue(&first), "{same}");
    }
    for other in [
        "https://sqs.us-east-1.amazonaws.com/123456789012/q-dlq",
        "https://sqs.us-east-1.amazonaws.com/210987654321/q",
    ] {
        assert!(!first.is_same_queue(&queue(other)), "{other}");
    }
}

#[test]
fn a_proxy_is_a_url_that_the_client_of_sqs_can_take() {
    use crate::config::address::proxy;

    for good in ["proxy:3128", "http://user:secret@proxy:3128", "https://[::1]:3128/"] {
        assert!(proxy(good).is_some(), "{good}");
    }
    // The last one is a URL, but longer than a `Uri` may be.
    let long = format!("http://proxy:3128/{}", "a".repeat(70_000));
    for bad in ["", "socks5://proxy:1080", "http://proxy:0", "http://proxy?x=1", &long] {
        assert!(proxy(bad).is_none(), "{bad:.40}");
    }
}
