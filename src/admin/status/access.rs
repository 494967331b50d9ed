//! Who may see the status: by the address of the peer, and by the name that it asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

use crate::config::StatusPage;

/// Returns whether this request may see the status.
///
/// A request without a `Host`, or with several, is refused.
pub(in crate::admin) fn is_allowed(
    policy: StatusPage,
    peer: IpAddr,
    uri: &Uri,
    headers: &HeaderMap,
) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    // A target in absolute form names the host again (RFC 9112, 3.2.2).
    let names = [Some(host.host()), uri.host()];
    let are_allowed = |is_allowed: fn(&str) -> bool| names.into_iter().flatten().all(is_allowed);
    match policy {
        StatusPage::Off => false,
        StatusPage::Local => is_own(peer.to_canonical()) && are_allowed(is_this_machine),
        StatusPage::Open => are_allowed(is_no_public_name),
    }
}

/// Returns the reason of a refusal.
pub(in crate::admin) const fn refusal(policy: StatusPage) -> &'static str {
    match policy {
        StatusPage::Off => "STATUS_PAGE=off: the status is not shown",
        StatusPage::Local => {
            "STATUS_PAGE=local: the status is shown to this machine only, as localhost, 127.0.0.1 or [::1]; from elsewhere, use `kubectl port-forward`, or set STATUS_PAGE=open"
        }
        StatusPage::Open => {
            "STATUS_PAGE=open: the status is shown under an IP address, localhost or a name that ends in .local only"
        }
    }
}

/// Not all of 127.0.0.0/8: a mesh's proxy may hand on the requests of others from an address there.
fn is_own(peer: IpAddr) -> bool {
    peer == Ipv4Addr::LOCALHOST || peer == Ipv6Addr::LOCALHOST
}

fn is_this_machine(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// A public name could be made to point here by its owner, whose page would then read the answer.
fn is_no_public_name(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = match ipv6 {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    is_address || host == "localhost" || host.len() > ".local".len() && host.ends_with(".local")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn allowed(policy: StatusPage, peer: &str, uri: &str, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        is_allowed(policy, peer.parse().unwrap(), &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn local_is_loopback_by_a_name_of_loopback() {
        for host in ["localhost", "LOCALHOST:8040", "127.0.0.1:8040", "[::1]:8040", "[::1]"] {
            for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
                assert!(allowed(StatusPage::Local, peer, "/status", &[host]), "{peer} {host}");
            }
            for peer in ["10.0.0.7", "::ffff:10.0.0.7", "fe80::1", "127.0.0.6"] {
                assert!(!allowed(StatusPage::Local, peer, "/status", &[host]), "{peer} {host}");
            }
        }
        for host in
            ["evil.example", "localhost.evil.example", "10.0.0.7", "127.0.0.1.evil", "", "@"]
        {
            assert!(!allowed(StatusPage::Local, "127.0.0.1", "/status", &[host]), "{host}");
        }
    }

    #[test]
    fn open_refuses_names_that_anybody_can_own() {
        for host in ["10.0.0.7:8040", "[fd00::1]:8040", "localhost", "pod-7.local", "Pod.LOCAL:1"] {
            assert!(allowed(StatusPage::Open, "192.0.2.1", "/status", &[host]), "{host}");
        }
        for host in ["evil.example", ".local", "pod.local.evil.example", "10.0.0.7.evil"] {
            assert!(!allowed(StatusPage::Open, "192.0.2.1", "/status", &[host]), "{host}");
        }
    }

    #[test]
    fn the_host_is_given_once_and_agrees_with_the_target() {
        assert!(!allowed(StatusPage::Local, "127.0.0.1", "/status", &[]));
        assert!(!allowed(StatusPage::Local, "127.0.0.1", "/status", &["localhost", "localhost"]));
        let absolute = "http://evil.example/status";
        assert!(!allowed(StatusPage::Local, "127.0.0.1", absolute, &["localhost"]));
        assert!(allowed(StatusPage::Local, "127.0.0.1", "http://localhost/status", &["localhost"]));
    }

    #[test]
    fn off_refuses_everybody_and_each_refusal_names_the_variable() {
        assert!(!allowed(StatusPage::Off, "127.0.0.1", "/status", &["localhost"]));
        for policy in [StatusPage::Off, StatusPage::Local, StatusPage::Open] {
            assert!(refusal(policy).starts_with("STATUS_PAGE="));
        }
    }
}
