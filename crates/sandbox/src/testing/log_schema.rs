//! A check of log lines against `docs/log.schema.json`.
//!
//! It supports the needed part of JSON Schema (draft 2020-12). An unknown keyword is refused, so
//! that no rule of the schema is skipped.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::{Map, Value};

/// Maximum size of a line, including the newline.
const LINE_BYTES_MAX: usize = 8 * 1024;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../docs/log.schema.json")).unwrap()
});

/// Asserts that every line of a log matches the schema. With `is_cut`, the last line may be
/// incomplete.
pub fn assert_log_fits(log: &str, is_cut: bool) {
    let whole = if is_cut { log.rfind('\n').map_or("", |end| &log[..=end]) } else { log };
    assert!(
        whole.is_empty() || whole.ends_with('\n'),
        "the last line has no newline: {whole:.200}"
    );
    for line in whole.lines() {
        if let Err(why) = check_line(line) {
            panic!("{why}: {line}");
        }
    }
}

fn check_line(line: &str) -> Result<(), String> {
    if line.len() + 1 > LINE_BYTES_MAX {
        return Err(format!("{} bytes", line.len() + 1));
    }
    if let Some(control) = line.chars().find(|c| c.is_control()) {
        return Err(format!("a bare {control:?}"));
    }
    let value: Value = serde_json::from_str(line).map_err(|why| why.to_string())?;
    check(&value, &SCHEMA, "line")?;
    // `serde_json` keeps the last of two equal keys; a log store may keep the first.
    let keys = value.as_object().map_or(0, Map::len);
    let written = line.matches("\":").count() - quoted_colons(&value);
    if keys == written { Ok(()) } else { Err("a key comes twice".to_owned()) }
}

/// Counts `":` within strings, where the quote is escaped.
fn quoted_colons(line: &Value) -> usize {
    let texts = line.as_object().into_iter().flat_map(Map::values).filter_map(Value::as_str);
    texts.map(|text| text.matches("\":").count()).sum()
}

fn check(value: &Value, schema: &Value, path: &str) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => has_type(value, rule),
            "enum" => rule.as_array().unwrap().contains(value),
            "minLength" => value.as_str().is_none_or(|text| at_least(text.chars().count(), rule)),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| matches(text, rule)),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|key| value.get(key.as_str().unwrap()).is_some()),
            "propertyNames" => {
                for key in value.as_object().unwrap().keys() {
                    check(&key.as_str().into(), rule, key)?;
                }
                true
            }
            "properties" | "additionalProperties" => {
                members(value, schema, keyword)?;
                true
            }
            unknown => panic!("the schema has an unsupported keyword: {unknown}"),
        };
        if !holds {
            return Err(format!("{path}: not {keyword} {rule}"));
        }
    }
    Ok(())
}

/// Checks the members that `properties` names, or those that it does not name.
fn members(value: &Value, schema: &Value, keyword: &str) -> Result<(), String> {
    for (key, member) in value.as_object().unwrap() {
        match (schema["properties"].get(key), keyword) {
            (Some(rule), "properties") => check(member, rule, key)?,
            (None, "additionalProperties") => check(member, &schema["additionalProperties"], key)?,
            _ => {}
        }
    }
    Ok(())
}

fn has_type(value: &Value, rule: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        unknown => panic!("the schema has an unsupported type: {unknown}"),
    };
    rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))
}

fn at_least(count: usize, rule: &Value) -> bool {
    u64::try_from(count).unwrap() >= rule.as_u64().unwrap()
}

fn matches(text: &str, rule: &Value) -> bool {
    Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)
}

#[test]
fn a_line_that_violates_the_schema_is_refused() {
    let good = r#""ts":"2024-01-01T12:00:00.000Z","level":"info","msg":"x""#;
    assert_eq!(
        check_line(&format!("{{{good},\"other\":1.5,\"on\":true,\"said\":\"a\\\":b\"}}")),
        Ok(())
    );
    for (bad, why) in [
        ("", "EOF"),
        (r#"{"ts":"2024-01-01T12:00:00.000Z","level":"info"}"#, "required"),
        (r#"{"ts":"2024-01-01 12:00:00.000Z","level":"info","msg":"x"}"#, "ts: not pattern"),
        (r#"{"ts":"2024-13-01T12:00:00.000Z","level":"info","msg":"x"}"#, "ts: not pattern"),
        (r#"{"ts":"2024-01-01T12:00:00.000Z","level":"INFO","msg":"x"}"#, "level: not enum"),
        (r#"{"ts":"2024-01-01T12:00:00.000Z","level":"info","msg":""}"#, "msg: not minLength"),
        (&format!("{{{good},\"attempt\":0}}"), "attempt: not minimum"),
        (&format!("{{{good},\"attempt\":1.5}}"), "attempt: not type"),
        (&format!("{{{good},\"latency_ms\":\"5\"}}"), "latency_ms: not type"),
        (&format!("{{{good},\"trace_id\":\"ABC\"}}"), "trace_id: not pattern"),
        (&format!("{{{good},\"event_type\":\"made.up\"}}"), "event_type: not enum"),
        (&format!("{{{good},\"nested\":{{}}}}"), "nested: not type"),
        (&format!("{{{good},\"nothing\":null}}"), "nothing: not type"),
        (&format!("{{{good},\"Upper\":1}}"), "Upper: not pattern"),
        (&format!("{{{good},\"a\":1,\"a\":2}}"), "twice"),
        (&format!("{{{good},\"a\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX)), "bytes"),
        ("{\"a\":\"\u{7f}\"}", "bare"),
    ] {
        let refused = check_line(bad).expect_err(bad);
        assert!(refused.contains(why), "{bad}: {refused}");
    }
}
