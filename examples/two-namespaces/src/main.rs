//! Two namespaces on a bridge: one serves, the other one and the host fetch. Run as root:
//!
//! ```text
//! cargo run -p two-namespaces
//! ```

#![expect(clippy::print_stdout, reason = "a program's output")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::{env, process, thread};

use brig_network::{
    ContainerPort, Endpoint, Instance, NetworkConfig, Networks, PortRequest, PortReservation, ipam,
    netns,
};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::temp_dir().join(format!("two-namespaces-{}", process::id()));
    std::fs::create_dir(&directory)?;
    let networks = Networks::new(Instance::new(format!("example-{}", process::id()))?);
    let subnet = ipam::choose_subnet(None, &networks.occupied()?)?;
    let network = NetworkConfig::bridge(format!("example{}", process::id()), "example", subnet)?;
    let done = demonstrate(&networks, &network, &directory);

    for error in networks.remove(&network).errors {
        println!("left behind: {error}");
    }
    networks.destroy()?;
    for name in ["server", "client"] {
        netns::remove(&directory.join(name))?;
    }
    std::fs::remove_dir(&directory)?;
    done
}

fn demonstrate(
    networks: &Networks,
    network: &NetworkConfig,
    directory: &Path,
) -> Result<(), Box<dyn Error>> {
    networks.create(network)?;
    println!(
        "network {} is {} on {}",
        network.name,
        network.subnet()?.network,
        network.bridge_name()
    );

    let port = PortReservation::acquire(&PortRequest {
        host_ip: "127.0.0.1".parse()?,
        host_ports: None,
        container: "80".parse::<ContainerPort>()?,
    })?;
    let mut used = [].into();
    let mut endpoints = Vec::new();
    for name in ["server", "client"] {
        let namespace = directory.join(name);
        netns::create(&namespace)?;
        let address = ipam::allocate(network.subnet()?, &used, None)?;
        used.insert(address.address());
        let mut endpoint = Endpoint::new(name, namespace, address);
        endpoint.gateway = Some(network.subnet()?.gateway);
        if name == "server" {
            endpoint.ports = vec![port.mapping()];
        }
        networks.connect(network, &endpoint)?;
        println!("{name} has {address}");
        endpoints.push(endpoint);
    }
    let [server, client] = &endpoints[..] else { return Err("two endpoints were made".into()) };
    let address = server.address.address();
    let listener = netns::run_in(&server.netns, || Ok(TcpListener::bind((address, 80))))??;
    let serving = thread::spawn(move || serve(&listener, 2));

    let text = netns::run_in(&client.netns, || Ok(fetch(address, 80)))??;
    println!("client hears from {address}:80 — {text}");
    let text = fetch(port.mapping().host_ip, port.mapping().host_port)?;
    println!("the host hears from {} — {text}", port.mapping());
    serving.join().map_err(|_| "the server failed")??;

    let mut errors = Vec::new();
    for endpoint in &endpoints {
        errors.extend(networks.disconnect(network, endpoint).errors);
    }
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}

fn serve(listener: &TcpListener, clients: usize) -> std::io::Result<()> {
    for _ in 0..clients {
        let (mut stream, peer) = listener.accept()?;
        write!(stream, "hello, {}", peer.ip())?;
    }
    Ok(())
}

fn fetch(address: IpAddr, port: u16) -> std::io::Result<String> {
    let mut text = String::new();
    TcpStream::connect(SocketAddr::new(address, port))?.read_to_string(&mut text)?;
    Ok(text)
}
