//! Finds the event whose record has a token, by reading all records.
//!
//! On one server a script reads a page of them at a time. In a cluster a script may not read keys
//! of several slots: there each node gives a page of its keys, and they are read one by one.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, RedisResult, Value};
use tokio::time::timeout;

use super::fault::NOT_PERMITTED;
use super::script::{Call, script};
use super::{RedisStore, reply};
use crate::event::EventId;
use crate::idempotency::{StoreError, StoredToken};

/// Approximate keys of a page. Reading one keeps a server busy for about a millisecond.
const PAGE_KEYS: u32 = 1_000;

/// Records of a cluster that are read at once.
const READS_MAX: usize = 64;

// Same values as in `find.lua` and `format.lua`.
const FOUND: i64 = 9;
const DONE: i64 = 0;
const DENIED: i64 = 11;
const RECORD_BYTES: usize = 36;
const TOKEN: std::ops::Range<usize> = 20..28;

/// How a search for an event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchOutcome {
    /// This event's record has the token.
    Found(EventId),
    /// No record has it.
    NotThere,
    /// The time was up before all records were read.
    TimeIsUp,
    /// The user has no permission to `SCAN`.
    Denied,
}

/// How the keys were gone through.
enum Searched {
    Found(Vec<u8>),
    NotThere,
    Denied,
}

impl RedisStore {
    /// Searches the event whose record has this token, for so long at most. A near server reads
    /// some millions of records in ten seconds. The user needs the permission to `SCAN`.
    ///
    /// # Errors
    /// If the store does not answer, or answers strangely.
    pub async fn find(
        &self,
        token: StoredToken,
        time_max: Duration,
    ) -> Result<SearchOutcome, StoreError> {
        let search = async {
            match self.connector.cluster_connection().await? {
                None => self.find_on_server(token).await,
                Some(cluster) => self.find_in_cluster(cluster, token).await,
            }
        };
        let Ok(searched) = timeout(time_max, search).await else {
            return Ok(SearchOutcome::TimeIsUp);
        };
        let key = match searched? {
            Searched::Found(key) => key,
            Searched::NotThere => return Ok(SearchOutcome::NotThere),
            Searched::Denied => return Ok(SearchOutcome::Denied),
        };
        let id = key.strip_prefix(self.key_prefix.as_bytes());
        let id = id.and_then(|id| EventId::new(std::str::from_utf8(id).ok()?).ok());
        Ok(id.map_or(SearchOutcome::NotThere, SearchOutcome::Found))
    }

    async fn find_on_server(&self, token: StoredToken) -> Result<Searched, StoreError> {
        let (find, pattern) = (script!(; "find.lua"), self.pattern());
        let mut cursor = b"0".to_vec();
        loop {
            let call = Call::new(&find, Vec::new()).bytes(&cursor).bytes(&pattern);
            let call = call.bytes(&token.to_bytes()).number(PAGE_KEYS);
            match self.connector.run(&call, page).await? {
                Page::Last(searched) => return Ok(searched),
                Page::GoesOn(next) => cursor = next,
            }
        }
    }

    async fn find_in_cluster(
        &self,
        mut cluster: ClusterConnection,
        token: StoredToken,
    ) -> Result<Searched, StoreError> {
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let first = match cluster.route_command(self.scan(b"0"), all).await {
            Ok(first) => first,
            Err(error) if error.code() == Some(NOT_PERMITTED) => return Ok(Searched::Denied),
            Err(error) => return Err(self.connector.unavailable(&error)),
        };
        let Value::Map(nodes) = first else { return Err(reply::strange(&first)) };
        for (node, mut page) in nodes {
            let (host, port) = address(&node).ok_or_else(|| reply::strange(&node))?;
            loop {
                let (cursor, keys) = scanned(&page).ok_or_else(|| reply::strange(&page))?;
                if let Some(key) = with_token(&cluster, keys, token).await {
                    return Ok(Searched::Found(key));
                }
                if cursor == b"0" {
                    break;
                }
                let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port };
                let next = cluster.route_command(self.scan(&cursor), RoutingInfo::SingleNode(node));
                page = next.await.map_err(|error| self.connector.unavailable(&error))?;
            }
        }
        Ok(Searched::NotThere)
    }

    fn scan(&self, cursor: &[u8]) -> Cmd {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(self.pattern()).arg("COUNT").arg(PAGE_KEYS);
        scan
    }

    /// Returns the glob pattern of all keys with the prefix.
    fn pattern(&self) -> Vec<u8> {
        let mut pattern = Vec::new();
        for byte in self.key_prefix.bytes() {
            if b"*?[]^\\-".contains(&byte) {
                pattern.push(b'\\');
            }
            pattern.push(byte);
        }
        pattern.push(b'*');
        pattern
    }
}

/// What a page of the search on one server has.
enum Page {
    Last(Searched),
    GoesOn(Vec<u8>),
}

fn page(answer: &Value) -> Result<Page, StoreError> {
    match reply::elements(answer) {
        [Value::Int(FOUND), Value::BulkString(key)] => Ok(Page::Last(Searched::Found(key.clone()))),
        [Value::Int(DONE), Value::BulkString(cursor)] if cursor == b"0" => {
            Ok(Page::Last(Searched::NotThere))
        }
        [Value::Int(DONE), Value::BulkString(cursor)] => Ok(Page::GoesOn(cursor.clone())),
        [Value::Int(DENIED)] => Ok(Page::Last(Searched::Denied)),
        _ => Err(reply::refusal(answer)),
    }
}

/// Parses an answer of `SCAN`: the cursor to go on with, and keys.
fn scanned(page: &Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let [Value::BulkString(cursor), keys] = reply::elements(page) else { return None };
    let key = |key: &Value| {
        if let Value::BulkString(key) = key { Some(key.clone()) } else { None }
    };
    Some((cursor.clone(), reply::elements(keys).iter().map(key).collect::<Option<_>>()?))
}

/// Parses a node's name, `host:port`.
fn address(node: &Value) -> Option<(String, u16)> {
    let Value::BulkString(name) = node else { return None };
    let (host, port) = std::str::from_utf8(name).ok()?.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Returns the key whose record has the token. A key that cannot be read is no record.
async fn with_token(
    cluster: &ClusterConnection,
    keys: Vec<Vec<u8>>,
    token: StoredToken,
) -> Option<Vec<u8>> {
    let read = |key: Vec<u8>| {
        let mut cluster = cluster.clone();
        async move {
            let get = redis::cmd("GET").arg(&key).to_owned();
            let record: RedisResult<Value> = get.query_async(&mut cluster).await;
            let is_it = matches!(record, Ok(Value::BulkString(record))
                if record.len() == RECORD_BYTES && record[TOKEN] == token.to_bytes());
            is_it.then_some(key)
        }
    };
    let mut found = stream::iter(keys).map(read).buffer_unordered(READS_MAX);
    while let Some(key) = found.next().await {
        if key.is_some() {
            return key;
        }
    }
    None
}
