//! Pulls an image into a directory, an OCI image layout, and prints its layers.
//!
//! ```text
//! cargo run -p pull-image -- IMAGE DIRECTORY [PLATFORM]
//! ```
#![expect(clippy::print_stdout, reason = "a program's output")]

use brig_images::registry::{BlobState, Client, Config, Progress, PullOptions};
use brig_images::{Platform, PlatformChoice, Reference, Store};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(image), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull IMAGE DIRECTORY [PLATFORM]".into());
    };
    let platform = arguments.next().map(|text| Platform::parse(&text)).transpose()?;
    let reference = Reference::parse(&image)?;
    let store = Store::open(directory)?;
    let client = Client::new(Config::default());
    let choice = platform.clone().map_or(PlatformChoice::Host, PlatformChoice::Exactly);
    let options = PullOptions { platform: choice, ..PullOptions::default() };
    let pulled = client.pull(&reference, &options, &store, &|progress| match progress {
        Progress::Blob(blob) => match blob.state {
            BlobState::Transferring { done, total } => {
                println!("{}: {done} of {total} bytes", blob.digest.short());
            }
            state => println!("{}: {state:?}", blob.digest.short()),
        },
        other => println!("{other:?}"),
    });
    let pulled = pulled.await?;
    let image = store.image(&pulled.target, &platform.unwrap_or_else(Platform::host))?;
    println!("{} is image {} for {}", reference.familiar(), image.id, image.platform);
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        println!("{} {:>12} bytes, uncompressed {diff_id}", layer.digest, layer.size);
    }
    Ok(())
}
