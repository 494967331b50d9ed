//! All servers that the worker needs: an SQS queue with its dead-letter queue, and both services
//! with one ledger. Also the environment variables of a worker for them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use crate::inventory::Inventory;
use crate::ledger::Ledger;
use crate::reservation_api::ReservationApi;
use crate::sqs::{QueueSpec, Redrive, Sqs};

/// Receives after which a message moves to the dead-letter queue.
const MAX_RECEIVE_COUNT: u32 = 10;

/// The ports to listen on; 0 is any free port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// The SQS-compatible server.
    pub sqs: u16,
    /// The Reservation API.
    pub reservation_api: u16,
    /// The Inventory service.
    pub inventory: u16,
}

/// A server that could not start, with the cause.
#[derive(Debug)]
pub struct StartError {
    /// The server.
    pub server: &'static str,
    /// The requested port.
    pub port: u16,
    /// The error of the system.
    pub error: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, port, error } = self;
        if error.kind() == io::ErrorKind::AddrInUse {
            return write!(out, "port {port} for {server} is taken by another program");
        }
        write!(out, "port {port} for {server}: {error}")
    }
}

impl std::error::Error for StartError {}

/// The running servers; they stop when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Servers {
    /// The server of both queues.
    pub sqs: Sqs,
    /// The URL of the source queue.
    pub queue_url: String,
    /// The URL of the dead-letter queue.
    pub dlq_url: String,
    /// The Reservation API.
    pub api: ReservationApi,
    /// The Inventory service.
    pub inventory: Inventory,
    /// The ledger of both services, so that their calls have one order.
    pub ledger: Ledger,
}

impl Servers {
    /// Starts all servers on 127.0.0.1.
    ///
    /// # Errors
    ///
    /// The first server that cannot listen on its port.
    pub async fn start(ports: Ports) -> Result<Self, StartError> {
        Self::start_on(Ipv4Addr::LOCALHOST, ports).await
    }

    /// Starts all servers on this address.
    ///
    /// # Errors
    ///
    /// The first server that cannot listen on its port.
    pub async fn start_on(address: Ipv4Addr, ports: Ports) -> Result<Self, StartError> {
        let at = |port| SocketAddr::from((address, port));
        let failed = |server, port| move |error| StartError { server, port, error };
        let ledger = Ledger::default();
        let sqs = Sqs::start_on(at(ports.sqs)).await.map_err(failed("SQS", ports.sqs))?;
        let dlq_url = sqs.create_queue("reservations-dlq", QueueSpec::default());
        let redrive = Some(Redrive { dlq: dlq_url.clone(), max_receive_count: MAX_RECEIVE_COUNT });
        let queue_url =
            sqs.create_queue("reservations", QueueSpec { redrive, ..QueueSpec::default() });
        let api = ReservationApi::start_on(at(ports.reservation_api), ledger.clone()).await;
        let api = api.map_err(failed("the Reservation API", ports.reservation_api))?;
        let inventory = Inventory::start_on(at(ports.inventory), ledger.clone()).await;
        let inventory = inventory.map_err(failed("the Inventory service", ports.inventory))?;
        Ok(Self { sqs, queue_url, dlq_url, api, inventory, ledger })
    }

    /// Returns the variables with which a worker uses only these servers.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SQS_QUEUE_URL", self.queue_url.clone()),
            ("AWS_ENDPOINT_URL", self.sqs.endpoint_url()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "sandbox".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "sandbox".to_owned()),
            ("INVENTORY_GRPC_ADDR", self.inventory.addr()),
            ("RESERVATION_API_BASE", self.api.base_url()),
            ("OTEL_SDK_DISABLED", "true".to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn the_error_for_a_port_in_use_names_the_server() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for (ports, server) in [
            (Ports { sqs: port, ..Ports::default() }, "SQS"),
            (Ports { reservation_api: port, ..Ports::default() }, "the Reservation API"),
            (Ports { inventory: port, ..Ports::default() }, "the Inventory service"),
        ] {
            let message = Servers::start(ports).await.unwrap_err().to_string();
            assert_eq!(message, format!("port {port} for {server} is taken by another program"));
        }
    }
}
