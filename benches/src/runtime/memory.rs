//! How little memory a container may be given.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bundle::Bundle;
use super::contender::Contender;

/// The largest limit that is tried, in KiB.
const MOST: u64 = 64 * 1024;
/// How exactly the limit is found, in KiB: a page.
const STEP: u64 = 4;
/// How often in a row a container must start with a limit.
const ATTEMPTS: usize = 3;
/// A runtime that does not notice that its container was killed is stopped.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// The smallest limit in KiB with which `true` starts, by bisection.
pub(super) fn smallest_limit(contender: &Contender, bundle: &Bundle) -> Result<f64> {
    let (mut too_small, mut enough) = (0, MOST);
    ensure!(starts(contender, bundle, MOST)?, "{}: not even with {MOST} KiB", contender.name);
    while enough - too_small > STEP {
        let middle = (too_small + enough) / 2 / STEP * STEP;
        if starts(contender, bundle, middle)? {
            enough = middle;
        } else {
            too_small = middle;
        }
    }
    eprintln!("{}: {enough} KiB", contender.name);
    Ok(f64::from(u32::try_from(enough).unwrap_or(u32::MAX)))
}

fn starts(contender: &Contender, bundle: &Bundle, kib: u64) -> Result<bool> {
    bundle.write("limited", &["/bin/true"], Some(kib * 1024))?;
    for _ in 0..ATTEMPTS {
        let id = contender.new_id();
        let started = succeeds(&mut contender.run_limited(bundle, &id, kib * 1024))?;
        if !started {
            contender.discard(&id);
            return Ok(false);
        }
    }
    Ok(true)
}

fn succeeds(command: &mut Command) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().context("wait for a runtime")? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill().context("stop a runtime")?;
            child.wait().context("wait for a runtime")?;
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}
