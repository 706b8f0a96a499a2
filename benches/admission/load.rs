//! Load on a server of admission reviews, and its results.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

use crate::client::{Connection, Server};
use crate::{Failure, reviews};
use ensign_testkit::processor_time;

const WARM_UP: Duration = Duration::from_millis(300);
/// How long the last responses may take.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    shape: Shape,
    /// Where the server is
    #[arg(long, global = true)]
    address: Option<SocketAddr>,
    /// Its trusted certificate
    #[arg(long, global = true)]
    ca_file: Option<PathBuf>,
    /// Its process, to measure its processor time
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Bytes of a review
    #[arg(long, global = true, default_value_t = 6 * 1024)]
    bytes: usize,
    /// Number of bindings that the reviews are spread over
    #[arg(long, global = true, default_value_t = 10)]
    bindings: usize,
    /// Number of different reviews
    #[arg(long, global = true, default_value_t = 64)]
    different: usize,
}

#[derive(clap::Subcommand)]
enum Shape {
    /// Each connection sends its next review as soon as it has the response
    Closed {
        #[arg(long, default_value_t = 16)]
        connections: usize,
        #[arg(long)]
        seconds: f64,
    },
    /// Reviews are sent at a fixed rate, regardless of earlier ones
    Open {
        #[arg(long, default_value_t = 64)]
        connections: usize,
        #[arg(long)]
        seconds: f64,
        #[arg(long)]
        rate: f64,
    },
    /// Many new connections at once, with one review each
    Burst {
        #[arg(long)]
        connections: usize,
    },
}

pub async fn run(args: Args) -> Result<Value, Failure> {
    let (address, ca_file) = (args.address.ok_or("--address is missing")?, args.ca_file.ok_or("--ca-file is missing")?);
    let requests = Rc::new(reviews::requests(args.bytes, args.bindings, args.different)?);
    let load = Load { server: Server::new(address, &ca_file)?, requests, pid: args.pid };
    match args.shape {
        Shape::Closed { connections, seconds } => load.closed(connections, Duration::try_from_secs_f64(seconds)?).await,
        Shape::Open { connections, seconds, rate } => load.open(connections, seconds, rate).await,
        Shape::Burst { connections } => load.burst(connections).await,
    }
}

struct Load {
    server: Server,
    requests: Rc<Vec<Vec<u8>>>,
    pid: Option<u32>,
}

/// The counts of a load.
#[derive(Default)]
struct Tally {
    latencies: RefCell<Vec<Duration>>,
    failures: RefCell<Vec<String>>,
    answer: Cell<usize>,
    sent: Cell<usize>,
}

impl Tally {
    /// The number of the next request.
    fn next(&self) -> usize {
        let number = self.sent.get();
        self.sent.set(number + 1);
        number
    }

    async fn send(&self, connection: &mut Connection, request: &[u8], since: Instant) -> bool {
        let sent = connection.send(request).await;
        self.note(sent.map(|answer| answer.body), since)
    }

    fn note(&self, answer: Result<usize, Failure>, since: Instant) -> bool {
        match answer {
            Ok(body) => {
                self.latencies.borrow_mut().push(since.elapsed());
                self.answer.set(body);
                true
            }
            Err(failure) => {
                self.failures.borrow_mut().push(failure.to_string());
                false
            }
        }
    }

    fn report(&self, took: Duration, server: Option<Duration>, client: Duration) -> Value {
        let mut latencies = self.latencies.borrow_mut();
        latencies.sort_unstable();
        let count = latencies.len();
        let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
        let quantile = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a rank among so few"
            )]
            let rank = (count as f64 * share).ceil() as usize;
            latencies.get(rank.max(1) - 1).copied().map(millis)
        };
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let each = |duration: Duration| duration.as_secs_f64() * 1e6 / count.max(1) as f64;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let per_second = count as f64 / took.as_secs_f64();
        let failures = self.failures.borrow();
        json!({
            "answers": count, "seconds": took.as_secs_f64(), "per_second": per_second, "errors": failures.len(),
            "first_error": failures.first(), "answer_bytes": self.answer.get(),
            "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "p999_ms": quantile(0.999), "max_ms": quantile(1.0),
            "server_us": server.map(each), "client_busy": client.as_secs_f64() / took.as_secs_f64(),
        })
    }
}

impl Load {
    async fn connections(&self, count: usize) -> Result<Vec<Connection>, Failure> {
        timeout(TIMEOUT, try_join_all((0..count).map(|_| self.server.connect()))).await?
    }

    fn request(&self, number: usize) -> &[u8] {
        self.requests.get(number % self.requests.len()).map(Vec::as_slice).unwrap_or_default()
    }

    fn server_time(&self) -> Result<Option<Duration>, Failure> {
        Ok(self.pid.map(processor_time::of_live_threads).transpose()?)
    }

    async fn closed(&self, connections: usize, lasting: Duration) -> Result<Value, Failure> {
        let mut open = self.connections(connections).await?;
        self.turns(&mut open, WARM_UP).await?;
        self.turns(&mut open, lasting).await
    }

    async fn turns(&self, open: &mut [Connection], lasting: Duration) -> Result<Value, Failure> {
        let tally = Tally::default();
        let (server, client) = (self.server_time()?, processor_time::of_live_threads(std::process::id())?);
        let started = Instant::now();
        let all = open.iter_mut().map(|connection| async {
            while started.elapsed() < lasting {
                let number = tally.next();
                if !tally.send(connection, self.request(number), Instant::now()).await {
                    break;
                }
            }
        });
        timeout(lasting + TIMEOUT, join_all(all)).await?;
        self.report(&tally, started, server, client)
    }

    /// Latency counts from the time when a review should have been sent, so that a server that stalls can't hide behind reviews that
    /// were not sent meanwhile. Waits without sleeping: timers are too coarse.
    async fn open(&self, connections: usize, seconds: f64, rate: f64) -> Result<Value, Failure> {
        let mut open = self.connections(connections).await?;
        self.turns(&mut open, WARM_UP).await?;
        let (give_back, mut free) = mpsc::unbounded_channel();
        for connection in open {
            give_back.send(connection)?;
        }
        let tally = Rc::new(Tally::default());
        let (server, client) = (self.server_time()?, processor_time::of_live_threads(std::process::id())?);
        let started = Instant::now();
        let mut under_way = Vec::new();
        for number in 0.. {
            let due = Duration::try_from_secs_f64(f64::from(number) / rate)?;
            if due.as_secs_f64() >= seconds {
                break;
            }
            while started.elapsed() < due {
                yield_now().await;
            }
            let mut connection = timeout(TIMEOUT, free.recv()).await?.ok_or("no connection is left")?;
            let (tally, requests, give_back) = (Rc::clone(&tally), Rc::clone(&self.requests), give_back.clone());
            under_way.push(spawn_local(async move {
                let number = tally.next();
                let request = requests.get(number % requests.len()).map(Vec::as_slice).unwrap_or_default();
                if tally.send(&mut connection, request, started + due).await {
                    // The receiver is gone once the loop has ended.
                    let _ = give_back.send(connection);
                }
            }));
        }
        for one in under_way {
            timeout(TIMEOUT, one).await??;
        }
        self.report(&tally, started, server, client)
    }

    async fn burst(&self, connections: usize) -> Result<Value, Failure> {
        let tally = Tally::default();
        let (server, client) = (self.server_time()?, processor_time::of_live_threads(std::process::id())?);
        let started = Instant::now();
        let all = (0..connections).map(|number| {
            let tally = &tally;
            async move {
                let answer = async {
                    let answer = self.server.connect().await?.send(self.request(number)).await?;
                    Ok(answer.body)
                };
                let answer = timeout(TIMEOUT, answer).await.unwrap_or_else(|late| Err(late.into()));
                tally.note(answer, started);
            }
        });
        join_all(all).await;
        self.report(&tally, started, server, client)
    }

    fn report(
        &self,
        tally: &Tally,
        started: Instant,
        server: Option<Duration>,
        client: Duration,
    ) -> Result<Value, Failure> {
        let took = started.elapsed();
        let server = self.server_time()?.zip(server).map(|(after, before)| after.saturating_sub(before));
        let client = processor_time::of_live_threads(std::process::id())?.saturating_sub(client);
        Ok(tally.report(took, server, client))
    }
}
