//! A host stand-in with containers and a LAN peer, each a network namespace of its own, and traffic between them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use brig_network::{
    Endpoint, Instance, IpNet, NetworkConfig, NetworkState, Networks, PortMapping, PortRequest,
    PortReservation, Protocol, netns,
};

/// Long enough for any answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long silence is listened to before it counts as such.
const SILENCE: Duration = Duration::from_millis(600);

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub(crate) struct Lab {
    directory: tempfile::TempDir,
    pub(crate) networks: Networks,
    namespaces: Vec<PathBuf>,
    held: Vec<PortReservation>,
}

impl Lab {
    /// `None`, said aloud, where namespaces cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED {test}: it makes network namespaces and needs root");
            return None;
        }
        let mut lab = Self {
            directory: tempfile::tempdir().unwrap(),
            networks: Networks::new(Instance::new("brig-test").unwrap()),
            namespaces: Vec::new(),
            held: Vec::new(),
        };
        lab.namespace("host");
        let lan = lab.namespace("lan");
        lab.run(
            "host",
            &format!("ip link add uplink type veth peer name eth0 netns {}", lan.display()),
        );
        lab.run("host", "ip link set uplink mtu 1400 up");
        lab.run("host", "ip addr add 192.0.2.1/24 dev uplink");
        lab.run("lan", "ip link set eth0 up");
        lab.run("lan", "ip addr add 192.0.2.2/24 dev eth0");
        lab.run("host", "ip route add default via 192.0.2.2");
        Some(lab)
    }

    pub(crate) fn path(&self, namespace: &str) -> PathBuf {
        self.directory.path().join(namespace)
    }

    pub(crate) fn namespace(&mut self, name: &str) -> PathBuf {
        let path = self.path(name);
        netns::create(&path).unwrap();
        self.namespaces.push(path.clone());
        path
    }

    /// Runs a command inside a namespace and answers what it printed.
    pub(crate) fn run(&self, namespace: &str, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        let output = netns::run_in(&self.path(namespace), || {
            Ok(Command::new(words[0]).args(&words[1..]).output())
        })
        .unwrap();
        let output = output.unwrap_or_else(|error| {
            panic!("run {command}: {error} (install iproute2 and nftables)")
        });
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn on_host<T: Send>(&self, work: impl FnOnce(&Networks) -> T + Send) -> T {
        netns::run_in(&self.path("host"), || Ok(work(&self.networks))).unwrap()
    }

    /// A container in a new namespace, connected, with the default route through this network.
    pub(crate) fn container(
        &mut self,
        network: &NetworkConfig,
        name: &str,
        address: &str,
        ports: Vec<PortMapping>,
    ) -> Endpoint {
        let netns = self.namespace(name);
        let address: IpNet = address.parse().unwrap();
        let mut endpoint = Endpoint::new(name, netns, address);
        endpoint.gateway = (!network.internal).then(|| network.subnets[0].gateway);
        endpoint.ports = ports;
        self.on_host(|networks| networks.connect(network, &endpoint)).unwrap();
        endpoint
    }

    /// Reserves a free host port for a container port.
    pub(crate) fn publish(&mut self, host_ip: &str, container: &str) -> PortMapping {
        let request = PortRequest {
            host_ip: host_ip.parse().unwrap(),
            host_ports: None,
            container: container.parse().unwrap(),
        };
        let held = self.on_host(|_| PortReservation::acquire(&request)).unwrap();
        let mapping = held.mapping();
        self.held.push(held);
        mapping
    }

    /// Serves TCP and UDP at an address of a namespace: each client is told its own address.
    pub(crate) fn serve(&self, namespace: &str, address: impl Into<IpAddr>, port: u16) -> Server {
        let address = SocketAddr::new(address.into(), port);
        let (tcp, udp) = netns::run_in(&self.path(namespace), || {
            let tcp = TcpListener::bind(address).unwrap();
            let udp =
                UdpSocket::bind(SocketAddr::new(address.ip(), tcp.local_addr().unwrap().port()))
                    .unwrap();
            Ok((tcp, udp))
        })
        .unwrap();
        Server::start(tcp, udp)
    }

    /// Whom the server at `address` saw when `namespace` connected; an error when nobody answered.
    pub(crate) fn reach(&self, namespace: &str, address: impl Into<IpAddr>, port: u16) -> IpAddr {
        let address = SocketAddr::new(address.into(), port);
        self.attempt(namespace, address, PATIENCE).unwrap_or_else(|| {
            panic!("{namespace} does not reach {address}\n{}", self.run("host", "nft list ruleset"))
        })
    }

    pub(crate) fn cannot_reach(&self, namespace: &str, address: impl Into<IpAddr>, port: u16) {
        let address = SocketAddr::new(address.into(), port);
        if let Some(seen) = self.attempt(namespace, address, SILENCE) {
            panic!(
                "{namespace} reaches {address} as {seen}\n{}",
                self.run("host", "nft list ruleset")
            );
        }
    }

    fn attempt(&self, namespace: &str, address: SocketAddr, wait: Duration) -> Option<IpAddr> {
        netns::run_in(&self.path(namespace), || {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, wait) else {
                return Ok(None);
            };
            stream.set_read_timeout(Some(wait)).unwrap();
            let mut text = String::new();
            Ok(stream.read_to_string(&mut text).ok().and_then(|_| text.parse().ok()))
        })
        .unwrap()
    }

    /// The same by UDP, from a fixed source port when one is given.
    pub(crate) fn ask(
        &self,
        namespace: &str,
        address: impl Into<IpAddr>,
        port: u16,
        source_port: u16,
    ) -> Option<IpAddr> {
        let address = SocketAddr::new(address.into(), port);
        netns::run_in(&self.path(namespace), || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, source_port)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(address).unwrap();
            let mut buffer = [0; 64];
            let answer = socket.send(b"who am i?").and_then(|_| socket.recv(&mut buffer));
            Ok(answer
                .ok()
                .and_then(|length| std::str::from_utf8(&buffer[..length]).ok()?.parse().ok()))
        })
        .unwrap()
    }

    pub(crate) fn sync(&self, state: &[NetworkState]) {
        self.on_host(|networks| networks.sync(state)).unwrap();
    }

    /// Nothing of ours is left on the host.
    pub(crate) fn assert_clean(&self) {
        self.on_host(Networks::destroy).unwrap();
        assert_eq!(self.run("host", "nft list ruleset"), "");
        let links = self.run("host", "ip -o link");
        assert_eq!(links.lines().count(), 2, "want lo and uplink: {links}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for path in &self.namespaces {
            netns::remove(path).unwrap();
        }
    }
}

pub(crate) fn network(id: &str, subnet: &str) -> NetworkConfig {
    NetworkConfig::bridge(id, id, subnet.parse().unwrap()).unwrap()
}

pub(crate) fn mapping(
    host_ip: &str,
    host_port: u16,
    container_port: u16,
    protocol: Protocol,
) -> PortMapping {
    PortMapping { host_ip: host_ip.parse().unwrap(), host_port, container_port, protocol }
}

pub(crate) struct Server {
    pub(crate) port: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(tcp: TcpListener, udp: UdpSocket) -> Self {
        let port = tcp.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        // The sockets end their waits by themselves now and then to look at the flag.
        let turn = Duration::from_millis(50);
        udp.set_read_timeout(Some(turn)).unwrap();
        rustix::net::sockopt::set_socket_timeout(
            &tcp,
            rustix::net::sockopt::Timeout::Recv,
            Some(turn),
        )
        .unwrap();
        let (tcp_stop, udp_stop) = (Arc::clone(&stop), Arc::clone(&stop));
        let serve_tcp = move || {
            while !tcp_stop.load(Ordering::Relaxed) {
                if let Ok((mut stream, peer)) = tcp.accept() {
                    let _ = stream.write_all(peer.ip().to_string().as_bytes());
                }
            }
        };
        let serve_udp = move || {
            let mut buffer = [0; 64];
            while !udp_stop.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(peer.ip().to_string().as_bytes(), peer);
                }
            }
        };
        Self {
            port,
            stop,
            threads: vec![std::thread::spawn(serve_tcp), std::thread::spawn(serve_udp)],
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
