//! Loads an image from an archive and runs a command in it, with the engine inside this program: no daemon, no socket.
//!
//! ```text
//! cargo run -p engine-in-process -- ARCHIVE IMAGE COMMAND...
//! ```
//!
//! As root, with the shim (`containerd-shim-brig-v1`) beside this program. Everything is in a temporary directory. The exit
//! code is the command's.
#![expect(clippy::print_stdout, reason = "a program's output")]

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use brig_engine_api::stream::FrameDecoder;
use brig_manager::{
    Config, CreateContainer, Engine, ErrorKind, LogsRequest, RemoveOptions, WaitCondition,
};
use bytes::BytesMut;
use futures_util::TryStreamExt as _;
use tokio_util::io::ReaderStream;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(archive), Some(image)) = (arguments.next(), arguments.next()) else {
        return Err("usage: engine-in-process ARCHIVE IMAGE COMMAND...".into());
    };
    let directory = tempfile::tempdir()?;
    let engine = Engine::open(config(directory.path())?).await?;
    let code = run(&engine, &archive, image, arguments.collect()).await;
    engine.close().await;
    engine.networks.take_down().await?;
    Ok(ExitCode::from(u8::try_from(code?)?))
}

/// An engine that shares nothing with others on this machine.
fn config(directory: &std::path::Path) -> Result<Config, Box<dyn Error>> {
    let mut config = Config::new(directory.join("root"), directory.join("state"));
    config.shim = std::env::current_exe()?.with_file_name("containerd-shim-brig-v1");
    config.cgroup_parent = format!("/engine-in-process-{}", std::process::id());
    config.nft_table = format!("engine-{}", std::process::id());
    config.bridge = format!("engine{}", std::process::id());
    Ok(config)
}

async fn run(
    engine: &Arc<Engine>,
    archive: &str,
    image: String,
    command: Vec<String>,
) -> Result<i64, Box<dyn Error>> {
    let file = tokio::fs::File::open(archive).await?;
    let failed = |error: std::io::Error| brig_manager::Error::new(ErrorKind::Io, error.to_string());
    let bytes = ReaderStream::new(file).map_err(failed);
    let mut progress = engine.images.load(Box::pin(bytes)).await?;
    while let Some(line) = progress.try_next().await? {
        print!("{}", line.stream.unwrap_or_default());
    }

    let mut request = CreateContainer::default();
    request.body.image = Some(image);
    request.body.cmd = Some(command);
    request.body.host_config.get_or_insert_default().network_mode = Some("none".into());
    let created = engine.containers.create(request).await?;
    engine.containers.start(&created.id).await?;
    let ended = engine.containers.wait(&created.id, WaitCondition::NotRunning).await?.await?;

    let request = LogsRequest { stdout: true, stderr: true, ..LogsRequest::default() };
    let mut log = engine.containers.logs(&created.id, request).await?;
    let (mut decoder, mut buffer) = (FrameDecoder::new(), BytesMut::new());
    while let Some(bytes) = log.output.try_next().await? {
        buffer.extend_from_slice(&bytes);
        while let Some(output) = decoder.decode(&mut buffer)? {
            std::io::stdout().write_all(&output.data)?;
        }
    }
    engine.containers.remove(&created.id, RemoveOptions::default()).await?;
    Ok(ended.status_code)
}
