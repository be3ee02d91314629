//! Layers of images on disk: pulled at the same time, as directories and as EROFS images, and removed behind.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot be set up fails or says so"
)]

use std::fs;
use std::path::Path;

use brig_storage::{ErrorKind, Format, Storage};
use support::engine::{Engine, Registry, busybox_layer, eventually, pack_image};

/// Layers on top of busybox.
const LAYERS: usize = 7;
/// Files in each of them.
const FILES: usize = 400;

/// One layer: files of its own, and what it does to those of the layer below.
fn layer(number: usize) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |path: String, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        layer.append_data(&mut header, path, data).unwrap();
    };
    for file in 0..FILES {
        // Hardly to be compressed, so that a layer takes a while to arrive.
        let text: String =
            (0..200).map(|at| format!("{:x}", (file * 7919 + at * number) ^ at)).collect();
        add(format!("data/{number}/{file}"), text.as_bytes());
    }
    add("data/newest".into(), number.to_string().as_bytes());
    if number > 1 {
        add(format!("data/{}/.wh.0", number - 1), b"");
    }
    if number == LAYERS {
        add("data/1/.wh..wh..opq".into(), b"");
        add("data/1/alone".into(), b"");
    }
    layer.into_inner().unwrap()
}

/// What a container of the image must find.
const LOOK: &str =
    "cat /data/newest; ls /data/1; for i in 2 3 4 5 6 7; do ls /data/$i | wc -l; done";
const FOUND: &str = "7alone\n399\n399\n399\n399\n399\n400";

/// Puts the image into a registry and out of the engine.
fn push_layered(engine: &Engine, registry: &Registry) -> String {
    let mut layers = vec![busybox_layer()];
    layers.extend((1..=LAYERS).map(layer));
    let archive = engine.path("layered.tar");
    let name = registry.image("layered");
    pack_image(&archive, &name, &layers);
    let _ = engine.docker(&["load", "-i", &archive.to_string_lossy()]).success();
    let _ = engine.docker(&["push", &name]).success();
    let _ = engine.docker(&["rmi", &name]).success();
    name
}

fn snapshots(engine: &Engine) -> Vec<String> {
    let entries = fs::read_dir(engine.path("root/storage/snapshots")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn nothing_is_left(engine: &Engine) {
    eventually("the layers to be deleted", || snapshots(engine).is_empty().then_some(()));
}

#[test]
fn layers_are_pulled_at_the_same_time_and_a_killed_pull_is_taken_up() {
    let test = "layers";
    let Some(mut engine) = Engine::start(test) else { return };
    let Some(registry) = Registry::start(&engine, test) else { return };
    let name = push_layered(&engine, &registry);
    nothing_is_left(&engine);
    // Killed as soon as something of it is on disk, wherever that is.
    let mut pull = support::engine::Background::start(engine.docker_command(&["pull", &name]));
    eventually("the first layer", || (!snapshots(&engine).is_empty()).then_some(()));
    engine.crash();
    let _ = pull.finish();
    engine.restart();
    let _ = engine.docker(&["pull", &name]).success();
    assert_eq!(engine.docker(&["run", "--rm", &name, "sh", "-c", LOOK]).success(), FOUND);
    // What was committed without waiting for the disk is there after a kill of the engine, and is settled by the next.
    engine.crash_and_restart();
    assert_eq!(engine.docker(&["run", "--rm", &name, "sh", "-c", LOOK]).success(), FOUND);
    let records = |name: &str| {
        let find = engine.on_host(&["find", &engine.path("root").to_string_lossy(), "-name", name]);
        find.success().lines().count()
    };
    eventually("the layers to be on disk", || {
        (records("unsettled.json") == 0 && records("record.json") == LAYERS + 1).then_some(())
    });
    let _ = engine.docker(&["rmi", &name]).success();
    nothing_is_left(&engine);
}

#[test]
fn a_removal_that_was_cut_off_is_gone_on_with() {
    let Some(mut engine) = Engine::start("removal") else { return };
    engine.load_busybox();
    let present = snapshots(&engine);
    let [layer] = present.as_slice() else { panic!("{present:?}") };
    let place = engine.path("root/storage/snapshots");
    let record = place.join(layer).join("record.json");
    let record = eventually("the layer to be on disk", || fs::read_to_string(&record).ok());
    engine.crash();
    // As a kill between the rename and the deletion leaves it.
    fs::create_dir_all(place.join("removing-70/fs/usr/lib")).unwrap();
    fs::write(place.join("removing-70/fs/usr/lib/file"), "x").unwrap();
    fs::write(place.join("removing-70/record.json"), record).unwrap();
    engine.restart();
    eventually("the removal", || (snapshots(&engine) == present).then_some(()));
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "here"]).success(), "here");
}

/// Whether this kernel mounts EROFS images from files; says why not.
fn has_erofs(test: &str, place: &Path) -> bool {
    match Storage::open_with(place, Format::Erofs) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("SKIPPED {test}: {error}");
            false
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn containers_run_from_erofs_images() {
    let (test, probe) = ("erofs", tempfile::tempdir().unwrap());
    if !has_erofs(test, probe.path()) {
        return;
    }
    let Some(mut engine) = Engine::start_with(test, "snapshotter = \"erofs\"") else { return };
    let Some(registry) = Registry::start(&engine, test) else { return };
    assert_eq!(engine.docker(&["info", "-f", "{{.Driver}}"]).success(), "erofs");
    let name = push_layered(&engine, &registry);
    nothing_is_left(&engine);
    let _ = engine.docker(&["pull", &name]).success();
    assert_eq!(engine.docker(&["run", "--rm", &name, "sh", "-c", LOOK]).success(), FOUND);
    let _ = engine.docker(&["run", "-d", "--name", "box", &name, "sleep", "1000"]).success();
    let write = "echo changed > /data/newest && rm -r /data/2";
    let _ = engine.docker(&["exec", "box", "sh", "-c", write]).success();
    let changes = engine.docker(&["diff", "box"]).success();
    assert_eq!(changes, "C /data\nD /data/2\nC /data/newest");
    // The mounts of a killed engine are taken over, and those of running containers are their own.
    engine.crash_and_restart();
    assert_eq!(engine.docker(&["exec", "box", "cat", "/data/newest"]).success(), "changed");
    assert_eq!(engine.docker(&["run", "--rm", &name, "sh", "-c", LOOK]).success(), FOUND);
    // An engine that keeps directories goes on with the images that are there.
    engine.shut_down();
    let config = engine.path("config.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, settings.replace("snapshotter = \"erofs\"", "")).unwrap();
    engine.restart();
    engine.load_busybox();
    assert_eq!(engine.docker(&["run", "--rm", &name, "sh", "-c", LOOK]).success(), FOUND);
    assert_eq!(engine.docker(&["exec", "box", "cat", "/data/newest"]).success(), "changed");
    let _ = engine.docker(&["rm", "-f", "box"]).success();
    let _ = engine.docker(&["rmi", &name, "busybox"]).success();
    nothing_is_left(&engine);
}
