//! Bundles: from `config.json` to a plan that needs no further check.

mod config;
mod place;
mod process;
mod validate;

pub(crate) use config::{Config, parse_bytes};
pub(crate) use process::{ProcessContext, prepare as prepare_process};
pub(crate) use validate::{propagation, sysctls, validate};
