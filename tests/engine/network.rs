//! Networks, published ports and names.

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
