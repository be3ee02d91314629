//! Real packets between namespaces: what must pass passes, what must not does not, and nothing is left.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on says so and ends"
)]

mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use brig_network::{
    Endpoint, ErrorKind, InterfaceName, NetworkConfig, NetworkState, ProblemKind, Protocol, dns,
    netns,
};
use lab::{HOST, LAN, Lab, mapping, network};

const A: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 3);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);

#[test]
fn containers_of_a_network_reach_each_other_the_host_and_the_lan() {
    let Some(mut lab) = Lab::new("containers_of_a_network_reach_each_other_the_host_and_the_lan")
    else {
        return;
    };
    let net = network("front", "10.89.0.0/24");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    let a = lab.container(&net, "a", "10.89.0.2/24", vec![]);
    let b = lab.container(&net, "b", "10.89.0.3/24", vec![]);
    let (in_a, in_b) = (lab.serve("a", A, 0), lab.serve("b", B, 0));
    let (on_host, on_lan) = (lab.serve("host", HOST, 0), lab.serve("lan", LAN, 0));
    assert_eq!(lab.reach("a", B, in_b.port), IpAddr::V4(A));
    assert_eq!(lab.reach("b", A, in_a.port), IpAddr::V4(B));
    assert_eq!(lab.reach("a", HOST, on_host.port), IpAddr::V4(A));
    assert_eq!(lab.reach("host", A, in_a.port), IpAddr::V4(GATEWAY));
    // Masqueraded: the LAN peer has no route back to 10.89.0.0/24.
    assert_eq!(lab.reach("a", LAN, on_lan.port), IpAddr::V4(HOST));
    assert_eq!(lab.ask("b", LAN, on_lan.port, 0), Some(IpAddr::V4(HOST)));

    let inside = lab.run("a", "ip -o address show dev eth0");
    assert!(
        inside.contains("inet 10.89.0.2/24 brd 10.89.0.255") && !inside.contains("inet6"),
        "{inside}"
    );
    let link = lab.run("a", "ip -o link show dev eth0");
    assert!(link.contains("mtu 1400") && link.contains("02:42:0a:59:00:02"), "{link}");
    assert!(!lab.run("host", "ip -o -6 address show dev br-front").contains("inet6"));

    lab.on_host(|networks| {
        networks.disconnect(&net, &a).into_result().unwrap();
        networks.disconnect(&net, &b).into_result().unwrap();
        networks.remove(&net).into_result().unwrap();
        // Again: nothing is there, which is fine.
        networks.disconnect(&net, &a).into_result().unwrap();
        networks.remove(&net).into_result().unwrap();
    });
    lab.assert_clean();
}

#[test]
fn networks_are_isolated_from_each_other() {
    let Some(mut lab) = Lab::new("networks_are_isolated_from_each_other") else { return };
    let front = network("front", "10.89.0.0/24");
    let back = network("back", "10.89.1.0/24");
    let inner = NetworkConfig { internal: true, ..network("inner", "10.89.2.0/24") };
    let apart = NetworkConfig { inter_container: false, ..network("apart", "10.89.3.0/24") };
    for net in [&front, &back, &inner, &apart] {
        lab.on_host(|networks| networks.create(net)).unwrap();
    }
    lab.container(&front, "a", "10.89.0.2/24", vec![]);
    let published = lab.publish("0.0.0.0", "80");
    lab.container(&back, "b", "10.89.1.2/24", vec![published]);
    lab.container(&inner, "i", "10.89.2.2/24", vec![]);
    lab.container(&inner, "j", "10.89.2.3/24", vec![]);
    lab.container(&apart, "x", "10.89.3.2/24", vec![]);
    lab.container(&apart, "y", "10.89.3.3/24", vec![]);
    let address = |third: u8, last: u8| Ipv4Addr::new(10, 89, third, last);
    let in_a = lab.serve("a", A, 0);
    let _in_b = lab.serve("b", address(1, 2), 80);
    let in_i = lab.serve("i", address(2, 2), 0);
    let in_x = lab.serve("x", address(3, 2), 0);
    let on_lan = lab.serve("lan", LAN, 0);

    lab.cannot_reach("b", A, in_a.port);
    lab.cannot_reach("a", address(1, 2), 80);
    // Its published port is open to every network that leads out.
    lab.reach("a", HOST, published.host_port);

    assert_eq!(lab.reach("j", address(2, 2), in_i.port), IpAddr::V4(address(2, 3)));
    // Even with a route that an attacker could add.
    lab.run("i", "ip route add default via 10.89.2.1");
    lab.cannot_reach("i", LAN, on_lan.port);
    lab.cannot_reach("i", A, in_a.port);
    lab.cannot_reach("a", address(2, 2), in_i.port);
    lab.cannot_reach("i", HOST, published.host_port);

    lab.cannot_reach("y", address(3, 2), in_x.port);
    // Nor through the host, past the bridge.
    lab.run("y", "ip route add 10.89.3.2/32 via 10.89.3.1");
    lab.cannot_reach("y", address(3, 2), in_x.port);
    lab.reach("y", LAN, on_lan.port);
}

#[test]
fn published_ports_answer_from_everywhere_they_should() {
    let Some(mut lab) = Lab::new("published_ports_answer_from_everywhere_they_should") else {
        return;
    };
    let net = network("front", "10.89.0.0/24");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    let web = lab.publish("0.0.0.0", "80");
    let dns = lab.publish("0.0.0.0", "53/udp");
    let a = lab.container(&net, "a", "10.89.0.2/24", vec![web, dns]);
    lab.container(&net, "b", "10.89.0.3/24", vec![]);
    let _web = lab.serve("a", A, 80);
    let _dns = lab.serve("a", A, 53);
    assert_eq!(
        lab.reach("lan", HOST, web.host_port),
        IpAddr::V4(LAN),
        "the client's address is kept"
    );
    assert_eq!(lab.reach("host", Ipv4Addr::LOCALHOST, web.host_port), IpAddr::V4(GATEWAY));
    assert_eq!(lab.reach("host", HOST, web.host_port), IpAddr::V4(GATEWAY));
    assert_eq!(lab.reach("b", HOST, web.host_port), IpAddr::V4(GATEWAY));
    assert_eq!(lab.reach("b", GATEWAY, web.host_port), IpAddr::V4(GATEWAY));
    assert_eq!(lab.reach("a", HOST, web.host_port), IpAddr::V4(GATEWAY));
    assert_eq!(lab.ask("lan", HOST, dns.host_port, 0), Some(IpAddr::V4(LAN)));
    assert_eq!(lab.ask("host", Ipv4Addr::LOCALHOST, dns.host_port, 0), Some(IpAddr::V4(GATEWAY)));
    assert_eq!(lab.ask("b", HOST, dns.host_port, 0), Some(IpAddr::V4(GATEWAY)));

    lab.on_host(|networks| networks.disconnect(&net, &a)).into_result().unwrap();
    lab.cannot_reach("lan", HOST, web.host_port);
    lab.cannot_reach("host", Ipv4Addr::LOCALHOST, web.host_port);
}

#[test]
fn a_port_published_on_loopback_stays_there() {
    let Some(mut lab) = Lab::new("a_port_published_on_loopback_stays_there") else { return };
    let net = network("front", "10.89.0.0/24");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    let web = lab.publish("127.0.0.1", "80");
    let a = lab.container(&net, "a", "10.89.0.2/24", vec![web]);
    let _web = lab.serve("a", A, 80);
    let secret = lab.serve("host", Ipv4Addr::LOCALHOST, 0);
    // A peer that sends packets for 127.0.0.1 and for the container to us.
    lab.run("lan", "ip route add 10.89.0.0/24 via 192.0.2.1");
    for (namespace, gateway) in [("lan", "192.0.2.1"), ("a", "10.89.0.1")] {
        lab.run(namespace, "ip address del 127.0.0.1/8 dev lo");
        lab.run(namespace, &format!("ip route add 127.0.0.0/8 via {gateway}"));
        lab.run(namespace, "sysctl -q net.ipv4.conf.all.route_localnet=1");
    }
    let attack = |lab: &Lab| {
        lab.reach("host", Ipv4Addr::LOCALHOST, web.host_port);
        lab.cannot_reach("lan", Ipv4Addr::LOCALHOST, web.host_port);
        lab.cannot_reach("lan", HOST, web.host_port);
        lab.cannot_reach("lan", A, 80);
        lab.cannot_reach("lan", Ipv4Addr::LOCALHOST, secret.port);
        lab.cannot_reach("a", Ipv4Addr::LOCALHOST, secret.port);
    };
    attack(&lab);
    // Without rules the attacks work, so the test means something.
    lab.run("host", "nft flush ruleset");
    lab.reach("lan", A, 80);
    lab.reach("a", Ipv4Addr::LOCALHOST, secret.port);
    let problems = lab.on_host(|networks| networks.diagnose()).unwrap();
    assert!(problems.iter().any(|problem| problem.kind == ProblemKind::TableMissing));
    lab.sync(&[NetworkState { network: net, endpoints: vec![a] }]);
    attack(&lab);
}

#[test]
fn ranges_are_published_as_one_element() {
    let Some(mut lab) = Lab::new("ranges_are_published_as_one_element") else { return };
    let net = network("front", "10.89.0.0/24");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    let kept = (20_000..21_000).map(|port| mapping("0.0.0.0", port, port, Protocol::Tcp));
    let shifted =
        (0..10).map(|index| mapping("192.0.2.1", 30_000 + index, 8000 + index, Protocol::Tcp));
    let a = lab.container(&net, "a", "10.89.0.2/24", kept.chain(shifted).collect());
    let (_first, _last) = (lab.serve("a", A, 20_000), lab.serve("a", A, 20_999));
    let _shifted = lab.serve("a", A, 8009);
    lab.reach("lan", HOST, 20_000);
    lab.reach("lan", HOST, 20_999);
    lab.reach("lan", HOST, 30_009);
    lab.cannot_reach("host", Ipv4Addr::LOCALHOST, 30_009);
    lab.cannot_reach("lan", HOST, 21_000);
    let rules = lab.run("host", "nft list ruleset");
    assert_eq!(rules.matches("20000-20999").count(), 1, "{rules}");
    lab.on_host(|networks| networks.disconnect(&net, &a)).into_result().unwrap();
    lab.cannot_reach("lan", HOST, 20_000);
    lab.on_host(|networks| networks.remove(&net)).into_result().unwrap();
    lab.assert_clean();
}

#[test]
fn a_udp_client_follows_a_port_to_its_new_owner() {
    let Some(mut lab) = Lab::new("a_udp_client_follows_a_port_to_its_new_owner") else { return };
    let net = network("front", "10.89.0.0/24");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    let port = mapping("0.0.0.0", 5300, 53, Protocol::Udp);
    let a = lab.container(&net, "a", "10.89.0.2/24", vec![port]);
    {
        let _in_a = lab.serve("a", A, 53);
        assert!(lab.ask("lan", HOST, 5300, 40_000).is_some());
    }
    lab.on_host(|networks| networks.disconnect(&net, &a)).into_result().unwrap();
    lab.container(&net, "b", "10.89.0.3/24", vec![port]);
    let _in_b = lab.serve("b", B, 53);
    // The same client socket address: its flow was tracked to the first container.
    assert!(lab.ask("lan", HOST, 5300, 40_000).is_some());
}

#[test]
fn synchronising_keeps_connections_and_repairs_everything() {
    let Some(mut lab) = Lab::new("synchronising_keeps_connections_and_repairs_everything") else {
        return;
    };
    let (front, back) = (network("front", "10.89.0.0/24"), network("back", "10.89.1.0/24"));
    for net in [&front, &back] {
        lab.on_host(|networks| networks.create(net)).unwrap();
    }
    let web = lab.publish("0.0.0.0", "80");
    let a = lab.container(&front, "a", "10.89.0.2/24", vec![web]);
    let b = lab.container(&back, "b", "10.89.1.2/24", vec![]);
    let listener = netns::run_in(&a.netns, || Ok(TcpListener::bind((A, 80)).unwrap())).unwrap();
    let mut client =
        netns::run_in(&lab.path("lan"), || Ok(TcpStream::connect((HOST, web.host_port)).unwrap()))
            .unwrap();
    let mut served = listener.accept().unwrap().0;
    drop(listener);
    let _web = lab.serve("a", A, 80);
    let before = lab.run("host", "nft list ruleset");
    let state = [
        NetworkState { network: front.clone(), endpoints: vec![a.clone()] },
        NetworkState { network: back.clone(), endpoints: vec![b.clone()] },
    ];
    lab.sync(&state);
    assert_eq!(
        lab.run("host", "nft list ruleset"),
        before,
        "the incremental table equals the rebuilt one"
    );
    assert!(before.contains("\"br-front\""), "{before}");
    assert!(lab.on_host(|networks| networks.is_intact()).unwrap());
    lab.run("host", "nft flush table inet brig-test");
    assert!(!lab.on_host(|networks| networks.is_intact()).unwrap());
    lab.sync(&state);
    assert!(lab.on_host(|networks| networks.is_intact()).unwrap());
    assert_eq!(lab.run("host", "nft list ruleset"), before);
    lab.reach("lan", HOST, web.host_port);
    client.write_all(b"still").unwrap();
    let mut heard = [0; 5];
    served.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    served.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still");

    let swept = lab.on_host(|networks| networks.sweep(&state));
    assert!(swept.removed.is_empty() && swept.errors.is_empty(), "{swept:?}");
    let swept = lab.on_host(|networks| networks.sweep(&state[..1]));
    assert!(swept.errors.is_empty(), "{swept:?}");
    assert_eq!(swept.removed.len(), 2, "{swept:?}");
    lab.reach("lan", HOST, web.host_port);
}

#[test]
fn creating_and_connecting_again_repairs() {
    let Some(mut lab) = Lab::new("creating_and_connecting_again_repairs") else { return };
    let net = network("front", "10.89.0.0/24");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    let ports = (100..103).map(|port| mapping("0.0.0.0", port, 80, Protocol::Tcp));
    let a = lab.container(
        &net,
        "a",
        "10.89.0.2/24",
        ports.chain([mapping("127.0.0.1", 200, 80, Protocol::Udp)]).collect(),
    );
    let before = lab.run("host", "nft list ruleset");
    lab.on_host(|networks| {
        networks.create(&net).unwrap();
        networks.connect(&net, &a).unwrap();
    });
    assert_eq!(lab.run("host", "nft list ruleset"), before);
    let _web = lab.serve("a", A, 80);
    lab.reach("lan", HOST, 102);
    // A firewall that somebody else emptied comes back with the next network.
    lab.run("host", "nft flush ruleset");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    lab.cannot_reach("lan", A, 80);
    // Disconnecting when the rules and the namespace are gone already.
    netns::remove(&a.netns).unwrap();
    lab.on_host(|networks| networks.disconnect(&net, &a)).into_result().unwrap();
    lab.on_host(|networks| networks.remove(&net)).into_result().unwrap();
    lab.assert_clean();
}

#[test]
fn a_failed_connection_leaves_nothing() {
    let Some(mut lab) = Lab::new("a_failed_connection_leaves_nothing") else { return };
    let net = network("front", "10.89.0.0/24");
    let path = lab.namespace("a");
    let mut endpoint = Endpoint::new("a", &path, "10.89.0.2/24".parse().unwrap());
    let refused = |lab: &Lab, endpoint: &Endpoint| {
        lab.on_host(|networks| networks.connect(&net, endpoint)).unwrap_err()
    };
    let error = refused(&lab, &endpoint);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("its bridge br-front is missing"), "{error}");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    endpoint.netns = lab.path("missing");
    assert_eq!(refused(&lab, &endpoint).kind(), ErrorKind::NotFound);
    endpoint.netns = path;
    lab.run("a", "ip link add eth0 type bridge");
    assert_eq!(refused(&lab, &endpoint).kind(), ErrorKind::AlreadyExists);
    let taken = [mapping("0.0.0.0", 90, 80, Protocol::Tcp)];
    lab.container(&net, "b", "10.89.0.3/24", taken.to_vec());
    lab.run("a", "ip link del eth0");
    endpoint.ports = vec![mapping("0.0.0.0", 90, 81, Protocol::Tcp)];
    let error = refused(&lab, &endpoint);
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("published port 0.0.0.0:90"), "{error}");
    assert_eq!(lab.run("host", "ip -o link show type veth").lines().count(), 2, "uplink and b's");
    // What failed took nothing from the one that has it.
    let _web = lab.serve("b", B, 80);
    lab.reach("lan", HOST, 90);
}

#[test]
fn a_container_in_two_networks_leaves_through_the_chosen_one() {
    let Some(mut lab) = Lab::new("a_container_in_two_networks_leaves_through_the_chosen_one")
    else {
        return;
    };
    let (front, back) = (network("front", "10.89.0.0/24"), network("back", "10.89.1.0/24"));
    for net in [&front, &back] {
        lab.on_host(|networks| networks.create(net)).unwrap();
    }
    let mut a = lab.container(&front, "a", "10.89.0.2/24", vec![]);
    let mut second = Endpoint::new("a", &a.netns, "10.89.1.2/24".parse().unwrap());
    second.interface = InterfaceName::ethernet(1);
    lab.on_host(|networks| networks.connect(&back, &second)).unwrap();
    assert!(lab.run("a", "ip route show default").contains("via 10.89.0.1 dev eth0"));
    second.gateway = Some("10.89.1.1".parse().unwrap());
    lab.on_host(|networks| networks.set_default_route(&second)).unwrap();
    assert_eq!(lab.run("a", "ip route show default").trim(), "default via 10.89.1.1 dev eth1");
    let on_lan = lab.serve("lan", LAN, 0);
    assert_eq!(lab.reach("a", LAN, on_lan.port), IpAddr::V4(HOST));
    a.gateway = None;
    assert!(lab.on_host(|networks| networks.set_default_route(&a)).is_err());
}

#[test]
fn many_containers_connect_at_once() {
    let Some(mut lab) = Lab::new("many_containers_connect_at_once") else { return };
    let net = network("front", "10.89.0.0/24");
    let endpoints: Vec<_> = (2..34_u8)
        .map(|last| {
            let netns = lab.namespace(&format!("c{last}"));
            let mut endpoint = Endpoint::new(
                format!("c{last}"),
                netns,
                format!("10.89.0.{last}/24").parse().unwrap(),
            );
            endpoint.ports = vec![mapping("0.0.0.0", 1000 + u16::from(last), 80, Protocol::Tcp)];
            endpoint
        })
        .collect();
    lab.on_host(|networks| networks.create(&net)).unwrap();
    let (lab, net) = (&lab, &net);
    std::thread::scope(|scope| {
        for chunk in endpoints.chunks(4) {
            scope.spawn(move || {
                for endpoint in chunk {
                    lab.on_host(|networks| networks.connect(net, endpoint)).unwrap();
                }
            });
        }
    });
    let _last = lab.serve("c33", Ipv4Addr::new(10, 89, 0, 33), 80);
    lab.reach("c2", Ipv4Addr::new(10, 89, 0, 33), 80);
    lab.reach("host", HOST, 1033);
    std::thread::scope(|scope| {
        for chunk in endpoints.chunks(4) {
            scope.spawn(move || {
                for endpoint in chunk {
                    lab.on_host(|networks| networks.disconnect(net, endpoint))
                        .into_result()
                        .unwrap();
                }
            });
        }
    });
    lab.on_host(|networks| networks.remove(net)).into_result().unwrap();
    lab.assert_clean();
}

#[test]
fn foreign_forward_policies_are_reported() {
    let Some(lab) = Lab::new("foreign_forward_policies_are_reported") else { return };
    let net = network("front", "10.89.0.0/24");
    lab.on_host(|networks| networks.create(&net)).unwrap();
    assert_eq!(lab.on_host(|networks| networks.diagnose()).unwrap(), []);
    lab.run("host", "nft add table ip filter");
    lab.run(
        "host",
        "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
    );
    let problems = lab.on_host(|networks| networks.diagnose()).unwrap();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].kind, ProblemKind::ForeignPolicy);
    assert!(problems[0].text.contains("chain FORWARD of nft table ip filter"), "{}", problems[0]);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let Some(lab) = Lab::new("what_is_not_ours_is_left_alone") else { return };
    let mut net = network("front", "10.89.0.0/24");
    lab.run("host", "ip link add br-front type veth peer name other");
    let error = lab.on_host(|networks| networks.create(&net)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("br-front is no bridge"), "{error}");
    // A bridge that the user made is used, and survives.
    lab.run("host", "ip link add mybridge type bridge");
    net.bridge = Some("mybridge".to_owned().try_into().unwrap());
    lab.on_host(|networks| networks.create(&net)).unwrap();
    lab.on_host(|networks| networks.remove(&net)).into_result().unwrap();
    lab.run("host", "ip link show mybridge");
}

#[test]
fn the_resolver_is_reached_at_port_53_beside_the_containers_own() {
    let Some(mut lab) = Lab::new("the_resolver_is_reached_at_port_53_beside_the_containers_own")
    else {
        return;
    };
    let path = lab.namespace("a");
    let own = lab.serve("a", Ipv4Addr::UNSPECIFIED, 53);
    for _ in 0..2 {
        let sockets = dns::bind(&path).unwrap();
        sockets.udp.set_nonblocking(false).unwrap();
        sockets.tcp.set_nonblocking(false).unwrap();
        let (sender, stream) = netns::run_in(&path, || {
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"query", (dns::ADDRESS, 53)).unwrap();
            Ok((sender, TcpStream::connect((dns::ADDRESS, 53)).unwrap()))
        })
        .unwrap();
        let mut buffer = [0; 16];
        let (length, from) = sockets.udp.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"query");
        sockets.udp.send_to(b"answer", from).unwrap();
        let (length, seen) = sender.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..length], seen.to_string().as_str()),
            (&b"answer"[..], "127.0.0.11:53")
        );
        let (_, client) = sockets.tcp.accept().unwrap();
        assert_eq!(client, stream.local_addr().unwrap());
    }
    lab.reach("a", Ipv4Addr::LOCALHOST, own.port);
}

#[test]
fn a_namespace_is_made_and_removed_any_number_of_times() {
    let Some(mut lab) = Lab::new("a_namespace_is_made_and_removed_any_number_of_times") else {
        return;
    };
    let path = lab.namespace("x");
    netns::create(&path).unwrap();
    assert!(lab.run("x", "ip -o link show dev lo").contains("LOWER_UP"));
    netns::remove(&path).unwrap();
    netns::remove(&path).unwrap();
    assert!(!path.exists());
    // What a crash or a reboot leaves: a file without a mount.
    std::fs::write(&path, "").unwrap();
    assert_eq!(netns::run_in(&path, || Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
    netns::create(&path).unwrap();
    netns::run_in(&path, || Ok(())).unwrap();
    // But no file of somebody else.
    let foreign = lab.path("foreign");
    std::fs::write(&foreign, "data").unwrap();
    assert_eq!(netns::create(&foreign).unwrap_err().kind(), ErrorKind::AlreadyExists);
}
