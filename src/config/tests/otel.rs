//! OpenTelemetry variables: a value that is not understood causes a warning, not an error.

use super::*;

fn telemetry(vars: &[(&str, &str)]) -> (TelemetryConfig, Vec<String>) {
    let config = with(vars).unwrap();
    (config.telemetry, config.warnings)
}

#[test]
fn unset_variables_have_opentelemetrys_defaults() {
    let (telemetry, warnings) = telemetry(&[]);
    let otlp = telemetry.otlp.unwrap();
    assert_eq!(otlp.endpoint.as_str(), "http://otel-collector:4317/");
    assert_eq!(otlp.transport, OtlpTransport::default());
    assert_eq!(telemetry.service_name, "reservation-worker");
    assert_eq!(telemetry.resource_attributes, []);
    assert_eq!(telemetry.sampler, Sampler { root: RootSampler::AlwaysOn, is_parent_based: true });
    assert_eq!(telemetry.propagators, Propagators::default());
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn the_endpoint_needs_no_scheme() {
    for (given, url) in [
        ("collector:4317", "http://collector:4317/"),
        ("[::1]:4317", "http://[::1]:4317/"),
        ("https://collector", "https://collector/"),
        ("http://collector:4317/", "http://collector:4317/"),
    ] {
        let (telemetry, _) = telemetry(&[("OTEL_EXPORTER_OTLP_ENDPOINT", given)]);
        assert_eq!(telemetry.otlp.unwrap().endpoint.as_str(), url);
    }
    for bad in
        ["collector", "grpc://collector:4317", "http://", "http://u:p@collector", "collector:x"]
    {
        assert!(refused("OTEL_EXPORTER_OTLP_ENDPOINT", bad).contains("must be `host:port`"));
    }
}

#[test]
fn either_variable_switches_the_export_off() {
    for (vars, is_exported, warned) in [
        (("OTEL_SDK_DISABLED", "true"), false, 0),
        (("OTEL_SDK_DISABLED", "True"), false, 0),
        (("OTEL_SDK_DISABLED", "false"), true, 0),
        (("OTEL_SDK_DISABLED", "1"), true, 1),
        (("OTEL_SDK_DISABLED", "yes"), true, 1),
        (("OTEL_TRACES_EXPORTER", "none"), false, 0),
        (("OTEL_TRACES_EXPORTER", "otlp"), true, 0),
        (("OTEL_TRACES_EXPORTER", "console,otlp"), true, 1),
        (("OTEL_TRACES_EXPORTER", "zipkin"), true, 1),
    ] {
        let (telemetry, warnings) = telemetry(&[vars]);
        assert_eq!((telemetry.otlp.is_some(), warnings.len()), (is_exported, warned), "{vars:?}");
    }
}

#[test]
fn samplers_are_parsed() {
    let named = |name: &str, argument: &str| {
        let vars = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let (telemetry, warnings) = telemetry(&vars);
        let sampler = telemetry.sampler;
        (sampler.root, sampler.is_parent_based, warnings.len())
    };
    assert_eq!(named("always_on", ""), (RootSampler::AlwaysOn, false, 0));
    assert_eq!(named("ALWAYS_OFF", ""), (RootSampler::AlwaysOff, false, 0));
    assert_eq!(named("traceidratio", "0.25"), (RootSampler::TraceIdRatio(0.25), false, 0));
    assert_eq!(named("parentbased_always_on", ""), (RootSampler::AlwaysOn, true, 0));
    assert_eq!(named("parentbased_always_off", ""), (RootSampler::AlwaysOff, true, 0));
    assert_eq!(named("parentbased_traceidratio", "0"), (RootSampler::TraceIdRatio(0.0), true, 0));
    assert_eq!(named("traceidratio", ""), (RootSampler::TraceIdRatio(1.0), false, 0));
    for bad in ["x", "-0.1", "1.1", "NaN", "inf"] {
        assert_eq!(named("traceidratio", bad), (RootSampler::TraceIdRatio(1.0), false, 1), "{bad}");
    }
    for unknown in ["jaeger_remote", "xray", "parentbased_", "on"] {
        assert_eq!(named(unknown, ""), (RootSampler::AlwaysOn, true, 1), "{unknown}");
    }
}

#[test]
fn propagators_are_parsed_as_a_list() {
    for (given, [trace_context, baggage, xray], warned) in [
        ("tracecontext", [true, false, false], 0),
        ("baggage", [false, true, false], 0),
        ("baggage, tracecontext,baggage", [true, true, false], 0),
        ("none", [false, false, false], 0),
        ("none,xray", [false, false, true], 0),
        ("tracecontext,XRay", [true, false, true], 0),
        ("tracecontext,own", [true, false, false], 1),
        ("own,other", [true, true, false], 2),
    ] {
        let (telemetry, warnings) = telemetry(&[("OTEL_PROPAGATORS", given)]);
        let expected = Propagators { trace_context, baggage, xray };
        assert_eq!((telemetry.propagators, warnings.len()), (expected, warned), "{given}");
    }
    for (given, name) in [("b3", "b3"), ("tracecontext,B3multi", "B3multi"), ("jaeger", "jaeger")] {
        let said = refused("OTEL_PROPAGATORS", given);
        assert!(said.contains(&format!("{name} is not supported")), "{said}");
    }
}

#[test]
fn resource_attributes_are_decoded_or_all_discarded() {
    let attributes = |given: &str| {
        let (telemetry, warnings) = telemetry(&[("OTEL_RESOURCE_ATTRIBUTES", given)]);
        (telemetry.resource_attributes, telemetry.service_name, warnings)
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let (pairs, name, warnings) =
        attributes("k8s.pod.name=p-1, team = a%2Cb%3D ,empty=,service.name=own,");
    assert_eq!(pairs, [pair("k8s.pod.name", "p-1"), pair("team", "a,b="), pair("empty", "")]);
    assert_eq!((name.as_str(), warnings.len()), ("own", 0));
    for bad in ["a", "a=b,c", "=b", "a=%ff"] {
        let (pairs, name, warnings) = attributes(bad);
        assert_eq!((pairs.len(), name.as_str()), (0, "reservation-worker"), "{bad}");
        let start =
            format!("OTEL_RESOURCE_ATTRIBUTES is \"{bad}\", which is ignored: must be key=value");
        assert!(warnings[0].starts_with(&start), "{warnings:?}");
    }
}

#[test]
fn the_service_name_variable_overrides_the_attribute() {
    let (telemetry, _) = telemetry(&[
        ("OTEL_SERVICE_NAME", "given"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute,a=b"),
    ]);
    assert_eq!(telemetry.service_name, "given");
    assert_eq!(telemetry.resource_attributes, [("a".to_owned(), "b".to_owned())]);
}

fn otlp(vars: &[(&str, &str)]) -> OtlpConfig {
    with(vars).unwrap().telemetry.otlp.unwrap()
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";

#[test]
fn endpoint_and_protocol_for_traces_override_the_general_ones() {
    let http = (PROTOCOL, "http/protobuf");
    let traces_http = (TRACES_PROTOCOL, "http/protobuf");
    for (vars, url, protocol) in [
        (vec![(TRACES_ENDPOINT, "own:1")], "http://own:1/", OtlpProtocol::Grpc),
        (
            vec![(ENDPOINT, "all:1"), (TRACES_ENDPOINT, "own:1")],
            "http://own:1/",
            OtlpProtocol::Grpc,
        ),
        (vec![(ENDPOINT, "::"), (TRACES_ENDPOINT, "own:1")], "http://own:1/", OtlpProtocol::Grpc),
        (vec![http], "http://otel-collector:4318/v1/traces", OtlpProtocol::HttpProtobuf),
        (vec![http, (TRACES_PROTOCOL, "grpc")], "http://otel-collector:4317/", OtlpProtocol::Grpc),
        (vec![http, (ENDPOINT, "all:1")], "http://all:1/v1/traces", OtlpProtocol::HttpProtobuf),
        (
            vec![traces_http, (ENDPOINT, "https://all/otlp/")],
            "https://all/otlp/v1/traces",
            OtlpProtocol::HttpProtobuf,
        ),
        (
            vec![http, (ENDPOINT, "all:1"), (TRACES_ENDPOINT, "https://own/in")],
            "https://own/in",
            OtlpProtocol::HttpProtobuf,
        ),
    ] {
        let otlp = otlp(&vars);
        assert_eq!((otlp.endpoint.as_str(), otlp.transport.protocol), (url, protocol), "{vars:?}");
    }
}

#[test]
fn an_endpoint_without_a_scheme_is_https_if_insecure_is_false() {
    let insecure = "OTEL_EXPORTER_OTLP_INSECURE";
    let of_traces = "OTEL_EXPORTER_OTLP_TRACES_INSECURE";
    for (vars, url) in [
        (vec![(ENDPOINT, "all:1"), (insecure, "")], "http://all:1/"),
        (vec![(ENDPOINT, "all:1"), (insecure, "true")], "http://all:1/"),
        (vec![(ENDPOINT, "all:1"), (insecure, "False")], "https://all:1/"),
        (vec![(ENDPOINT, "all:80"), (insecure, "false")], "https://all:80/"),
        (vec![(ENDPOINT, "[::1]:443"), (insecure, "false")], "https://[::1]/"),
        (vec![(TRACES_ENDPOINT, "own:1"), (insecure, "false")], "https://own:1/"),
        (vec![(ENDPOINT, "all:1"), (insecure, "true"), (of_traces, "false")], "https://all:1/"),
        (vec![(ENDPOINT, "all:1"), (insecure, "false"), (of_traces, "true")], "http://all:1/"),
        (
            vec![(ENDPOINT, "all:1"), (insecure, "false"), (PROTOCOL, "http/protobuf")],
            "https://all:1/v1/traces",
        ),
        // An explicit scheme has priority over the `insecure` variable.
        (vec![(ENDPOINT, "http://all:1"), (insecure, "false")], "http://all:1/"),
        (vec![(ENDPOINT, "https://all:1"), (insecure, "true")], "https://all:1/"),
        (vec![(insecure, "false")], "http://otel-collector:4317/"),
    ] {
        assert_eq!(otlp(&vars).endpoint.as_str(), url, "{vars:?}");
    }
}

#[test]
fn unsupported_values_are_reported_only_if_traces_are_exported() {
    let certificate = "OTEL_EXPORTER_OTLP_CERTIFICATE";
    let vars = [(certificate, "/ca.pem"), ("WORKER_CONCURRENCY", "0")];
    let said = with(&vars).unwrap_err().to_string();
    assert!(said.contains(certificate), "{said}");
    for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let said = with(&[vars[0], vars[1], off]).unwrap_err().to_string();
        assert!(said.contains("WORKER_CONCURRENCY") && !said.contains(certificate), "{said}");
    }
}

#[test]
fn headers_timeout_and_compression_are_parsed() {
    let transport = otlp(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=all"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Authorization=Basic%20c2VjcmV0, x-tenant = t1 ,"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP"),
    ])
    .transport;
    assert_eq!(transport.headers.len(), 2);
    assert_eq!(transport.headers["authorization"], "Basic c2VjcmV0");
    assert_eq!(transport.headers["x-tenant"], "t1");
    assert_eq!((transport.timeout, transport.gzip), (Duration::from_secs(2), true));
    assert!(!format!("{transport:?}").contains("c2VjcmV0"));
    let vars = [("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2")];
    let shown: Vec<_> = with(&vars).unwrap().effective().collect();
    assert!(shown.contains(&("OTEL_EXPORTER_OTLP_HEADERS", "***".to_owned())), "{shown:?}");
}

#[test]
fn unsupported_values_are_errors_with_the_name_and_without_secrets() {
    for (name, value) in [
        (PROTOCOL, "http/json"),
        (TRACES_PROTOCOL, "zipkin"),
        (TRACES_ENDPOINT, "collector"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "deflate"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "0"),
        ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "yes"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key=hunter2,b c=d"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/hunter2.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/hunter2.pem"),
    ] {
        let said = refused(name, value);
        assert!(said.starts_with(&format!("{name} is ")) && !said.contains("hunter2"), "{said}");
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(with(&[(name, value), off]).unwrap().telemetry.otlp, None, "{name}");
        }
    }
}
