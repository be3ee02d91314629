//! Networks, published ports and names.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::engine::{Engine, Outcome, Peer, eventually};

#[test]
fn a_published_port_answers_on_the_host() {
    let Some(engine) = Engine::start("port") else { return };
    engine.load_busybox();
    let run = [
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h",
        "/etc",
    ];
    let _ = engine.docker(&run).success();
    let fetch = "for i in $(seq 50); do curl -sf --max-time 2 http://127.0.0.1:8080/passwd && exit; sleep 0.1; done; exit 1";
    assert!(engine.on_host(&["sh", "-c", fetch]).success().contains("root:x:0:0"));
    assert!(engine.docker(&["ps"]).success().contains("0.0.0.0:8080->80/tcp"));
    let taken = engine.docker(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert_eq!(taken.code, Some(125));
    assert!(
        taken.stderr.contains("8080") && taken.stderr.contains("already allocated"),
        "{}",
        taken.stderr
    );
    assert_eq!(engine.brig(&["stop", "-t", "1", "web"]).success(), "web");
}

#[test]
fn containers_of_a_network_find_each_other_by_name_and_strangers_do_not() {
    let Some(engine) = Engine::start("names") else { return };
    engine.load_busybox();
    for network in ["ours", "theirs"] {
        let _ = engine.docker(&["network", "create", network]).success();
    }
    let _ = engine
        .docker(&["run", "-d", "--name", "db", "--network", "ours", "busybox", "sleep", "1000"])
        .success();
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = engine.docker(&["inspect", "-f", address, "db"]).success();
    let ping = |network: &str, target: &str| {
        engine
            .docker(&[
                "run",
                "--rm",
                "--network",
                network,
                "busybox",
                "ping",
                "-c",
                "1",
                "-W",
                "2",
                target,
            ])
            .code
    };
    assert_eq!(ping("ours", "db"), Some(0));
    assert_eq!(ping("theirs", "db"), Some(1));
    assert_eq!(ping("theirs", &address), Some(1));
    let _ = engine.docker(&["rm", "--force", "db"]).success();
    for network in ["ours", "theirs"] {
        assert_eq!(engine.docker(&["network", "rm", network]).success(), network);
    }
}

/// A web server on port 8080 of the host, and its address.
fn publish_web(engine: &Engine) -> String {
    let run = [
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h",
        "/etc",
    ];
    let _ = engine.docker(&run).success();
    engine.inspect("web", "{{.NetworkSettings.Networks.bridge.IPAddress}}")
}

fn answers(outcome: &Outcome) -> bool {
    outcome.code == Some(0) && outcome.stdout.contains("root:x:0:0")
}

const FETCH: [&str; 4] = ["curl", "-sf", "--max-time", "5"];

fn fetch(url: &str) -> Vec<&str> {
    [&FETCH[..], &[url]].concat()
}

#[test]
fn rules_and_bridges_that_somebody_removed_come_back() {
    let Some(engine) = Engine::start("removed-rules") else { return };
    engine.load_busybox();
    let peer = Peer::join(&engine);
    let address = publish_web(&engine);
    let published = format!("http://{}:8080/passwd", Peer::HOST);
    let direct = format!("http://{address}/passwd");
    let reachable = || answers(&peer.run(&engine, &fetch(&published))).then_some(());
    let exposed = || {
        let attempt = ["curl", "-sf", "--max-time", "1", &direct];
        answers(&peer.run(&engine, &attempt))
    };
    eventually("the published port", reachable);
    assert!(!exposed());
    let rules = || engine.on_host(&["nft", "list", "ruleset"]).success();
    let whole = rules();
    let _ = engine.on_host(&["nft", "flush", "ruleset"]).success();
    assert_eq!(rules(), "");
    eventually("the rules", || (rules() == whole).then_some(()));
    eventually("the published port after a flush", reachable);
    assert!(!exposed(), "the container is reached past its published port");
    let _ = engine.on_host(&["ip", "link", "delete", "brig0"]).success();
    eventually("the published port after the bridge was deleted", reachable);
    assert!(!exposed());
    let ping = ["exec", "web", "ping", "-c", "1", "-W", "5", Peer::HOST];
    assert_eq!(engine.docker(&ping).code, Some(0));
    assert!(engine.log().contains("put back"), "{}", engine.log());
}

/// Sends every datagram back, inside a network namespace, as a process there would.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(namespace: &Path, port: u16) -> Self {
        let bind = || Ok(UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let socket = brig_network::netns::run_in(namespace, bind).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..length], from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Sends a datagram from the peer until an answer comes.
fn ask_by_udp(peer: &Peer, address: &str) -> Option<Vec<u8>> {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut answer = [0; 64];
        // A port that nobody has yet is an error of the next call.
        let asked = socket.send_to(b"ping", address).and_then(|_| socket.recv_from(&mut answer));
        Ok(asked.ok().map(|(length, _)| answer[..length].to_vec()))
    };
    brig_network::netns::run_in(&peer.namespace(), ask).unwrap()
}

#[test]
fn a_peer_of_the_lan_reaches_what_is_published_and_nothing_else() {
    let Some(engine) = Engine::start("lan") else { return };
    engine.load_busybox();
    let peer = Peer::join(&engine);
    let address = publish_web(&engine);
    let serve = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    let local = [&["run", "-d", "--name", "local", "-p", "127.0.0.1:8081:80"][..], &serve].concat();
    let _ = engine.docker(&local).success();
    let udp = ["run", "-d", "--name", "udp", "-p", "5353:5353/udp", "busybox", "sleep", "1000"];
    let _ = engine.docker(&udp).success();
    let pid = engine.inspect("udp", "{{.State.Pid}}");
    let _echo = Echo::start(&PathBuf::from(format!("/proc/{pid}/ns/net")), 5353);
    let on_lan = |port: u16| format!("{}:{port}", Peer::HOST);
    let reaches = |url: &str| answers(&peer.run(&engine, &["curl", "-sf", "--max-time", "2", url]));
    let published = format!("http://{}/passwd", on_lan(8080));
    eventually("the published port", || reaches(&published).then_some(()));
    let answer = eventually("an answer by UDP", || ask_by_udp(&peer, &on_lan(5353)));
    assert_eq!(answer, b"ping");
    // On the host itself the port of the loopback answers, so what follows is not for want of a server.
    let own = fetch("http://127.0.0.1:8081/passwd");
    eventually("the loopback port", || answers(&engine.on_host(&own)).then_some(()));
    assert!(
        !reaches(&format!("http://{}/passwd", on_lan(8081))),
        "published for the loopback only"
    );
    assert!(!reaches(&format!("http://{address}/passwd")), "a container's own address");
    let inside = engine.inspect("udp", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    assert_eq!(ask_by_udp(&peer, &format!("{inside}:5353")), None);
    // The peer takes 127.0.0.1 for an address behind the host.
    let through = "ip addr flush dev lo && ip route flush table local dev lo && ip route add 127.0.0.1 via 192.0.2.1";
    let _ = peer.run(&engine, &["sh", "-c", through]).success();
    assert!(!reaches("http://127.0.0.1:8081/passwd"), "the loopback by a route");
    assert_eq!(ask_by_udp(&peer, "127.0.0.1:5353"), None);
    // And it claims to be the loopback.
    let claim =
        "ip addr add 127.0.0.1/32 dev eth0 && ip route change default via 192.0.2.1 src 127.0.0.1";
    let _ = peer.run(&engine, &["sh", "-c", claim]).success();
    let spoofed = ["curl", "-sf", "--max-time", "2", "--interface", "127.0.0.1"];
    for port in [8080, 8081] {
        let url = format!("http://{}/passwd", on_lan(port));
        let outcome = peer.run(&engine, &[&spoofed[..], &[&url]].concat());
        assert!(!answers(&outcome), "the loopback as source, port {port}");
    }
}
