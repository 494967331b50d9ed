//! OpenTelemetry's variables: what is not understood is warned of, never refused.

use super::*;

fn telemetry(vars: &[(&str, &str)]) -> (Telemetry, Vec<String>) {
    let config = with(vars).unwrap();
    (config.telemetry, config.warnings)
}

#[test]
fn the_defaults_are_opentelemetrys() {
    let (telemetry, warnings) = telemetry(&[]);
    assert_eq!(telemetry.otlp_endpoint.as_str(), "http://otel-collector:4317/");
    assert!(telemetry.is_exported);
    assert_eq!(telemetry.service_name, "reservation-worker");
    assert_eq!(telemetry.resource_attributes, []);
    assert_eq!(telemetry.sampler, Sampler { root: RootSampler::AlwaysOn, is_parent_based: true });
    assert_eq!(telemetry.propagators, Propagators { trace_context: true, baggage: true });
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn the_endpoint_may_come_without_a_scheme() {
    for (given, url) in [
        ("collector:4317", "http://collector:4317/"),
        ("[::1]:4317", "http://[::1]:4317/"),
        ("https://collector", "https://collector/"),
        ("http://collector:4317/", "http://collector:4317/"),
    ] {
        let (telemetry, _) = telemetry(&[("OTEL_EXPORTER_OTLP_ENDPOINT", given)]);
        assert_eq!(telemetry.otlp_endpoint.as_str(), url);
    }
    for bad in
        ["collector", "grpc://collector:4317", "http://", "http://u:p@collector", "collector:x"]
    {
        assert!(refused("OTEL_EXPORTER_OTLP_ENDPOINT", bad).contains("must be `host:port`"));
    }
}

#[test]
fn export_is_off_where_either_says_so() {
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
        assert_eq!((telemetry.is_exported, warnings.len()), (is_exported, warned), "{vars:?}");
    }
}

#[test]
fn samplers() {
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
fn propagators_are_a_list() {
    for (given, trace_context, baggage, warned) in [
        ("tracecontext", true, false, 0),
        ("baggage", false, true, 0),
        ("baggage, tracecontext,baggage", true, true, 0),
        ("none", false, false, 0),
        ("tracecontext,b3", true, false, 1),
        ("b3,xray", true, true, 2),
    ] {
        let (telemetry, warnings) = telemetry(&[("OTEL_PROPAGATORS", given)]);
        assert_eq!(telemetry.propagators, Propagators { trace_context, baggage }, "{given}");
        assert_eq!(warnings.len(), warned, "{given}");
    }
}

#[test]
fn attributes_are_decoded_or_discarded_whole() {
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
fn the_service_name_wins_over_the_attribute() {
    let (telemetry, _) = telemetry(&[
        ("OTEL_SERVICE_NAME", "given"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute,a=b"),
    ]);
    assert_eq!(telemetry.service_name, "given");
    assert_eq!(telemetry.resource_attributes, [("a".to_owned(), "b".to_owned())]);
}
