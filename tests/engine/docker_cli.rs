//! The real docker command line does with brigd what it does with dockerd.

use rustix::process::Signal;
use support::engine::{Background, Engine, Registry, eventually};

#[test]
fn a_pull_that_takes_long_keeps_nobody_waiting() {
    let Some(engine) = Engine::start("slow-pull") else { return };
    let Some(registry) = Registry::start(&engine, "slow-pull") else { return };
    engine.load_busybox();
    let name = registry.image("busybox");
    let _ = engine.docker(&["tag", "busybox", &name]).success();
    let _ = engine.docker(&["push", &name]).success();
    let _ = engine.docker(&["rmi", &name]).success();
    let _ = engine.docker(&["tag", "busybox", "other"]).success();
    registry.server.signal(Signal::STOP);
    let mut pull = Background::start(engine.docker_command(&["pull", &name]));
    eventually("the connection to the registry", || {
        let connections = engine.on_host(&["ss", "-tn", "state", "established"]).success();
        connections.contains(":5000").then_some(())
    });
    assert_eq!(engine.docker(&["rmi", "other"]).code, Some(0));
    assert!(engine.docker(&["images"]).success().contains("busybox"));
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "hi"]).success(), "hi");
    registry.server.signal(Signal::CONT);
    let (code, output) = pull.finish();
    assert_eq!(code, Some(0), "{output}");
    assert!(engine.docker(&["images", "-q", &name]).success().len() == 12);
}
