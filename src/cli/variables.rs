//! The text of `help variables`: all variables with meaning, range and default.

use std::fmt::Write as _;

use crate::config::{Fallback, VARIABLES, Variable};

const HEAD: &str = "Environment (empty counts as not set):\n";

const AWS: &str = "
AWS region, endpoint and credentials are found by the AWS SDK's own rules: AWS_REGION, AWS_PROFILE,
AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SQS, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
profiles (SSO too), web identity (IRSA), EKS Pod Identity. Where no endpoint or region is set,
SQS_QUEUE_URL's host is the endpoint, and names the region. HTTPS_PROXY, HTTP_PROXY and NO_PROXY
count for AWS.
";

/// The maximum width of the text, in columns.
pub(super) const COLUMNS: usize = 100;

/// The indentation of the text about a variable, in columns.
const INDENT: usize = 40;

/// Returns the text.
pub(super) fn text() -> String {
    let mut text = String::from(HEAD);
    for variable in VARIABLES {
        describe(&mut text, variable);
    }
    text.push_str(AWS);
    text
}

/// Returns the meaning of a variable, and its range and default.
pub(super) fn about(variable: &Variable) -> [String; 2] {
    let rest = match variable.fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(value) => format!("default {value}"),
        Fallback::Told(told) => format!("default: {told}"),
    };
    [variable.meaning.to_owned(), format!("[{}; {rest}]", variable.allowed.brief())]
}

fn describe(text: &mut String, variable: &Variable) {
    let mut label = variable.name;
    for line in about(variable).iter().flat_map(|about| wrapped(about)) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {label:<width$}{line}", width = INDENT - 2);
        label = "";
    }
}

/// Wraps a text at spaces so that it fits next to the names.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && INDENT + line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allowed;

    #[test]
    fn every_variable_is_listed_within_100_columns() {
        let help = text();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for variable in VARIABLES {
            assert!(help.contains(&format!("\n  {} ", variable.name)), "{}", variable.name);
            if let Fallback::Value(value) = variable.fallback {
                assert!(words.contains(&format!("; default {value}] ")), "{}", variable.name);
            }
            if let Allowed::Whole { min, max, .. } = variable.allowed {
                assert!(help.contains(&format!(" [{min}-{max}")), "{}", variable.name);
            }
        }
        for line in help.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }
}
