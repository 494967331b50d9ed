//! The faults of the soak test: every few seconds one proxy has a fault of up to two seconds, drawn
//! from a seed.

use std::time::Duration;

use tokio::time::sleep;

use crate::failed::Failed;
use crate::proxy::{Course, Proxy, Way};

/// Milliseconds between the end of a fault and the next.
const PAUSE_MS: std::ops::Range<u64> = 2_000..5_000;
/// The same in a long run. Connections that piled up at one proxy are closed before its next fault,
/// so their final number can be told from a passing rise.
const PAUSE_LONG_MS: std::ops::Range<u64> = 5_000..15_000;
/// Duration of a fault.
const LASTS_MS: std::ops::Range<u64> = 200..2_000;

/// A fault of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Reset,
    HalfClose,
    Refuse,
    Hold,
    Drop,
    Delay,
    Throttle,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::Reset,
        Self::HalfClose,
        Self::Refuse,
        Self::Hold,
        Self::Drop,
        Self::Delay,
        Self::Throttle,
    ];

    async fn begin(self, proxy: &Proxy, way: Way) -> Result<(), Failed> {
        match self {
            Self::Reset => proxy.reset(),
            Self::HalfClose => proxy.half_close(way),
            Self::Refuse => proxy.refuse().await?,
            Self::Hold => proxy.set(way, Course::Hold),
            Self::Drop => proxy.set(way, Course::Drop),
            Self::Delay => proxy.set(way, Course::Delay(Duration::from_millis(100))),
            Self::Throttle => proxy.set(way, Course::Throttle(50_000)),
        }
        Ok(())
    }

    async fn end(self, proxy: &Proxy) -> Result<(), Failed> {
        match self {
            Self::Reset | Self::HalfClose => {}
            Self::Refuse => proxy.accept().await?,
            Self::Hold | Self::Delay | Self::Throttle => proxy.set_both(Course::Pass),
            // A connection that lost bytes would stay silent.
            Self::Drop => proxy.forget(),
        }
        Ok(())
    }
}

/// Duration of a fault during warm-up, and the pause after it.
const WARM_UP: Duration = Duration::from_millis(400);
const WARM_UP_PAUSE: Duration = Duration::from_millis(100);

/// Injects every fault at every proxy in both ways.
///
/// The worker reaches its maximum of memory and connections.
///
/// # Errors
/// If a proxy fails.
pub(super) async fn warm_up(proxies: &[Proxy]) -> Result<(), Failed> {
    let ways = [Way::ToServer, Way::ToClient];
    for proxy in proxies {
        for (fault, way) in Fault::ALL.into_iter().flat_map(|fault| ways.map(|way| (fault, way))) {
            fault.begin(proxy, way).await?;
            sleep(WARM_UP).await;
            fault.end(proxy).await?;
            sleep(WARM_UP_PAUSE).await;
        }
    }
    Ok(())
}

/// Injects faults until dropped, less often in a long run. Counts them in `done`.
///
/// # Errors
/// If a proxy fails.
pub(super) async fn rage(
    proxies: Vec<Proxy>,
    seed: u64,
    is_long: bool,
    done: &std::sync::atomic::AtomicU64,
) -> Result<std::convert::Infallible, Failed> {
    let mut random = fastrand::Rng::with_seed(seed);
    let pause_ms = if is_long { PAUSE_LONG_MS } else { PAUSE_MS };
    loop {
        sleep(Duration::from_millis(random.u64(pause_ms.clone()))).await;
        let proxy = &proxies[random.usize(..proxies.len())];
        let fault = Fault::ALL[random.usize(..Fault::ALL.len())];
        let way = if random.bool() { Way::ToServer } else { Way::ToClient };
        fault.begin(proxy, way).await?;
        sleep(Duration::from_millis(random.u64(LASTS_MS))).await;
        fault.end(proxy).await?;
        done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}
