//! The command `-info`: what containerd asks a shim before it offers its runtime to anybody.

use std::io::{IsTerminal as _, Read as _};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use brig_shim_protocol::options::RuncOptions;
use brig_shim_protocol::types::{Any, RuntimeInfo, RuntimeVersion};
use prost::Message as _;

use crate::start::print;

/// `type_url` of OCI's `Features` in JSON, as containerd knows it.
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
/// Options and answers are small.
const BYTES_MAX: u64 = 1 << 20;

/// Prints a `RuntimeInfo`, by the options on standard input, if there are any.
pub(crate) fn info() -> Result<()> {
    let options = options()?;
    let runtime = match &options {
        Some(any) if any.is::<RuncOptions>() => any.unpack::<RuncOptions>()?.binary_name,
        Some(any) if !any.type_url.is_empty() => {
            bail!("options of type {} are not understood", any.type_url)
        }
        _ => String::new(),
    };
    let features = match runtime.as_str() {
        "" => Some(serde_json::to_vec(&brig_runtime::features::document())?),
        // One that has no such command is no worse a runtime; it only does not tell.
        program => features_of(program)?,
    };
    let version =
        RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..Default::default() };
    let info = RuntimeInfo {
        name: "io.containerd.brig.v1".to_owned(),
        version: Some(version),
        options,
        features: features.map(|value| Any { type_url: FEATURES_TYPE.to_owned(), value }),
        ..RuntimeInfo::default()
    };
    print(&info.encode_to_vec())
}

fn options() -> Result<Option<Any>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    input.lock().take(BYTES_MAX).read_to_end(&mut bytes).context("read options")?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Any::decode(&*bytes).map(Some).context("parse the options on standard input")
}

/// What another runtime says of itself; nothing when it has no such command, as runc before 1.1.
fn features_of(program: &str) -> Result<Option<Vec<u8>>> {
    let mut command = Command::new(program);
    command.arg("features").stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {program} features"))?;
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(BYTES_MAX).read_to_end(&mut answer).context("read the runtime's features")?;
    }
    let status = child.wait().with_context(|| format!("wait for {program} features"))?;
    let is_json = serde_json::from_slice::<serde_json::Value>(&answer).is_ok();
    Ok((status.success() && is_json).then_some(answer))
}
