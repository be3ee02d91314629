//! The demonstration: the classic path of a container engine, with real parts, on this machine.
//!
//! It brings its own brigd (own root, state, socket, bridge, firewall table and cgroup), so that it can run beside an
//! installed one. An engine leaves its bridge and table for its containers when it ends; the demonstration has none
//! left, so it removes them and leaves the machine as it was.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tempfile::TempDir;

use crate::binaries::Profile;
use crate::leaks::Snapshot;
use crate::process::{self, command, output, require_root, show, step};
use crate::registry::Registry;
use crate::{binaries, image, packages};

/// What the demonstration's engine calls its bridge, table and cgroup.
const NAME: &str = "brig-demo";

/// Whether the kernel forwards packets, which an engine with published ports turns on.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// How long brigd may take to listen, and nginx to answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How the programs are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// The task.
pub(crate) fn run(options: &Options) -> Result<()> {
    demonstrate(options.profile)?;
    println!("\nThe machine is as it was. What to type next:\n");
    println!("  export PATH={}:$PATH", options.profile.tree().join("bin").display());
    println!(
        "  brig run -d -p 8080:80 nginx         # the same from a public registry, where one answers"
    );
    println!("  brig run -it --rm debian bash        # a shell in a container");
    Ok(())
}

/// Runs the demonstration and looks whether the machine is as it was.
pub(crate) fn demonstrate(profile: Profile) -> Result<()> {
    require_root("the demonstration (it runs containers)")?;
    packages::ensure(&["docker-registry", "mmdebstrap", "curl", "iproute2", "nftables"])?;
    let before = Snapshot::take();
    perform(profile)?;
    let leaks = before.grown(&Snapshot::take());
    if !leaks.is_empty() {
        bail!("the demonstration left something behind:\n  {}", leaks.join("\n  "));
    }
    Ok(())
}

fn perform(profile: Profile) -> Result<()> {
    let programs = profile.tree().join("bin");
    binaries::build(&programs, profile)?;
    let archive = image::debian(&image::nginx())?;
    let registry = Registry::start()?;
    let daemon = Daemon::start(&programs)?;
    let name = format!("{}/nginx", registry.address());

    step("Load the image, push it to a registry, forget it");
    daemon.show(&["load", "-i", &archive.to_string_lossy()])?;
    daemon.show(&["tag", "nginx:latest", &name])?;
    daemon.show(&["push", &name])?;
    daemon.show(&["rmi", "nginx:latest", &name])?;

    step("Run it: pulled, isolated, limited, published");
    let port = if free(8080) { 8080 } else { crate::registry::free_port()? };
    let publish = format!("{port}:80");
    daemon.show(&["run", "-d", "-p", &publish, "--memory", "256m", "--name", "web", &name])?;
    fetch(&format!("http://127.0.0.1:{port}/"))?;
    match own_address() {
        Some(address) => fetch(&format!("http://{address}:{port}/"))?,
        None => println!(
            "(this machine has no address but loopback, so the page was fetched there only)"
        ),
    }

    step("Look at it");
    daemon.show(&["ps"])?;
    daemon.show(&["logs", "web"])?;
    daemon.show(&["stats", "--no-stream"])?;
    daemon.show(&["exec", "web", "nginx", "-v"])?;

    step("Stop it and remove it");
    daemon.show(&["stop", "web"])?;
    daemon.show(&["rm", "web"])?;
    daemon.show(&["rmi", &name])?;
    Ok(())
}

/// A brigd of our own.
struct Daemon {
    process: Child,
    brig: PathBuf,
    socket: String,
    forwarding: Vec<u8>,
    _directory: TempDir,
}

impl Daemon {
    fn start(programs: &std::path::Path) -> Result<Self> {
        step("Start brigd");
        let directory =
            tempfile::Builder::new().prefix("brig-demo-").tempdir().context("make a directory")?;
        let path = directory.path().join("brig.sock");
        let socket = format!("unix://{}", path.display());
        let log = fs::File::create(directory.path().join("brigd.log")).context("create the log")?;
        let config = directory.path().join("config.toml");
        let text =
            format!("cgroup-parent = \"/{NAME}\"\nbridge = \"{NAME}\"\nnft-table = \"{NAME}\"\n");
        fs::write(&config, text).context("write the configuration")?;
        let forwarding = fs::read(FORWARDING).context("read ip_forward")?;
        let mut daemon = Command::new(programs.join("brigd"));
        daemon
            .arg("--root")
            .arg(directory.path().join("root"))
            .arg("--state")
            .arg(directory.path().join("state"))
            .args(["--host", &socket])
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        println!("$ {}", show(&daemon));
        let mut process = daemon.spawn().context("start brigd")?;
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            if process.try_wait().context("look at brigd")?.is_some() || Instant::now() > deadline {
                let log =
                    fs::read_to_string(directory.path().join("brigd.log")).unwrap_or_default();
                bail!("brigd did not start:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { process, brig: programs.join("brig"), socket, forwarding, _directory: directory })
    }

    fn brig(&self, words: &[&str]) -> Command {
        let mut command = command(&self.brig);
        command.args(["--host", &self.socket]).args(words);
        command
    }

    /// Types a command as an operator would, and shows what it prints.
    fn show(&self, words: &[&str]) -> Result<()> {
        println!("\n$ brig {}", words.join(" "));
        process::run(&mut self.brig(words))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self
            .brig(&["rm", "--force", "web"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Some(pid) =
            i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
        let quiet = |program: &str, words: &[&str]| {
            let _ =
                command(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        quiet("ip", &["link", "delete", NAME]);
        quiet("nft", &["delete", "table", "inet", NAME]);
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(NAME));
        }
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/{NAME}"));
        let _ = fs::write(FORWARDING, &self.forwarding);
    }
}

/// Fetches a page until the server answers; shows its title.
fn fetch(url: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = output(command("curl").args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--max-time",
            "5",
            url,
        ]));
        match page {
            Ok(page) => {
                let title =
                    page.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
                println!("$ curl {url}\n{}", title.unwrap_or("(no title)"));
                return Ok(());
            }
            Err(error) if Instant::now() > deadline => return Err(error.context("fetch the page")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// The address this machine would use to reach others; nothing is sent to learn it.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // A documentation address (RFC 5737): connecting a datagram socket only asks the routing table.
    socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}
