//! The store's operations as Lua scripts; the server identifies each by its SHA-1.

use redis::Cmd;

/// Arguments are bytes: Redis does not distinguish numbers from text.
pub(super) type Argument = Vec<u8>;

/// A script, and the SHA-1 by which the server knows it after its first run.
#[derive(Debug)]
pub(super) struct Script {
    source: &'static str,
    sha1: String,
}

impl Script {
    pub(super) fn new(source: &'static str) -> Self {
        Self { source, sha1: redis::Script::new(source).get_hash().to_owned() }
    }
}

/// One script for each operation. Those on a lane alone are for a lane whose record is on another
/// node of a cluster.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) claim: Script,
    pub(super) renew: Script,
    pub(super) record: Script,
    pub(super) complete: Script,
    pub(super) release: Script,
    pub(super) enter_lane: Script,
    pub(super) check_lane: Script,
    pub(super) stay_in_lane: Script,
    pub(super) leave_lane: Script,
    pub(super) ping: Script,
    pub(super) post_notice: Script,
}

/// Puts a script together: the layout, what comes before the functions, the functions, the rest.
macro_rules! script {
    ($($first:literal)* ; $file:literal) => {
        $crate::idempotency::redis::script::Script::new(concat!(
            include_str!("layout.lua"),
            $(include_str!($first),)*
            include_str!("format.lua"),
            include_str!("lane.lua"),
            include_str!($file)
        ))
    };
}

pub(super) use script;

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            claim: script!("claim_new.lua"; "claim.lua"),
            renew: script!(; "renew.lua"),
            record: script!("held.lua" "record_held.lua"; "record.lua"),
            complete: script!("held.lua" "complete_held.lua"; "complete.lua"),
            release: script!(; "release.lua"),
            enter_lane: script!(; "enter.lua"),
            check_lane: script!(; "check.lua"),
            stay_in_lane: script!(; "stay.lua"),
            leave_lane: script!(; "leave.lua"),
            ping: script!(; "ping.lua"),
            post_notice: script!(; "post_notice.lua"),
        }
    }
}

/// One run of a script.
#[derive(Debug)]
pub(super) struct Call<'a> {
    script: &'a Script,
    keys: Vec<Argument>,
    arguments: Vec<Argument>,
}

impl<'a> Call<'a> {
    pub(super) const fn new(script: &'a Script, keys: Vec<Argument>) -> Self {
        Self { script, keys, arguments: Vec::new() }
    }

    /// Adds bytes.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.arguments.push(bytes.to_vec());
        self
    }

    /// Adds a whole number in decimal.
    pub(super) fn number(mut self, number: impl ToString) -> Self {
        self.arguments.push(number.to_string().into_bytes());
        self
    }

    /// Returns the call by SHA-1: a few dozen bytes to send.
    pub(super) fn by_name(&self) -> Cmd {
        self.command("EVALSHA", &self.script.sha1)
    }

    /// Returns the call with the full source, for a server that does not know the script. The
    /// server then knows its SHA-1.
    pub(super) fn in_full(&self) -> Cmd {
        self.command("EVAL", self.script.source)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(self.keys.len());
        for argument in self.keys.iter().chain(&self.arguments) {
            command.arg(argument.as_slice());
        }
        command
    }
}
