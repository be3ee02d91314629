//! Debian's docker-registry, in whatever network namespace a contestant lives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::peers::quiet;

const PATIENCE: Duration = Duration::from_secs(30);
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Where every contestant finds the images.
pub(crate) const PULL_PORT: u16 = 5000;
/// Where every contestant pushes to.
const PUSH_PORT: u16 = 5001;

/// The registries of one network namespace.
#[derive(Debug)]
pub(crate) struct Registries {
    /// Over the files that all namespaces share.
    pub(crate) source: Registry,
    /// For pushes.
    pub(crate) target: Registry,
}

impl Registries {
    /// Starts one over `images` and one over nothing; `own` is a directory for what they need.
    pub(crate) fn start(namespace: &Namespace, images: &Path, own: &Path) -> Result<Self> {
        let settings = own.join("settings.yml");
        fs::create_dir_all(own).context("make a directory for registries")?;
        Ok(Self {
            source: Registry::start(namespace, PULL_PORT, images, &settings)?,
            target: Registry::start(namespace, PUSH_PORT, &own.join("pushed"), &settings)?,
        })
    }
}

/// A running registry; it ends with this value.
#[derive(Debug)]
pub(crate) struct Registry {
    server: Child,
    namespace: Namespace,
    address: String,
    data: PathBuf,
}

impl Registry {
    /// Starts a registry over `data`, with a configuration that is written to `config` and needed at its start only.
    pub(crate) fn start(
        namespace: &Namespace,
        port: u16,
        data: &Path,
        config: &Path,
    ) -> Result<Self> {
        let address = format!("127.0.0.1:{port}");
        let settings = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}}}\nhttp: {{addr: \"{address}\"}}\n",
            data.display()
        );
        fs::create_dir_all(data).context("make the registry's directory")?;
        fs::write(config, settings).context("write the registry's configuration")?;
        let server = namespace
            .command("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start docker-registry (Debian's package)")?;
        let registry =
            Self { server, namespace: namespace.clone(), address, data: data.to_owned() };
        registry.wait_until_it_answers()?;
        Ok(registry)
    }

    /// The name of an image here.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Puts an archive of `docker save` here, compressed as skopeo compresses.
    pub(crate) fn take(&self, archive: &Path, name: &str) -> Result<()> {
        quiet(
            self.namespace
                .command("skopeo")
                .args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--quiet"])
                .arg(format!("docker-archive:{}", archive.display()))
                .arg(format!("docker://{}:latest", self.image(name))),
        )
    }

    /// Forgets all content. Debian's registry keeps nothing in memory of what is on disk.
    pub(crate) fn empty(&self) -> Result<()> {
        fs::remove_dir_all(&self.data).context("empty the registry")?;
        fs::create_dir_all(&self.data).context("empty the registry")
    }

    /// The compressed layers of an image: their digests and sizes in bytes.
    pub(crate) fn layers(&self, name: &str) -> Result<Vec<(String, u64)>> {
        let base = format!("http://{}/v2/{name}", self.address);
        let output = self
            .namespace
            .command("curl")
            .args(["-sfH", &format!("Accept: {MANIFEST}"), &format!("{base}/manifests/latest")])
            .output()
            .context("run curl")?;
        let manifest: Value = serde_json::from_slice(&output.stdout).context("read a manifest")?;
        let layers = manifest["layers"].as_array().context("a manifest has no layers")?;
        let layer = |layer: &Value| {
            let digest = layer["digest"].as_str().context("a layer has no digest")?;
            Ok((digest.to_owned(), layer["size"].as_u64().context("a layer has no size")?))
        };
        layers.iter().map(layer).collect()
    }

    /// Fetches and decompresses all layers of an image, one after the other, and does nothing with them.
    pub(crate) fn floor(&self, name: &str) -> Result<Command> {
        let base = format!("http://{}/v2/{name}", self.address);
        let fetch = |(digest, _): &(String, u64)| {
            format!("curl -sf {base}/blobs/{digest} | zcat > /dev/null")
        };
        let script: Vec<String> = self.layers(name)?.iter().map(fetch).collect();
        let mut command = self.namespace.command("sh");
        command.arg("-c").arg(script.join(" && "));
        Ok(command)
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let probe = format!("http://{}/v2/", self.address);
        loop {
            let answered = self.namespace.command("curl").args(["-sf", &probe]).output();
            if answered.context("run curl")?.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("docker-registry does not answer at {}", self.address);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A network namespace: the benchmark's own, or that of another process.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    holder: Option<u32>,
}

impl Namespace {
    pub(crate) fn ours() -> Self {
        Self { holder: None }
    }

    /// The one that a process is in.
    pub(crate) fn of(holder: u32) -> Self {
        Self { holder: Some(holder) }
    }

    fn command(&self, program: &str) -> Command {
        let Some(holder) = self.holder else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{holder}/ns/net")).arg(program);
        command
    }
}
