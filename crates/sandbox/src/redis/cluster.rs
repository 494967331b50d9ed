//! A cluster of three real masters, created with `redis-cli --cluster create`.

use std::io;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{LOOK_EVERY, Redis, RedisOptions};

/// Maximum time for the nodes to agree on the slots.
const PATIENCE: Duration = Duration::from_secs(30);

/// Three masters that share the slots.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the masters and joins them.
    ///
    /// # Errors
    ///
    /// If a node does not start, or the nodes do not agree in time.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(&RedisOptions::default()).await
    }

    /// Starts masters with these settings and joins them.
    ///
    /// # Errors
    ///
    /// As [`RedisCluster::start`].
    pub async fn start_with(options: &RedisOptions) -> io::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let options = options
                .clone()
                .setting("cluster-enabled", "yes")
                .setting("cluster-node-timeout", "2000");
            nodes.push(options.start().await?);
        }
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port()));
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .arg("--cluster-yes")
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(io::Error::other(format!("no cluster: {said}")));
        }
        let cluster = Self { nodes };
        cluster.agreed().await?;
        Ok(cluster)
    }

    async fn agreed(&self) -> io::Result<()> {
        let began = Instant::now();
        for node in &self.nodes {
            while !node.command(&["CLUSTER", "INFO"]).await?.text().contains("cluster_state:ok") {
                if began.elapsed() > PATIENCE {
                    return Err(io::Error::other("the cluster's nodes do not agree"));
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }
}
