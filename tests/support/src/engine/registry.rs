//! Debian's registry, on loopback in the engine's network namespace.

use std::fs;

use super::{Background, Engine, eventually};

/// The namespace is the engine's own, so that the port is free.
const ADDRESS: &str = "127.0.0.1:5000";

/// A running registry; it ends with this.
#[derive(Debug)]
pub struct Registry {
    /// Its process, to be stopped and continued.
    pub server: Background,
}

impl Registry {
    /// Starts a registry, or says why the test is skipped.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub fn start(engine: &Engine, test: &str) -> Option<Self> {
        let installed = engine.on_host(&["sh", "-c", "command -v docker-registry"]).code == Some(0);
        if !installed {
            eprintln!("SKIPPED {test}: docker-registry is not installed");
            return None;
        }
        let (config, data) = (engine.path("registry.yml"), engine.path("registry"));
        let settings = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{ADDRESS}\"}}\n",
            data.display()
        );
        fs::write(&config, settings).unwrap();
        let words = ["docker-registry", "serve", &config.to_string_lossy()];
        let server = Background::start(engine.host_command(&words));
        let probe = format!("http://{ADDRESS}/v2/");
        eventually("the registry", || {
            (engine.on_host(&["curl", "-sf", &probe]).code == Some(0)).then_some(())
        });
        Some(Self { server })
    }

    /// The name of an image in it.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{ADDRESS}/{name}")
    }
}
