//! The engine from image to container, through brigd, the shim and the runtime, driven by the real docker command line
//! and by `brig`.

mod check;
mod crash;
mod deaths;
mod docker_cli;
mod images;
mod input;
mod layers;
mod limits;
mod logs;
mod network;
mod policies;
mod run;
mod runtimes;
mod terminal;
mod users;
mod volumes;
