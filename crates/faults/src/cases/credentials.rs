//! Credentials that expire and are replaced while the worker runs, as for a pod's role.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sandbox::sqs::{Action, ErrorCode, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::proxy::{Course, Way};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(60);

/// Lifetime of each set. The SDK requests the next set some seconds before the end.
const LAST_S: u64 = 15;

pub(super) const CASES: &[Case] = &[Case {
    name: "credentials",
    injected: "the pod's credentials last 15 s and are replaced; five receives and deletes are answered with ExpiredToken",
    must_hold: "each set is used in its time, without a restart; each event takes effect once",
    is_short: false,
    run: |setting| Box::pin(run(setting)),
}];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    let issuer = Issuer::start().await?;
    let mut world = World::start(&setting).await?;
    for static_one in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        world.variables.remove(static_one);
    }
    world.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/", issuer.addr));
    let mut worker = world.started().await?;
    for n in 0..3_u64 {
        world.send_all(crowd(&format!("set_{n}"), 50));
        Account::settled(&world, SETTLED_MAX).await?;
        let asked = issuer.asked();
        let more = async || issuer.asked() > asked;
        crate::failed::eventually("new credentials are asked for", SETTLED_MAX, more).await?;
    }
    let expired = Fault::Error(ErrorCode::ExpiredToken);
    let faults = world.sqs.faults(&world.queue);
    faults.fail_next(Action::ReceiveMessage, 5, expired);
    faults.fail_next(Action::DeleteMessageBatch, 5, expired);
    world.send_all(crowd("expired", 50));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let latest = format!("Credential=AKIDROTATED{:04}/", issuer.asked());
    world.to_sqs.set(Way::ToServer, Course::Hold);
    let used = |proxy: &crate::proxy::Proxy| proxy.holds(Way::ToServer, latest.as_bytes());
    ensure(world.to_sqs.wait_until(used, Duration::from_secs(5)).await, || {
        format!("the latest of {} sets is not used", issuer.asked())
    })?;
    world.let_pass();
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {} sets of credentials", issuer.asked())))
}

/// Issues credentials as the Pod Identity agent does.
struct Issuer {
    addr: SocketAddr,
    asked: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Issuer {
    async fn start() -> Result<Self, Failed> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 8 * 1_024];
                if !stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                    continue;
                }
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let body = serde_json::json!({
                    "AccessKeyId": format!("AKIDROTATED{number:04}"),
                    "SecretAccessKey": "sandbox", "Token": "sandbox",
                    "Expiration": rfc3339(SystemTime::now() + Duration::from_secs(LAST_S)),
                })
                .to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                // A client that does not read the response sends another request.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { addr, asked, _task: task })
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Formats a time in UTC with whole seconds. Uses calendar arithmetic: days since 0000-03-01, in
/// eras of 400 years.
fn rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_704_110_400, "2024-01-01T12:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
