//! Commands that docker has and Brig has not built yet: refused by name.

use crate::context::Context;
use crate::exit::Outcome;

/// Declares a module for each command that is refused.
macro_rules! refused {
    ($($name:ident: $advice:literal,)*) => {$(
        pub(crate) mod $name {
            use super::{Context, Outcome};

            /// Not built yet
            #[derive(Debug, clap::Args)]
            pub(crate) struct Arguments {
                /// What docker would take
                #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
                _rest: Vec<String>,
            }

            pub(crate) async fn execute(_context: &Context, _arguments: Arguments) -> Outcome {
                Err(anyhow::anyhow!(concat!("`brig ", stringify!($name), "` is not built yet: ", $advice)).into())
            }
        }
    )*};
}

refused! {
    build: "build the image with another tool and `brig load` it",
    search: "look at the registry's own pages",
    compose: "run the containers one by one",
    swarm: "Brig manages one machine",
}
