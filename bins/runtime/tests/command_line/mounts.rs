//! Mounts that come and go while a container runs.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::text;

fn change(bundle: &Bundle, verb: &str, mounts: &Value) -> (bool, String) {
    let file = bundle.directory.join("mounts.json");
    std::fs::write(&file, mounts.to_string()).unwrap();
    let output = bundle.call(&["mounts", verb, &bundle.id, &file.display().to_string()]);
    (output.status.success(), text(&output.stderr))
}

fn inside(bundle: &Bundle, script: &str) -> String {
    text(&bundle.call(&["exec", &bundle.id, "sh", "-c", script]).stdout)
}

fn comes_and_goes(test: &str, edit: impl FnOnce(&mut Value)) {
    let Some(bundle) = Bundle::new(test) else { return };
    bundle.edit(|config| {
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["root"]["readonly"] = json!(false);
        edit(config);
    });
    bundle.link(&["mkdir", "ln", "touch", "stat"]);
    let data = bundle.directory.join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "hello\n").unwrap();
    let mut run = bundle.command(&["run", "-d", "-b", &bundle.path(), &bundle.id]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let mounts = json!([
        {"destination": "/a/data", "type": "bind", "source": data, "options": ["bind", "ro"]},
        {"destination": "/a/one", "source": data.join("file"), "options": ["rbind"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}
    ]);
    let script = "cat /a/data/file /a/one; touch /a/data/x 2>/dev/null || echo read-only; \
                  touch /scratch/x && stat -c %u /scratch";
    assert_eq!(change(&bundle, "add", &mounts), (true, String::new()));
    assert_eq!(inside(&bundle, script), "hello\nhello\nread-only\n0\n");
    let whole = json!({"mounts": mounts});
    assert_eq!(change(&bundle, "remove", &whole), (true, String::new()));
    assert_eq!(inside(&bundle, "cat /a/data/file /a/one; ls /scratch"), "");
    let (done, message) = change(&bundle, "remove", &mounts);
    assert!(!done && message.contains("unmount \"/a/data\""), "{message}");

    // A link in the container leads nowhere else, and what fails leaves nothing.
    inside(&bundle, "ln -s /../../../tmp /escape");
    let name = format!("{}-escape", bundle.id);
    let escaping = json!([
        {"destination": "/a/data", "type": "bind", "source": data, "options": ["bind"]},
        {"destination": format!("/escape/{name}"), "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/no", "type": "tmpfs", "source": "x", "options": ["frobnicate"]}
    ]);
    let (done, message) = change(&bundle, "add", &escaping);
    assert!(!done && message.contains("/no"), "{message}");
    assert!(!std::env::temp_dir().join(name).exists());
    assert_eq!(inside(&bundle, "cat /a/data/file"), "");
    let proc = json!([{"destination": "/p", "type": "proc", "source": "proc"}]);
    let (done, message) = change(&bundle, "add", &proc);
    assert!(!done && message.contains("only bind and tmpfs can be added"), "{message}");
}

#[test]
fn mounts_come_and_go_in_a_running_container() {
    comes_and_goes("mounts_come_and_go_in_a_running_container", |_| {});
}

#[test]
fn mounts_come_and_go_in_a_user_namespace() {
    comes_and_goes("mounts_come_and_go_in_a_user_namespace", |config| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
    });
}
