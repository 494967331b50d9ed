//! A process that was paused past its deadlines: answers that came meanwhile count.

use std::sync::mpsc;
use std::thread;

use futures_util::future::join_all;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::*;

/// At once, on one connection: more answers than are read in one turn.
const CALLS: usize = 20;

/// Time for all to be sent; the pause is longer.
const TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn answers_that_came_during_a_pause_count_though_their_time_is_over() {
    let (ready, address) = mpsc::channel();
    let (asked, mut was_asked) = oneshot::channel();
    let (pauses, until_paused) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    // The service must go on while the worker's thread stands still.
    let service = thread::spawn(move || {
        let first = std::sync::Mutex::new(Some((asked, until_paused)));
        let answer = move |_: &Asked| {
            if let Some((asked, until_paused)) = first.lock().unwrap().take() {
                asked.send(()).unwrap();
                until_paused.recv().unwrap();
            }
            released(1)
        };
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let server = TestServer::start(true, answer).await;
            ready.send(server.address).unwrap();
            stopped.await.unwrap();
        });
    });
    let runtime = Builder::new_current_thread().enable_all().max_io_events_per_tick(8).build();
    let answers = runtime.unwrap().block_on(async {
        let api = GrpcInventory::new(GrpcSettings {
            uri: format!("http://{}", address.recv().unwrap()),
            credentials: Credentials::default(),
            timeout: TIMEOUT,
        })
        .unwrap();
        let pause = async {
            while was_asked.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                yield_now().await;
            }
            // Nothing of what came so far is left to be done when the pause begins.
            for _ in 0..100 {
                yield_now().await;
            }
            pauses.send(()).unwrap();
            thread::sleep(TIMEOUT * 3 / 2);
        };
        let calls = join_all((0..CALLS).map(|_| release(&api)));
        tokio::join!(calls, pause).0
    });
    stop.send(()).unwrap();
    service.join().unwrap();
    let lost: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(lost.is_empty(), "{} of {CALLS} were given up: {lost:?}", lost.len());
}
