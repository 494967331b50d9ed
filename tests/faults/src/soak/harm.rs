//! The soak's harm: now and then one proxy does something bad for a second or two, drawn from a seed.

use std::time::Duration;

use tokio::time::sleep;

use crate::failed::Failed;
use crate::proxy::{Course, Proxy, Way};

/// Milliseconds between the end of one fault and the next.
const PAUSE_MS: std::ops::Range<u64> = 2_000..5_000;
/// How long one lasts.
const LASTS_MS: std::ops::Range<u64> = 200..2_000;

/// What a proxy may do.
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
            // What fell silent would stay so.
            Self::Drop => proxy.forget(),
        }
        Ok(())
    }
}

/// Does harm until it is dropped. Counts in `done`.
///
/// # Errors
/// Where a proxy cannot.
pub(super) async fn rage(
    proxies: Vec<Proxy>,
    seed: u64,
    done: &std::sync::atomic::AtomicU64,
) -> Result<std::convert::Infallible, Failed> {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        sleep(Duration::from_millis(random.u64(PAUSE_MS))).await;
        let proxy = &proxies[random.usize(..proxies.len())];
        let fault = Fault::ALL[random.usize(..Fault::ALL.len())];
        let way = if random.bool() { Way::ToServer } else { Way::ToClient };
        fault.begin(proxy, way).await?;
        sleep(Duration::from_millis(random.u64(LASTS_MS))).await;
        fault.end(proxy).await?;
        done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}
