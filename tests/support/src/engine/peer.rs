//! A machine of the local network: a network namespace of its own, joined to the engine's by a cable.

use std::path::PathBuf;
use std::process::Command;

use super::{Engine, HOLD, Holder, Outcome};

/// A neighbour of the engine's host. It goes, and its cable with it, when this is dropped.
#[derive(Debug)]
pub struct Peer {
    holder: Holder,
}

impl Peer {
    /// The address of the engine's host in this network.
    pub const HOST: &str = "192.0.2.1";

    /// Plugs a neighbour into the engine's host; it sends everything that is not its own network's through that host.
    #[must_use]
    pub fn join(engine: &Engine) -> Self {
        let mut hold = Command::new("unshare");
        let peer = Self { holder: Holder::start(hold.args(["--net", "--", "sh", "-c", HOLD])) };
        let cable = format!(
            "ip link add lan0 type veth peer name eth0 netns {} && ip addr add {}/24 dev lan0 && ip link set lan0 up",
            peer.holder.id(),
            Self::HOST
        );
        let _ = engine.on_host(&["sh", "-c", &cable]).success();
        let own = format!(
            "ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up && ip route add default via {}",
            Self::HOST
        );
        let _ = peer.run(engine, &["sh", "-c", &own]).success();
        peer
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// Runs a program there.
    #[must_use]
    pub fn run(&self, engine: &Engine, words: &[&str]) -> Outcome {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).args(words);
        engine.run(&command)
    }
}
