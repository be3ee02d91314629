//! Networks: create, ls, inspect, connect, disconnect, rm, prune.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use support::engine::Engine;

use super::{is_id, refused};

#[test]
fn networks_are_made_listed_and_removed_as_scripts_expect() {
    let Some(engine) = Engine::start("cli-network") else { return };
    engine.load_busybox();
    let options = ["--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254", "--label", "tier=web"];
    let id = engine.docker(&[&["network", "create"][..], &options, &["ours"]].concat()).success();
    assert!(is_id(&id), "{id}");
    let _ = engine.docker(&["network", "create", "--internal", "closed"]).success();
    refused(
        &engine.docker(&["network", "create", "ours"]),
        1,
        &["network with name ours already exists"],
    );
    refused(
        &engine.docker(&["network", "create", "--subnet", "10.77.0.0/16", "overlap"]),
        1,
        &["overlaps"],
    );
    refused(&engine.docker(&["network", "create", "--driver", "nosuch", "x"]), 1, &["nosuch"]);

    assert_list(&engine, &id);
    assert_members(&engine, &id);
    assert_removal(&engine);
}

fn assert_list(engine: &Engine, id: &str) {
    let format = "{{.Name}} {{.Driver}} {{.Scope}}";
    let list = engine.docker(&["network", "ls", "--format", format]).success();
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    let expected = [
        "bridge bridge local",
        "closed bridge local",
        "host host local",
        "none null local",
        "ours bridge local",
    ];
    assert_eq!(lines, expected);
    let header = engine.docker(&["network", "ls"]).success();
    let header: Vec<&str> = header.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    for (filter, names) in [
        ("label=tier=web", "ours"),
        ("type=custom", "closed ours"),
        ("name=lose", "closed"),
        ("driver=host", "host"),
    ] {
        let shown = engine
            .docker(&["network", "ls", "--filter", filter, "--format", "{{.Name}}"])
            .success();
        let mut shown: Vec<&str> = shown.lines().collect();
        shown.sort_unstable();
        assert_eq!(shown.join(" "), names, "{filter}");
    }
    assert_eq!(
        engine.docker(&["network", "ls", "-q", "--no-trunc", "--filter", "name=ours"]).success(),
        id
    );
}

/// What inspect shows of both networks, and of a container in one.
fn assert_members(engine: &Engine, id: &str) {
    let inspect = |template: &str, name: &str| {
        engine.docker(&["network", "inspect", "-f", template, name]).success()
    };
    assert_eq!(
        inspect("{{.Id}} {{.Internal}} {{.Attachable}} {{.EnableIPv6}}", "ours"),
        format!("{id} false false false")
    );
    assert_eq!(
        inspect("{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}", "ours"),
        "10.77.0.0/24 10.77.0.254"
    );
    assert_eq!(inspect("{{.Internal}} {{.Name}}", "closed"), "true closed");
    let run =
        "run -d --name box --network ours --ip 10.77.0.9 --network-alias alias busybox sleep 1000";
    let words: Vec<&str> = run.split(' ').collect();
    let container = engine.docker(&words).success();
    assert_eq!(
        inspect(
            "{{range $id, $c := .Containers}}{{$id}} {{$c.Name}} {{$c.IPv4Address}}{{end}}",
            "ours"
        ),
        format!("{container} box 10.77.0.9/24")
    );
    let template = "{{with .NetworkSettings.Networks.ours}}{{.IPAddress}} {{.Gateway}}{{end}}";
    assert_eq!(engine.inspect("box", template), "10.77.0.9 10.77.0.254");
}

fn assert_removal(engine: &Engine) {
    let used = engine.docker(&["network", "rm", "ours"]);
    refused(
        &used,
        1,
        &["error while removing network: network ours", "has active endpoints (name:\"box\""],
    );
    assert_eq!(engine.docker(&["network", "connect", "closed", "box"]).success(), "");
    assert_eq!(
        engine.docker(&["exec", "box", "sh", "-c", "ls /sys/class/net | wc -l"]).success(),
        "3"
    );
    let twice = engine.docker(&["network", "connect", "closed", "box"]);
    refused(&twice, 1, &["already exists in network closed"]);
    assert_eq!(engine.docker(&["network", "disconnect", "ours", "box"]).success(), "");
    refused(&engine.docker(&["network", "disconnect", "ours", "box"]), 1, &["is not connected to"]);
    assert_eq!(engine.docker(&["network", "rm", "ours"]).success(), "ours");
    refused(&engine.docker(&["network", "rm", "ours"]), 1, &["network ours not found"]);
    refused(&engine.docker(&["network", "inspect", "ours"]), 1, &["network ours not found"]);
    refused(
        &engine.docker(&["network", "rm", "bridge"]),
        1,
        &["bridge is a pre-defined network and cannot be removed"],
    );
    let _ = engine.docker(&["rm", "-f", "box"]).success();
    assert_eq!(engine.docker(&["network", "prune", "-f"]).success(), "Deleted Networks:\nclosed");
}
