//! The soak test: constant load on the real worker with faults, and a sample of its resources every
//! second. Every message must be handled, and no resource may grow.

mod bits;
mod harm;
mod picture;
mod queue;
mod samples;
mod servers;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use self::queue::{Queue, Sums};
use self::samples::Sample;
use self::servers::Servers;
use crate::collector::Collector;
use crate::failed::{Failed, ensure, eventually};
use crate::proxy::Proxy;
use crate::worker::{Launch, Output, Variables, Worker};
use crate::world::ReservedPort;

/// Time limit for the rest at the end: some visibility timeouts.
const SETTLED_MAX: Duration = Duration::from_secs(120);

/// The shortest run in which a comparison of quarters is meaningful.
const SECONDS_MIN: u64 = 20;

/// Capacity of the memory store: in a run of one minute, it must be full before the second quarter.
const CAPACITY: u64 = 1_000;
/// Runs of this length or more use the default capacity.
const LONG_S: u64 = 600;

/// The text of `--help`.
pub const HELP: &str = "\
soak: load without end on the real worker, with faults on; exits 0 only if all came out and nothing grew

  --worker PATH   the worker's binary             [./reservation-worker]
  --seconds N     how long, 20 or more            [60]
  --seed N        start of all random choices     [1]
  --csv PATH      writes all samples there
  --svg PATH      draws memory over time there
";

/// The command line options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    worker: PathBuf,
    seconds: u64,
    seed: u64,
    csv: Option<PathBuf>,
    svg: Option<PathBuf>,
    /// Only [`HELP`] is requested.
    pub help: bool,
}

impl Options {
    /// Parses the arguments, without the program name.
    ///
    /// # Errors
    /// A sentence that names the argument and what is allowed.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            worker: PathBuf::from("./reservation-worker"),
            seconds: 60,
            seed: 1,
            csv: None,
            svg: None,
            help: false,
        };
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
            let number = |text: String, least: u64| {
                let number = text.parse().ok().filter(|number| *number >= least);
                number.ok_or_else(|| format!("a number of {least} or more is wanted, not `{text}`"))
            };
            match name.as_str() {
                "--worker" => options.worker = value()?.into(),
                "--seconds" => options.seconds = number(value()?, SECONDS_MIN)?,
                "--seed" => options.seed = number(value()?, 0)?,
                "--csv" => options.csv = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--help" | "-h" => options.help = true,
                _ => return Err(format!("unknown argument `{name}`; see --help")),
            }
        }
        Ok(options)
    }
}

/// The worker's dependencies.
struct Surroundings {
    queue: Arc<Queue>,
    proxies: [Proxy; 4],
    _servers: Servers,
    _collector: Collector,
}

impl Surroundings {
    async fn start() -> Result<Self, Failed> {
        let queue = Arc::new(Queue::default());
        let servers = Servers::start(&queue).await?;
        let collector = Collector::start().await?;
        let proxies = [
            Proxy::start(servers.sqs).await?,
            Proxy::start(servers.api).await?,
            Proxy::start(servers.inventory).await?,
            Proxy::start(collector.addr()).await?,
        ];
        Ok(Self { queue, proxies, _servers: servers, _collector: collector })
    }

    fn variables(&self, options: &Options, port: u16) -> Variables {
        let [sqs, api, inventory, collector] = self.proxies.each_ref().map(Proxy::addr);
        let mut variables = Variables::from([
            ("SQS_QUEUE_URL", format!("http://{sqs}/000000000000/events")),
            ("SQS_DLQ_URL", format!("http://{sqs}/000000000000/dlq")),
            ("SQS_WAIT_TIME", "1".to_owned()),
            ("SQS_VISIBILITY_TIMEOUT", "10".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{sqs}")),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIDSOAK".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "sandbox".to_owned()),
            ("INVENTORY_GRPC_ADDR", inventory.to_string()),
            ("RESERVATION_API_BASE", format!("http://{api}")),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG", "0.05".to_owned()),
            ("BACKOFF_BASE_MS", "100".to_owned()),
            ("BACKOFF_MAX_MS", "1000".to_owned()),
            ("SERVER_PORT", port.to_string()),
        ]);
        if options.seconds < LONG_S {
            variables.insert("IDEMPOTENCY_CAPACITY", CAPACITY.to_string());
        }
        variables
    }

    async fn heal(&self) -> Result<(), Failed> {
        for proxy in &self.proxies {
            proxy.forget();
            proxy.accept().await?;
        }
        Ok(())
    }
}

/// Runs the test and returns the figures.
///
/// # Errors
/// The message that was not handled correctly, or the resource that grew.
pub async fn soak(options: &Options) -> Result<String, Failed> {
    let around = Surroundings::start().await?;
    let port = ReservedPort::reserve()?;
    let launch = Launch {
        program: options.worker.clone(),
        variables: around.variables(options, port.number),
        // Log lines are written at their full cost but not kept.
        output: Output::To(PathBuf::from("/dev/null")),
        before: String::new(),
    };
    let log = std::env::temp_dir().join(format!("soak-{}.log", std::process::id()));
    let mut worker = Worker::start(&launch, &log)?;
    eventually("it works", SETTLED_MAX, async || around.queue.sums().deleted > 0).await?;
    harm::warm_up(&around.proxies).await?;
    let faults = AtomicU64::new(0);
    let is_long = options.seconds >= LONG_S;
    let raging = harm::rage(around.proxies.to_vec(), options.seed, is_long, &faults);
    let sampled = tokio::select! {
        samples = sample(&mut worker, &around.queue, options.seconds, &faults) => samples,
        raged = raging => raged.map(|never| match never {}),
    };
    let samples = sampled?;
    around.heal().await?;
    around.queue.end();
    eventually("all is settled", SETTLED_MAX, async || around.queue.left() == 0).await?;
    worker.leave(Duration::from_secs(30)).await?;
    // It has only standard error, which is empty after an orderly exit.
    let _ = std::fs::remove_file(&log);
    let figures = write_down(options, &samples, around.queue.sums(), faults.into_inner())?;
    around.queue.judge().map_err(Failed)?;
    Ok(format!("{figures}\n{}", samples::judge(&samples, is_long)?))
}

/// Takes a sample every second.
async fn sample(
    worker: &mut Worker,
    queue: &Queue,
    seconds: u64,
    faults: &AtomicU64,
) -> Result<Vec<Sample>, Failed> {
    let began = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut looks = interval(Duration::from_secs(1));
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while began.elapsed().as_secs() < seconds {
        looks.tick().await;
        ensure(!worker.has_ended()?, || format!("it ended:\n{}", worker.last_lines(10)))?;
        let Some(usage) = worker.usage() else { continue };
        let Some((_, text)) = worker.get("/metrics").await else { continue };
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        samples.push(Sample {
            second: began.elapsed().as_secs(),
            usage,
            series: u64::try_from(series).expect("the number of series is small"),
            deleted: queue.sums().deleted,
            faults: faults.load(Ordering::Relaxed),
        });
    }
    Ok(samples)
}

fn write_down(
    options: &Options,
    samples: &[Sample],
    sums: Sums,
    faults: u64,
) -> Result<String, Failed> {
    let Sums { sent, delivered, returned, calls, effects, repeats, dead_letters, .. } = sums;
    let seconds = options.seconds;
    let (first, last) = (samples.first(), samples.last());
    let deleted = last.map_or(0, |it| it.deleted) - first.map_or(0, |it| it.deleted);
    let rate = deleted / seconds.max(1);
    if let Some(path) = &options.csv {
        std::fs::write(path, samples::csv(samples))?;
    }
    if let Some(path) = &options.svg {
        let (minutes, rest) = (seconds / 60, seconds % 60);
        let about = format!(
            "Resident memory of one worker: {sent} events in {minutes} min {rest} s, {faults} faults"
        );
        std::fs::write(path, picture::draw(samples, &about))?;
    }
    Ok(format!(
        "{sent} events; {seconds} s were sampled ({rate} a second, {faults} faults): {effects} effects, none twice; {dead_letters} copies set aside; {delivered} deliveries, {returned} came back; {calls} calls, {repeats} of them again with their key"
    ))
}
